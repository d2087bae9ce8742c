r"""Prefix-Tuning. Li & Liang, 2021, arXiv:2101.00190.

$$ h_i = P_\theta[i, :] \;(i \in P_{idx}), \qquad P_\theta[i, :] = \mathrm{MLP}_\theta(P'_\theta[i, :]) $$

h_i are the activations of all L layers at position i of the prefix (eq. 3), in a transformer its keys and
values: every layer has n keys and n values (n, d) that no token made. Training them directly is unstable, so
they are what an MLP d -> mid -> 2 L d (with a tanh, in the authors' code) makes of a smaller matrix P' (n, d)
(section 4.3). After training `keep` stores what the MLP gives, n · 2 L d numbers, and drops the MLP.

P' starts as N(0, 1), the MLP as PyTorch's linear layers do: the tuned network does not start as the
pretrained one. On a Swin every window of a block sees the block's prefix, which has the block's own d; P' has
that of the first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from labkit.methods.attention import PrefixAttention, attentions
from labkit.networks.anatomy import swap
from labkit.tuning import members


class PrefixMLP(nn.Module):
    """Makes the keys and values of all layers, whose widths are given; one object that all of them hold."""

    def __init__(self, widths: list[int], n: int, mid: int):
        super().__init__()
        self.ends = [2 * sum(widths[:layer]) for layer in range(len(widths) + 1)]
        self.P = nn.Parameter(torch.randn(n, widths[0]))
        self.fc1 = nn.Linear(widths[0], mid)
        self.fc2 = nn.Linear(mid, self.ends[-1])

    def forward(self, layer: int) -> torch.Tensor:
        """Keys and values of one layer side by side: (n, 2d)."""
        rows = slice(self.ends[layer], self.ends[layer + 1])
        hidden = torch.tanh(self.fc1(self.P))  # (n, mid)
        return F.linear(hidden, self.fc2.weight[rows], self.fc2.bias[rows])


class FreePrefix(PrefixAttention):
    """Attention that sees n keys and values: those of an MLP, or its own parameter P (n, 2d)."""

    def __init__(
        self, original: nn.Module, layer: int, mlp: PrefixMLP | None = None, P: nn.Parameter | None = None
    ):
        super().__init__(original)
        self.layer, self.mlp, self.P = layer, mlp, P

    def keys_values(self) -> tuple[torch.Tensor, torch.Tensor]:
        P = self.P if self.mlp is None else self.mlp(self.layer)
        k, v = P.unflatten(-1, (2, self.original.num_heads, -1)).permute(1, 2, 0, 3)  # (heads, n, d_h)
        return k[None], v[None]


@dataclass(frozen=True)
class PrefixTuning:
    """n keys and values for every block, through an MLP with `mid` hidden units; None: directly, N(0, 1)."""

    n: int = 10
    mid: int | None = 512
    family: ClassVar[str] = "prompt"

    def inject(self, backbone: nn.Module) -> None:
        if self.n < 1 or (self.mid is not None and self.mid < 1):
            raise ValueError(f"{self} can't be: n and mid must be at least 1 (mid=None: without the MLP).")
        found = list(attentions(backbone))
        mlp = None if self.mid is None else PrefixMLP([d for *_, d in found], self.n, self.mid)
        for layer, (attention, _, d) in enumerate(found):
            P = nn.Parameter(torch.randn(self.n, 2 * d)) if mlp is None else None
            swap(backbone, attention, partial(FreePrefix, layer=layer, mlp=mlp, P=P))


@torch.no_grad()
def keep(model: nn.Module) -> nn.Module:
    """Replace the MLP of a model tuned by PrefixTuning by the keys and values it makes: the same function.

    The model is then tuned by PrefixTuning(mid=None), and its delta is saved and loaded as such.
    ValueError: it has no such MLP.
    """
    found = [m for m in model.modules() if isinstance(m, FreePrefix) and m.mlp is not None]
    if not found:
        raise ValueError("This model has no prefix with an MLP to replace; tune it by PrefixTuning() first.")
    for attention in found:
        attention.P, attention.mlp = nn.Parameter(attention.mlp(attention.layer)), None
    kept = [replace(m, mid=None) if isinstance(m, PrefixTuning) else m for m in members(model.tuned_by)]
    model.tuned_by = tuple(kept) if isinstance(model.tuned_by, tuple) else kept[0]
    return model
