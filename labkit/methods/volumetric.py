"""A layer after a block that sees the block's tokens as feature maps, slice beside slice."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from labkit.networks.anatomy import grid, swap


class AfterBlock(nn.Module):
    """A frozen block, then `adapter` on its patch tokens: (B, S, h, w, d) -> the same shape.

    In and out are the streams of timm: (B·S, N, d) of a ViT, (B·S, h, w, d) of a Swin. Tokens in front of the
    patches (a class token, prompts) pass the adapter by.
    """

    slices = 1  # S; see labkit.networks.anatomy.tell_slices

    def __init__(self, original: nn.Module, grid: tuple[int, int], adapter: nn.Module):
        super().__init__()
        self.original, self.grid, self.adapter = original, grid, adapter

    def forward(self, x: torch.Tensor, **kwargs) -> torch.Tensor:
        x = self.original(x, **kwargs)
        if x.ndim == 4:
            return self.adapter(x.unflatten(0, (-1, self.slices))).flatten(0, 1)
        h, w = self.grid
        front, patches = x[:, : -h * w], x[:, -h * w :]
        maps = patches.unflatten(1, self.grid).unflatten(0, (-1, self.slices))
        return torch.cat([front, self.adapter(maps).flatten(0, 1).flatten(1, 2)], 1)


def put_after(backbone: nn.Module, path: str, adapter: nn.Module) -> None:
    """Let `adapter` follow the block at `path`."""
    block = backbone.get_submodule(path)
    swap(backbone, path, partial(AfterBlock, grid=grid(backbone, block), adapter=adapter))


def to_volume(maps: torch.Tensor) -> torch.Tensor:
    """(B, S, h, w, m) -> (B, m, S, h, w), as convolutions take it.

    The copy matters: on a CPU in bfloat16, PyTorch 2.14 computes wrong weight gradients of a depthwise Conv3d
    whose input lies channels-last in memory and whose kernel is longer than the run of slices.
    """
    return maps.movedim(-1, 1).contiguous()


def to_maps(volume: torch.Tensor) -> torch.Tensor:
    """(B, m, S, h, w) -> (B, S, h, w, m), as linear layers take it."""
    return volume.movedim(1, -1)
