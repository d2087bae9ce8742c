"""Factors of an update."""

from __future__ import annotations

import torch


def random_factors(d: int, k: int, r: int) -> tuple[torch.Tensor, torch.Tensor]:
    """B (d, r) and A (r, k)."""
    B = torch.randn(d, r)
    A = torch.randn(r, k)
    return B, A
