"""Small tensors, written out."""

from __future__ import annotations

import torch


def row(*values: float) -> torch.Tensor:
    """n numbers as a tensor: (n)."""
    return torch.tensor(values, dtype=torch.float32)
