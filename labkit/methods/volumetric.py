"""A layer after a block that sees the block's tokens as feature maps, slice beside slice."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
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


class InPlane(nn.Conv3d):
    """A depthwise convolution, k x k in every slice: (B, m, S, h, w) -> the same shape.

    Computed in two dimensions: a third one of size 1 takes more than twice the time, and PyTorch 2.14 gets
    gradients of a depthwise Conv3d in bfloat16 wrong on a CPU for some layouts in memory.
    """

    def __init__(self, m: int, k: int):
        super().__init__(m, m, (1, k, k), padding=(0, k // 2, k // 2), groups=m)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        B, m, S, *_ = h.shape
        slices = h.transpose(1, 2).flatten(0, 1)  # (B S, m, h, w)
        found = F.conv2d(slices, self.weight.squeeze(2), self.bias, padding=self.padding[1:], groups=m)
        return found.unflatten(0, (B, S)).transpose(1, 2)


class AcrossSlices(nn.Conv3d):
    """A depthwise convolution over k slices at every place: (B, m, S, h, w) -> the same shape.

    In two dimensions as well: along the slices, and along all places of a slice at once.
    """

    def __init__(self, m: int, k: int):
        super().__init__(m, m, (k, 1, 1), padding=(k // 2, 0, 0), groups=m)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        weight, padding = self.weight.squeeze(-1), (self.padding[0], 0)
        found = F.conv2d(h.flatten(3), weight, self.bias, padding=padding, groups=h.shape[1])
        return found.unflatten(3, h.shape[3:])


def to_volume(maps: torch.Tensor) -> torch.Tensor:
    """(B, S, h, w, m) -> (B, m, S, h, w), as convolutions and transforms take it: plane after plane."""
    return maps.movedim(-1, 1).contiguous()


def to_maps(volume: torch.Tensor) -> torch.Tensor:
    """(B, m, S, h, w) -> (B, S, h, w, m), as linear layers take it."""
    return volume.movedim(1, -1)
