"""Backbones: timm's transformers, with bundled, local or hub weights.

`tiny` is the laptop's: 4 blocks of width 384, 8-pixel patches on 96-pixel slices (a grid of 12 x 12 tokens),
distilled on natural images by `labkit.training.distill`; `data/backbones/tiny.md` is its model card.
`vit_b16` and `swin_t` are the full-scale backbones of the Med-Tuning experiments (Shen et al., 2024,
arXiv:2304.10880).
"""

from __future__ import annotations

import gc
from pathlib import Path
from types import ModuleType

from torch import nn

from labkit.paths import data_dir

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
TINY = dict(
    img_size=96,
    patch_size=8,
    embed_dim=384,
    depth=4,
    num_heads=6,
    mlp_ratio=2.5,
    class_token=False,
    global_pool="",
    num_classes=0,
)
FULL_SIZE = {  # timm's name, what is changed before its weights are loaded, and what is cut away after
    "vit_b16": ("vit_base_patch16_224.augreg_in21k", {}, dict(class_token=False, global_pool="")),
    "swin_t": (
        "swin_tiny_patch4_window7_224.ms_in1k",
        dict(window_size=4, drop_path_rate=0.0),
        dict(depths=(2, 2, 2, 2)),
    ),
}
NAMES = ("tiny", *FULL_SIZE)


def tiny_vit(in_chans: int = 3) -> nn.Module:
    """The laptop's vision transformer with random weights: (B, in_chans, 96, 96) -> (B, 144, 384)."""
    return vision_transformers().VisionTransformer(in_chans=in_chans, **TINY)


def vision_transformers() -> ModuleType:
    """timm's module of them. The first time takes seconds, a third less than where Python looks for rubbish
    among the objects of a large library as they come in."""
    collects = gc.isenabled()
    gc.disable()
    try:
        from timm.models import vision_transformer
    finally:
        if collects:
            gc.enable()
    return vision_transformer


def load_backbone(
    name: str, in_chans: int = 4, weights: str | Path | None = "default", img_size: int | None = None
) -> nn.Module:
    """A timm backbone ready to be tuned.

    `weights` is "default" (bundled for tiny, the hub for the others), a path to a file (.safetensors, .pth or
    .npz as timm reads them), or None for random ones. Patch embeddings made for three colours are repeated
    and rescaled to `in_chans` channels (timm's `adapt_input_conv`). `img_size` is in pixels: 96 for tiny
    (fixed), 128 by default for the others.
    """
    if name not in NAMES:
        raise ValueError(f"There is no backbone {name!r}; choose one of {', '.join(NAMES)}.")
    if isinstance(weights, (str, Path)) and weights != "default" and not Path(weights).is_file():
        raise FileNotFoundError(
            f"No weights at {weights}; give the path of a file, or weights=None for random ones."
        )
    if name == "tiny":
        if img_size not in (None, TINY["img_size"]):
            raise ValueError(
                f"tiny was distilled at {TINY['img_size']} pixels, not {img_size}; leave "
                "img_size out (the segmenter resizes slices of any size) or use vit_b16."
            )
        model = tiny_vit(in_chans)
        if weights is not None:
            bundled = data_dir() / "backbones" / "tiny.safetensors"
            load_tiny(model, bundled if weights == "default" else weights)
        return model
    return load_full_size(name, in_chans, weights, img_size or 128)


def load_tiny(model: nn.Module, path: str | Path) -> None:
    """Fill `model`, a `tiny_vit`, from a safetensors file, adapting the patch embedding to its channels."""
    from safetensors.torch import load_file
    from timm.models import adapt_input_conv

    state = {key: value.float() for key, value in load_file(path).items()}
    projection = "patch_embed.proj.weight"
    state[projection] = adapt_input_conv(model.patch_embed.proj.in_channels, state[projection])
    model.load_state_dict(state)


def load_full_size(name: str, in_chans: int, weights: str | Path | None, img_size: int) -> nn.Module:
    import timm

    timm_name, change, cut = FULL_SIZE[name]
    change = dict(in_chans=in_chans, img_size=img_size, num_classes=0, **change)
    model = timm.create_model(timm_name, **change, **cut)
    if weights is None:
        return model
    overlay = None if weights == "default" else dict(file=str(weights))
    try:  # whole first: timm resamples positions only for a network with the parts of the file
        whole = timm.create_model(timm_name, pretrained=True, pretrained_cfg_overlay=overlay, **change)
    except OSError as error:
        hub = timm.get_pretrained_cfg(timm_name).hf_hub_id
        raise FileNotFoundError(
            f"The weights of {name} could not be fetched: there is no connection to the hub. On a connected "
            f"machine download model.safetensors of {hub} from the Hugging Face hub and give its path as "
            "weights=..., or use weights=None for random weights."
        ) from error
    state = whole.state_dict()
    if "pos_embed" in state:
        state["pos_embed"] = state["pos_embed"][:, whole.num_prefix_tokens :]
    model.load_state_dict({key: state[key] for key in model.state_dict()})
    return model
