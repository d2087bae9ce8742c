"""Small tensors, written out."""

from __future__ import annotations

import torch


def row(*values: float) -> torch.Tensor:
    """n numbers as a tensor: (n)."""
    return torch.tensor(values, dtype=torch.float32)


def rows(*values: tuple[float, ...]) -> torch.Tensor:
    """n rows of k numbers as a matrix: (n, k)."""
    return torch.tensor(values, dtype=torch.float32)
