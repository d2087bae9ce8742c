"""What exercises on losses and weights compare: tensors that learn, and the gradients that arrive."""

from __future__ import annotations

from typing import Any

import torch


def tensor(output: Any, what: str) -> torch.Tensor:
    """An answer's tensor. TypeError, in a student's words: it is something else, and nothing can learn."""
    if isinstance(output, torch.Tensor):
        return output
    raise TypeError(
        f"{what} must be a tensor, not a {type(output).__name__}: only a tensor has a gradient, and "
        "without one nothing could learn; leave out `.item()`, `.tolist()` and NumPy"
    )


def gradient(value: torch.Tensor, leaf: torch.Tensor) -> torch.Tensor:
    """The gradient of one number in the shape of `leaf`; zeros where none arrives, or where it is not one."""
    if not value.requires_grad or value.ndim:
        return torch.zeros_like(leaf)
    (arrived,) = torch.autograd.grad(value, leaf, retain_graph=True, allow_unused=True)
    return torch.zeros_like(leaf) if arrived is None else arrived
