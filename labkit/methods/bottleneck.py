"""What adapters share: a narrow two-layer network after, or beside, a frozen module."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from labkit.networks.anatomy import blocks, swap, width


class Bottleneck(nn.Module):
    """d -> m -> d, (..., d) -> (..., d). It starts at zero: the up-projection does, and only it, because with
    both projections at zero neither would ever get a gradient."""

    def __init__(self, d: int, m: int, activation: nn.Module, scale: float = 1.0, dropout: float = 0.0):
        super().__init__()
        self.down, self.activation, self.up = nn.Linear(d, m), activation, nn.Linear(m, d)
        self.dropout, self.scale = nn.Dropout(dropout), scale
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * self.up(self.dropout(self.activation(self.down(x))))


class After(nn.Module):
    """y + adapter(y), with y what the frozen module gives out."""

    def __init__(self, original: nn.Module, adapter: nn.Module):
        super().__init__()
        self.original, self.adapter = original, adapter

    def forward(self, x: torch.Tensor, **kwargs) -> torch.Tensor:
        y = self.original(x, **kwargs)
        return y + self.adapter(y)


class Beside(After):
    """y + adapter(x), with x what the frozen module takes in."""

    def forward(self, x: torch.Tensor, **kwargs) -> torch.Tensor:
        return self.original(x, **kwargs) + self.adapter(x)


def insert(
    backbone: nn.Module,
    how: type[After],
    where: tuple[str, ...],
    adapter: Callable[[int], nn.Module],
    first: int = 0,
) -> None:
    """Put `adapter(d)` after or beside "attn" and/or "mlp" of every block from number `first` on."""
    unknown = [place for place in where if place not in ("attn", "mlp")]
    if unknown or not where:
        raise ValueError(f"An adapter can't be put at {where!r}; choose 'attn', 'mlp' or both.")

    def wrap(module: nn.Module, d: int) -> nn.Module:
        return how(module, adapter(d))

    for block in blocks(backbone)[first:]:
        d = width(block)
        for place in sorted(set(where)):  # in whatever order they were named
            swap(block, place, partial(wrap, d=d))


def bottleneck_width(d: int, m: int | None, reduction: int, method: str) -> int:
    """m, or d / reduction where m is None."""
    found = d // reduction if m is None else m
    if found < 1:
        raise ValueError(
            f"{method} needs a bottleneck of at least 1, not {found} (m={m}, d={d}, reduction={reduction})."
        )
    return found
