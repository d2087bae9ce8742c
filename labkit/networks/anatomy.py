"""Where things are inside timm's transformers: tuning methods ask here instead of knowing timm's names.

timm's ViT `Block` and `SwinTransformerBlock` name their children alike: norm1, attn.{qkv, proj}, norm2,
mlp.{fc1, fc2}.
"""

from __future__ import annotations

import math
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


def backbone_of(model: nn.Module) -> nn.Module:
    """The transformer inside a segmenter, or the model itself if it is one."""
    return getattr(model, "backbone", model)


def block_paths(backbone: nn.Module) -> list[str]:
    """Names of the transformer blocks in the order of the forward pass."""
    if hasattr(backbone, "blocks"):  # ViT
        return [f"blocks.{i}" for i in range(len(backbone.blocks))]
    stages = enumerate(backbone.layers)  # Swin
    return [f"layers.{i}.blocks.{j}" for i, stage in stages for j in range(len(stage.blocks))]


def blocks(backbone: nn.Module) -> list[nn.Module]:
    return [backbone.get_submodule(path) for path in block_paths(backbone)]


def innermost(module: nn.Module) -> nn.Module:
    """The pretrained module inside what methods have put around it."""
    while hasattr(module, "original"):
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


def tell_slices(backbone: nn.Module, slices: int) -> None:
    """Tell each volumetric layer (one with an attribute `slices`) how many slices make a volume."""
    for module in backbone.modules():
        if hasattr(module, "slices"):
            module.slices = slices


def head(model: nn.Module) -> Iterator[nn.Parameter]:
    """What every method trains beside its own parameters.

    For a segmenter the final norm and the decoder, and the position embedding where the segmenter says so
    (the "Head" of the Med-Tuning paper, whose position embedding is new). For a bare backbone its classifier.
    """
    if not hasattr(model, "decoder"):
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
