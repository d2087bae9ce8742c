"""Where things are inside a network: tuning methods ask here instead of knowing timm's names.

timm's ViT, DeiT and Swin name the parts of a block alike: norm1, attn.{qkv, proj}, norm2, mlp.{fc1, fc2}.
A transformer of one's own is known, too, if it has `blocks` whose parts are called so. In any other network
the layers that a method changes are found by names that the user gives (`named_layers`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

# a linear layer's name in the papers -> its place in a block; which part of how many equal ones it is there
LINEARS = {
    "q": ("attn.qkv", 0, 3),
    "k": ("attn.qkv", 1, 3),
    "v": ("attn.qkv", 2, 3),
    "o": ("attn.proj", 0, 1),
    "fc1": ("mlp.fc1", 0, 1),
    "fc2": ("mlp.fc2", 0, 1),
}


PARTS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")  # of a block
EVERY_LINEAR = "all-linear"  # a target: as in peft, every linear layer but the head's
MATRICES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)  # layers that LoRA knows to change


def backbone_of(model: nn.Module) -> nn.Module:
    """The transformer inside a segmenter, or the model itself if it is one."""
    return getattr(model, "backbone", model)


def block_paths(backbone: nn.Module) -> list[str]:
    """Names of the transformer blocks in the order of the forward pass. ValueError: the network has none that
    are known, and what does."""
    found = _block_paths(backbone)
    if not found:
        raise ValueError(
            f"This method changes transformer blocks, and labkit knows none in {type(backbone).__name__}: it "
            "knows timm's ViT, DeiT and Swin, and networks whose `blocks` have the parts "
            f"{', '.join(PARTS)}. On others use a method that changes matrices, and name the layers: "
            'LoRA(targets=("q_proj", "v_proj")).'
        )
    return found


def _block_paths(backbone: nn.Module) -> list[str]:
    """As `block_paths`; empty where no block is known."""
    if isinstance(getattr(backbone, "blocks", None), (nn.Sequential, nn.ModuleList)):  # ViT
        found = [f"blocks.{i}" for i in range(len(backbone.blocks))]
    elif isinstance(getattr(backbone, "layers", None), (nn.Sequential, nn.ModuleList)):  # Swin
        stages = [(i, stage) for i, stage in enumerate(backbone.layers) if hasattr(stage, "blocks")]
        found = [f"layers.{i}.blocks.{j}" for i, stage in stages for j in range(len(stage.blocks))]
    else:
        return []
    parts = [
        {name.replace("original.", "") for name, _ in backbone.get_submodule(path).named_modules()}
        for path in found
    ]
    return found if all(names.issuperset(PARTS) for names in parts) else []


def blocks(backbone: nn.Module) -> list[nn.Module]:
    return [backbone.get_submodule(path) for path in block_paths(backbone)]


def innermost(module: nn.Module) -> nn.Module:
    """The pretrained module inside what methods have put around it."""
    while isinstance(getattr(module, "original", None), nn.Module):
        module = module.original
    return module


def width(block: nn.Module) -> int:
    """d of this block (Swin doubles it from stage to stage)."""
    return innermost(innermost(block).norm1).normalized_shape[0]


def grid(backbone: nn.Module, block: nn.Module) -> tuple[int, int]:
    """(h, w): how many patch tokens stand below and beside each other in this block of the backbone."""
    return tuple(getattr(innermost(block), "input_resolution", backbone.patch_embed.grid_size))


def patch_size(backbone: nn.Module) -> int:
    return backbone.patch_embed.patch_size[0]


def swap(parent: nn.Module, path: str, wrap: Callable[[nn.Module], nn.Module]) -> None:
    """Replace the submodule at `path` by `wrap(submodule)`."""
    parent.set_submodule(path, wrap(parent.get_submodule(path)))


def places(targets: Sequence[str], method: str) -> dict[str, tuple[tuple[int, ...], int]]:
    """Where the named linear layers lie in a block: path -> (parts, of how many), in the order of LINEARS.

    ValueError: no target, or one that is not in LINEARS; `method` is who asks, for the message.
    """
    unknown = [target for target in targets if target not in LINEARS]
    if unknown or not targets:
        raise ValueError(f"{method} can't be put on {targets!r}; choose some of {', '.join(LINEARS)}.")
    found: dict[str, tuple[tuple[int, ...], int]] = {}
    for target, (path, part, of) in LINEARS.items():
        if target in targets:
            found[path] = ((*found.get(path, ((), of))[0], part), of)
    return found


def linears(backbone: nn.Module, targets: Sequence[str] | str, method: str) -> dict[str, tuple]:
    """The layers that `targets` name in a backbone: path -> (parts, of how many), as in `places`.

    In a network whose blocks are known, q, k, v, o, fc1 and fc2 are a block's matrices, whatever they are
    called there. Otherwise, and for other names, see `named_layers`. ValueError: no such layer.
    """
    known = _block_paths(backbone)
    if known and targets != EVERY_LINEAR and (not targets or set(targets) <= LINEARS.keys()):
        found = places(targets, method).items()
        return {f"{block}.{path}": parts for path, parts in found for block in known}
    return {path: ((0,), 1) for path in named_layers(backbone, targets, method)}


def named_layers(model: nn.Module, targets: Sequence[str] | str, method: str) -> list[str]:
    """Paths of the linear layers and convolutions that `targets` name, as peft reads its `target_modules`.

    A name means every layer whose path is it or ends in "." and it; a string is a regular expression that
    must fit the whole path; "all-linear" is every linear layer. Layers of the head (`tune(..., head=...)`)
    are left out. ValueError: a name that means nothing, or something that is neither; says what there is.
    """
    heads = tuple(f"{name}." for name in getattr(model, "head_names", ()))
    there = {
        path: innermost(module)
        for path, module in model.named_modules()
        if path and "original" not in path.split(".") and not f"{path}.".startswith(heads or "\0")
    }
    layers = [path for path, module in there.items() if isinstance(module, MATRICES)]
    ends = ", ".join(sorted(set(map(_last_words, layers)))) or "nothing: it has none"
    if targets == EVERY_LINEAR:
        found = [path for path in layers if isinstance(there[path], nn.Linear)]
    elif isinstance(targets, str):
        found = [path for path in layers if re.fullmatch(targets, path)]
    else:
        found = []
        for target in targets:
            meant = [path for path in there if path == target or path.endswith(f".{target}")]
            if not meant:
                raise ValueError(
                    f"{method} can't be put on {target!r}: {type(model).__name__} has no layer whose name "
                    f"ends so; its layers end in {ends}."
                )
            if other := [path for path in meant if path not in layers]:
                raise ValueError(
                    f"{method} can't be put on {other[0]}: it is a {type(there[other[0]]).__name__}, no "
                    f"linear layer and no convolution; those of {type(model).__name__} end in {ends}."
                )
            found += [path for path in meant if path not in found]
    if not found:
        raise ValueError(
            f"{method}'s targets {targets!r} name no layer of {type(model).__name__}; its layers end in "
            f"{ends}."
        )
    return found


def _last_words(path: str) -> str:
    """How a layer is told from others: "q_proj" of "layers.0.q_proj", "mlp.3" of "layers.0.mlp.3"."""
    *before, last = path.split(".")
    return ".".join([*before[-1:], last]) if last.isdigit() else last


def tell_slices(backbone: nn.Module, slices: int) -> None:
    """Tell each volumetric layer (one with an attribute `slices`) how many slices make a volume."""
    for module in backbone.modules():
        if hasattr(module, "slices"):
            module.slices = slices


def head(model: nn.Module) -> Iterator[nn.Parameter]:
    """What every method trains beside its own parameters.

    For a segmenter the final norm and the decoder, and the position embedding where the segmenter says so
    (the "Head" of the Med-Tuning paper, whose position embedding is new). For a backbone of timm's its
    classifier. For any other network the modules that `tune(..., head=...)` named, and what lies beside its
    `backbone`, if it has one.
    """
    named = getattr(model, "head_names", ())
    if not hasattr(model, "tune_positions"):
        for name in named:
            yield from model.get_submodule(name).parameters()
        inside = {id(p) for p in backbone_of(model).parameters()}
        yield from (p for p in model.parameters() if id(p) not in inside)
        if not named and hasattr(model, "get_classifier"):
            yield from model.get_classifier().parameters()
        return
    yield from model.decoder.parameters()
    yield from model.backbone.norm.parameters()
    if model.tune_positions:
        yield model.backbone.pos_embed


def copy_again(model: nn.Module) -> None:
    """Where a decoder's blocks start as copies of the backbone's, copy them from what the backbone is now."""
    decoder = getattr(model, "decoder", None)
    if hasattr(decoder, "copy_blocks"):
        decoder.copy_blocks(backbone_of(model))


def feature_indices(backbone: nn.Module) -> list[int]:
    """The last block of each of four stages of a ViT; the stages themselves of a Swin."""
    if not hasattr(backbone, "blocks"):
        return list(range(len(backbone.layers)))
    depth = len(backbone.blocks)
    if depth < 4:
        raise ValueError(f"A ViT of {depth} blocks can't be cut into four stages; it needs at least 4.")
    return [math.ceil(depth * stage / 4) - 1 for stage in (1, 2, 3, 4)]


def stage_ends(backbone: nn.Module) -> list[str]:
    """Names of the last block of each stage."""
    if hasattr(backbone, "blocks"):
        return [f"blocks.{i}" for i in feature_indices(backbone)]
    return [f"layers.{i}.blocks.{len(stage.blocks) - 1}" for i, stage in enumerate(backbone.layers)]


def feature_widths(backbone: nn.Module) -> list[int]:
    if hasattr(backbone, "blocks"):
        return [backbone.embed_dim] * 4
    return [width(stage.blocks[0]) for stage in backbone.layers]


def token_pixels(backbone: nn.Module) -> int:
    """Side of the square of pixels that a token of the deepest feature map stands for."""
    stages = 0 if hasattr(backbone, "blocks") else len(backbone.layers) - 1  # each merges 2 x 2 tokens
    return patch_size(backbone) * 2**stages


def features(backbone: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Four feature maps, shallow to deep: (n, C, H, W) -> [(n, d_i, h_i, w_i)]; the deepest is normalised."""
    indices = feature_indices(backbone)
    *shallow, deep = backbone.forward_intermediates(x, indices=indices, intermediates_only=True)
    return [*shallow, backbone.norm(deep.movedim(1, -1)).movedim(-1, 1)]


def stage_inputs(backbone: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """What the stages of a Swin start from, once patches are merged, and the normalised output of the last:
    (n, C, H, W) -> one (n, d_i, h_i, w_i) a stage, and the output."""
    from timm.models import checkpoint_seq

    maps, x = [], backbone.patch_embed(x)
    for stage in backbone.layers:
        x = stage.downsample(x)
        maps.append(x)
        x = checkpoint_seq(stage.blocks, x) if stage.grad_checkpointing else stage.blocks(x)
    return [y.movedim(-1, 1) for y in (*maps, backbone.norm(x))]
