r"""ST-Adapter: Parameter-Efficient Image-to-Video Transfer Learning. Pan et al., 2022, arXiv:2206.13559.

$$ \mathrm{ST\text{-}Adapter}(X) = X + f(\mathrm{DWConv3D}(X W_{down})) W_{up} $$

An image network made for single frames (here: slices) learns about their order from a depthwise convolution
of size (k, 1, 1) over (slice, row, column) between two linear maps, d -> m -> d; f is the identity, as in the
authors' code. So the layer is k maps of rank m, one per neighbour: y_s = x_s + sum_j W_up diag(w_j) W_down
x_(s+j), and zeros stand beyond the first and the last slice. Parameters: 2dm + m + d + (k + 1) m a block.

Deviations: one adapter after every block. The authors put it inside the block: one before the MLP, with as
many parameters, or one before each sub-layer, with twice as many (their ViT-B of m = 384: 24 adapters, 14.2
M). Their W_down has a bias that starts at zero, here as PyTorch's linear layers do. W_up starts at zero where
the authors zero the convolution: either way the tuned network starts as the pretrained one, and the
convolution can start as any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from labkit.methods.volumetric import AcrossSlices, put_after, to_maps, to_volume
from labkit.networks.anatomy import block_paths, width


class AlongSlices(nn.Module):
    """(B, S, h, w, d) -> the same shape."""

    def __init__(self, d: int, m: int, k: int):
        super().__init__()
        self.W_down = nn.Linear(d, m)
        self.conv = AcrossSlices(m, k)
        self.W_up = nn.Linear(m, d)
        nn.init.zeros_(self.W_up.weight)
        nn.init.zeros_(self.W_up.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv(to_volume(self.W_down(x)))  # (B, m, S, h, w)
        return x + self.W_up(to_maps(h))


@dataclass(frozen=True)
class STAdapter:
    """A convolution over k slices after every block; `m` is half of the block's width by default."""

    m: int | None = None
    k: int = 3
    family: ClassVar[str] = "add"

    def inject(self, backbone: nn.Module) -> None:
        if self.k < 1 or self.k % 2 == 0 or (self.m is not None and self.m < 1):
            raise ValueError(
                f"{self} can't be built: k counts slices with their own in the middle, so it is odd; m is at "
                "least 1."
            )
        for path in block_paths(backbone):
            d = width(backbone.get_submodule(path))
            put_after(backbone, path, AlongSlices(d, self.m or d // 2, self.k))
