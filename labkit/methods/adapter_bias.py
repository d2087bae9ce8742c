r"""AdapterBias: Parameter-efficient Token-dependent Representation Shift. Fu et al., 2022, arXiv:2205.00305.

$$ y = W h + b + \alpha(h)\, v, \qquad \alpha(h) = a^\top h + a_0 $$

One vector v (d) per block, added to what the MLP gives out, with a weight alpha that each token chooses for
itself from the MLP's hidden values h (d_ff), as in the authors' code. Then

$$ y = (W + v a^\top) h + (b + a_0 v): $$

a change of rank 1 of fc2 and of its bias, so unlike other adapters this one can be merged. v starts at zero,
a as PyTorch's linear layers do.

Deviations. a_0 starts at zero, in the authors' code uniform as a; and they train the layer norms after the
outputs too, which stay frozen here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from labkit.methods.linear import TunedLinear
from labkit.networks.anatomy import innermost, linears, swap


class ShiftedLinear(TunedLinear):
    """A frozen linear layer whose output is shifted along v: (..., d_ff) -> (..., d)."""

    def __init__(self, original: nn.Linear):
        super().__init__(original)
        bound = 1 / math.sqrt(original.in_features)
        self.v = nn.Parameter(torch.zeros(original.out_features))
        self.a = nn.Parameter(torch.empty(original.in_features).uniform_(-bound, bound))
        self.a0 = nn.Parameter(torch.zeros(1))

    def weight_and_bias(self) -> tuple[torch.Tensor, torch.Tensor]:
        bias = self.a0 * self.v if self.original.bias is None else self.original.bias + self.a0 * self.v
        return self.original.weight + torch.outer(self.v, self.a), bias

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        alpha = h @ self.a + self.a0  # (...,): one weight for each token
        return self.original(h) + alpha.unsqueeze(-1) * self.v


@dataclass(frozen=True)
class AdapterBias:
    """A token-dependent shift after the MLP of every block, or after the linear layers of these names."""

    targets: tuple[str, ...] | str = ("fc2",)
    family: ClassVar[str] = "reparameterise"

    def inject(self, backbone: nn.Module) -> None:
        for path, (_, of) in linears(backbone, self.targets, "AdapterBias").items():
            if of > 1 or not isinstance(innermost(backbone.get_submodule(path)), nn.Linear):
                raise ValueError(
                    f"AdapterBias can't be put on {path}: it shifts what a whole linear layer gives out, and "
                    "this is a part of one, or a convolution; fc2 is the paper's, o and fc1 are possible."
                )
            swap(backbone, path, ShiftedLinear)
