"""Networks small enough to be looked at in full."""

from __future__ import annotations

import torch
from torch import nn


class Toy(nn.Module):
    """The smallest thing with a backbone and a decoder."""

    def __init__(self, width: int = 2):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(2, width), nn.LayerNorm(width))
        self.decoder = nn.Linear(width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Points (N, 2) -> numbers (N, 1)."""
        return self.decoder(self.backbone(x))
