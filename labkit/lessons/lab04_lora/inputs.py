"""Matrices that several exercises are tried on."""

from __future__ import annotations

import torch


def matrix(*rows: tuple[float, ...]) -> torch.Tensor:
    """A matrix from its rows, in float32."""
    return torch.tensor(rows, dtype=torch.float32)


def small_A() -> torch.Tensor:
    """A of rank r = 2 for k = 3 inputs: (2, 3)."""
    return matrix((1, 0, 1), (1, 1, 0))


def random_layer() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """W0 (d, k), A (r, k) and B (d, r) for d = 3 outputs, k = 5 inputs and rank r = 2."""
    return torch.randn(3, 5), torch.randn(2, 5), torch.randn(3, 2)
