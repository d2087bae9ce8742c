"""Swin-Unet: Unet-like Pure Transformer for Medical Image Segmentation. Cao et al., 2021, arXiv:2105.05537.

The decoder mirrors the Swin: patches are expanded where the encoder merged them, and each stage is joined
with what the encoder's stage of its size began from.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from labkit.networks.anatomy import patch_size, width


class PatchExpand(nn.Module):
    """Every token becomes p x p finer ones: (n, h, w, d) -> (n, p h, p w, after)."""

    def __init__(self, d: int, after: int, p: int):
        super().__init__()
        self.expand = nn.Linear(d, p * p * after, bias=False)
        self.norm = nn.LayerNorm(after)
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.expand(x).unflatten(-1, (self.p, self.p, -1))  # (n, h, w, p, p, after)
        return self.norm(x.transpose(2, 3).flatten(3, 4).flatten(1, 2))


class SwinUNetDecoder(nn.Module):
    """The maps of `labkit.networks.anatomy.stage_inputs` -> logits at the resolution of the slices: (n, K, H,
    W).

    6,749,994 parameters for a Swin of width 96, depths (2, 2, 2, 2), windows of 4 and four classes. The
    blocks start as copies of the encoder's, as in the authors' code.
    """

    def __init__(self, backbone: nn.Module, classes: int):
        super().__init__()
        *stages, deepest = backbone.layers
        deeper = width(deepest.blocks[0])
        self.expand, self.join, self.stages = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for stage in reversed(stages):
            d = width(stage.blocks[0])
            self.expand.append(PatchExpand(deeper, d, 2))
            self.join.append(nn.Linear(2 * d, d))
            self.stages.append(copy.deepcopy(stage.blocks))
            deeper = d
        self.norm = nn.LayerNorm(d)
        self.up = PatchExpand(d, d, patch_size(backbone))
        self.head = nn.Conv2d(d, classes, 1, bias=False)

    @torch.no_grad()
    def copy_blocks(self, backbone: nn.Module) -> None:
        """Give every block the parameters that the encoder's block has now."""
        for mine, stage in zip(self.stages, list(backbone.layers)[-2::-1], strict=True):
            for parameter, value in zip(mine.parameters(), stage.blocks.parameters(), strict=True):
                parameter.copy_(value)

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        *skips, _, x = [m.movedim(1, -1) for m in maps]  # (n, h, w, d)
        for expand, join, stage, skip in zip(self.expand, self.join, self.stages, skips[::-1], strict=True):
            x = stage(join(torch.cat([expand(x), skip], -1)))
        return self.head(self.up(self.norm(x)).movedim(-1, 1))
