"""Gradients that several exercises compare."""

from __future__ import annotations

import torch


def gradient(value: torch.Tensor, leaf: torch.Tensor) -> torch.Tensor:
    """The gradient of a number in the shape of `leaf`; zeros where none arrives."""
    if not value.requires_grad:
        return torch.zeros_like(leaf)
    (arrived,) = torch.autograd.grad(value, leaf, retain_graph=True, allow_unused=True)
    return torch.zeros_like(leaf) if arrived is None else arrived
