"""UPerNet: Unified Perceptual Parsing for Scene Understanding. Xiao et al., 2018, arXiv:1807.10221.

In the form that Med-Tuning (Shen et al., 2024, arXiv:2304.10880) puts behind a ViT, whose four maps are of
one size: 14,956,804 parameters for width 768 and four classes. It differs from the paper of 2018: to every
level is added the next deeper one as it came, not the sum so far; the three sums share one smoothing
convolution; the finest map passes a convolution with norm and GELU instead of a lateral one; and, beside
mmseg's form, pooling has the bins 1, 2, 4, 6 (there 1, 2, 3, 6) and is as wide as the map, and laterals and
smoothing have no norm and no ReLU.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def conv_norm_relu(before: int, after: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(after), nn.ReLU()
    )


def resized(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=True)


class PyramidPooling(nn.Module):
    """What the map is like over ever larger parts of the plane (Zhao et al., 2017, arXiv:1612.01105).

    (n, d, h, w) -> the same shape.
    """

    def __init__(self, d: int, bins: tuple[int, ...] = (1, 2, 4, 6)):
        super().__init__()
        part = d // len(bins)
        self.pools = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(bin), conv_norm_relu(d, part, 1)) for bin in bins
        )
        self.bottleneck = nn.Sequential(conv_norm_relu(d + part * len(bins), d, 3), nn.Dropout2d(0.1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and len(x) == 1:
            raise ValueError(
                "UPerNet can't train on one slice, which pooled over its plane is a single value to the "
                "batch norm: give at least two slices a step, or call eval() first."
            )
        return self.bottleneck(torch.cat([x, *(resized(pool(x), x) for pool in self.pools)], 1))


class UPerNet(nn.Module):
    """Four feature maps, shallow to deep -> logits at the resolution of the first: (n, K, h, w)."""

    def __init__(self, widths: list[int], classes: int, channels: int = 256):
        super().__init__()
        self.neck = nn.Sequential(
            nn.Conv2d(widths[0], channels, 1), nn.BatchNorm2d(channels), nn.GELU()
        )  # of the finest map
        self.pyramid = PyramidPooling(widths[-1])
        self.laterals = nn.ModuleList(nn.Conv2d(d, channels, 1) for d in widths[1:])
        self.smooth = nn.Conv2d(channels, channels, 3, padding=1)
        self.fuse = conv_norm_relu(channels * len(widths), channels, 3)
        self.head = nn.Conv2d(channels, classes, 3, padding=1)

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        finest, *middle, deepest = maps
        deeper = [*middle, self.pyramid(deepest)]
        levels = [self.neck(finest), *(f(x) for f, x in zip(self.laterals, deeper, strict=True))]
        sums = [self.smooth(x + resized(y, x)) for x, y in zip(levels, levels[1:], strict=False)]
        fused = [resized(x, levels[0]) for x in (*sums, levels[-1])]
        return self.head(self.fuse(torch.cat(fused, 1)))
