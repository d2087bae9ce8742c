"""A linear layer seen through trainable parameters: what LoRA and its kin share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class TunedLinear(nn.Module):
    """Holds a frozen linear layer; a subclass's `weight_and_bias` is its paper's equation.

    `forward` may be a cheaper equal of it. `weight` is the effective one, because some backbones (SwinV2,
    BEiT) read `layer.weight` instead of calling the layer.
    """

    def __init__(self, original: nn.Linear):
        super().__init__()
        self.original = original

    @property
    def in_features(self) -> int:
        return self.original.in_features

    @property
    def out_features(self) -> int:
        return self.original.out_features

    def weight_and_bias(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, *self.weight_and_bias())

    @property
    def weight(self) -> torch.Tensor:
        return self.weight_and_bias()[0]

    @property
    def bias(self) -> torch.Tensor | None:
        return self.weight_and_bias()[1]

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """A plain linear layer that computes the same."""
        weight, bias = self.weight_and_bias()
        layer = nn.Linear(
            self.original.in_features,
            self.original.out_features,
            bias is not None,
            weight.device,
            weight.dtype,
        )
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
        return layer.requires_grad_(False)
