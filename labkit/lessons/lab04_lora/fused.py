"""`fused`: the updates of q and v, put where timm's qkv has its rows for them."""

from __future__ import annotations

import torch

from labkit.lessons.exercise import Challenge, Exercise, mistake
from labkit.lessons.lab04_lora.inputs import matrix, small_A
from labkit.methods.lora import stacked


def fused(A_q: torch.Tensor, B_q: torch.Tensor, A_v: torch.Tensor, B_v: torch.Tensor) -> torch.Tensor:
    """The update of timm's qkv, (3 d, k), from A (r, k) and B (d, r) of q and of v: zeros for k."""
    return stacked(torch.stack([B_q, B_v]), (0, 2), of=3) @ torch.cat([A_q, A_v])


# Challenges: the smallest first


def one_output() -> tuple:
    A_q, B_q = small_A(), matrix((1, 2))
    A_v, B_v = matrix((0, 1, 1), (2, 0, 0)), matrix((3, 4))
    return A_q, B_q, A_v, B_v


def two_outputs() -> tuple:
    A_q, B_q = matrix((1, 0, 2)), matrix((1,), (2,))
    A_v, B_v = matrix((0, 1, 1)), matrix((3,), (4,))
    return A_q, B_q, A_v, B_v


def random_matrices() -> tuple:
    A_q, B_q = torch.randn(3, 6), torch.randn(4, 3)
    A_v, B_v = torch.randn(3, 6), torch.randn(4, 3)
    return A_q, B_q, A_v, B_v


# Mistakes


@mistake("Your update of v stands in the rows of k. In timm the order is q, k, v: v has the last d rows.")
def v_in_the_rows_of_k(A_q, B_q, A_v, B_v):
    of_q, of_v = B_q @ A_q, B_v @ A_v
    return torch.cat([of_q, of_v, torch.zeros_like(of_q)])


@mistake("Your k gets q's update. k is not tuned: its rows are zero.")
def k_tuned_as_q(A_q, B_q, A_v, B_v):
    of_q, of_v = B_q @ A_q, B_v @ A_v
    return torch.cat([of_q, of_q, of_v])


@mistake("You left k's rows out. The fused matrix has 3 d rows, and those of k must be there, as zeros.")
def without_rows_of_k(A_q, B_q, A_v, B_v):
    of_q, of_v = B_q @ A_q, B_v @ A_v
    return torch.cat([of_q, of_v])


@mistake(
    "You put the bands side by side. q, k and v share the input, k columns; "
    "it is the outputs that are stacked."
)
def side_by_side(A_q, B_q, A_v, B_v):
    of_q, of_v = B_q @ A_q, B_v @ A_v
    return torch.cat([of_q, torch.zeros_like(of_q), of_v], 1)


@mistake(
    "You interleaved the rows: q's first, k's first, v's first, and so on. "
    "timm keeps d rows of q together, then d of k, then d of v."
)
def interleaved(A_q, B_q, A_v, B_v):
    of_q, of_v = B_q @ A_q, B_v @ A_v
    return torch.stack([of_q, torch.zeros_like(of_q), of_v], 1).flatten(0, 1)


@mistake("You exchanged q and v: q has the first d rows.")
def q_and_v_exchanged(A_q, B_q, A_v, B_v):
    of_q, of_v = B_q @ A_q, B_v @ A_v
    return torch.cat([of_v, torch.zeros_like(of_q), of_q])


@mistake("You used q's A for v too. Each has its own A: what q reads from a token need not be what v reads.")
def A_of_q_for_both(A_q, B_q, A_v, B_v):
    of_q, of_v = B_q @ A_q, B_v @ A_q
    return torch.cat([of_q, torch.zeros_like(of_q), of_v])


EXERCISE = Exercise(
    reference=fused,
    challenges=(
        Challenge("d = 1, k = 3, rank 2", one_output),
        Challenge("d = 2, k = 3, rank 1", two_outputs),
        Challenge("random, d = 4, k = 6, rank 3", random_matrices),
    ),
    mistakes=(
        v_in_the_rows_of_k,
        k_tuned_as_q,
        without_rows_of_k,
        side_by_side,
        interleaved,
        q_and_v_exchanged,
        A_of_q_for_both,
    ),
    hints=(
        "Three bands of d rows, q above k above v. Which one stays as it was?",
        "[B_q A_q; 0; B_v A_v], of shape (3 d, k).",
        "torch.zeros_like gives the middle band, torch.cat stacks three bands along the rows.",
    ),
)
