"""Factors of an update, and whether an answer multiplied them out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def random_factors(d: int, k: int, r: int) -> tuple[torch.Tensor, torch.Tensor]:
    """B (d, r) and A (r, k)."""
    B = torch.randn(d, r)
    A = torch.randn(r, k)
    return B, A


def two_skewed_pieces() -> tuple[torch.Tensor, torch.Tensor]:
    """B (4, 2) and A (2, 3), whose two pieces are not at right angles."""
    B = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    A = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    return B, A


def thin_factors() -> tuple[torch.Tensor, torch.Tensor]:
    """Factors so thin that BA has more than ten times their numbers: B (60, 2), A (2, 50)."""
    return random_factors(60, 50, 2)


class _Largest(TorchDispatchMode):
    """Notes the shape of the largest tensor that torch computes."""

    shape: tuple[int, ...] = ()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        shapes = [tuple(x.shape) for x in tree_leaves(found) if isinstance(x, torch.Tensor)]
        self.shape = max([self.shape, *shapes], key=math.prod)
        return found


def never_formed(answer: Callable, output: Any, B: torch.Tensor, A: torch.Tensor) -> str | None:
    """A sentence where torch computed a tensor much larger than the factors, as BA is if these are thin.

    It sees torch's operations in this process only: what NumPy computes, or the jail of the grader, it does
    not see.
    """
    with _Largest() as largest:
        answer(B, A)
    if math.prod(largest.shape) <= 4 * max(B.numel(), A.numel()):
        return None
    size = " x ".join(map(str, largest.shape))
    return (
        f"a tensor of {size} was computed, {math.prod(largest.shape):,} numbers, where B and A have "
        f"{B.numel() + A.numel():,} together. All that is needed fits into matrices as thin as these"
    )
