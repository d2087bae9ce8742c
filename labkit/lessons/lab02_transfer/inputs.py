"""Networks small enough to be looked at in full."""

from __future__ import annotations

import torch
from torch import nn


class Toy(nn.Module):
    """The smallest thing with a backbone and a decoder."""

    def __init__(self, width: int = 2, decoder_bias: bool = True):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(2, width), nn.LayerNorm(width))
        self.decoder = nn.Linear(width, 1, bias=decoder_bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Points (N, 2) -> numbers (N, 1)."""
        return self.decoder(self.backbone(x))


def with_frozen_backbone(model: Toy) -> Toy:
    """The same network, in which only the decoder learns."""
    model.backbone.requires_grad_(False)
    return model
