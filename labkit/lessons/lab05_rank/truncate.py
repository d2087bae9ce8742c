"""`truncate`: an update of rank r, cut to its first b ranks."""

from __future__ import annotations

import torch

from labkit.lessons.exercise import Challenge, Exercise, mistake
from labkit.lessons.lab05_rank.inputs import random_factors
from labkit.updates import low_rank


def truncate(B: torch.Tensor, A: torch.Tensor, b: int, alpha: float) -> torch.Tensor:
    """The first b pieces of (alpha / r) B A, of factors B (d, r) and A (r, k): (d, k)."""
    return alpha / len(A) * low_rank.Factors(B, A).at(b)


# Challenges


def small_factors() -> tuple[torch.Tensor, torch.Tensor]:
    """B (4, 2) and A (2, 3)."""
    B = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [0.0, 1.0]])
    A = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]])
    return B, A


# Mistakes


@mistake(
    "You scaled by alpha / b. That is the paper's scale; ours is alpha / r at every rank, so that rank b + 1 "
    "is rank b plus one more piece."
)
def scaled_by_alpha_over_b(B, A, b, alpha):
    return alpha / b * B[:, :b] @ A[:b]


@mistake(
    "You scaled by alpha / b, with a guard for b = 0. That is the paper's scale; ours is alpha / r at every "
    "rank, and needs no guard."
)
def scaled_by_alpha_over_b_guarded(B, A, b, alpha):
    return alpha / max(b, 1) * B[:, :b] @ A[:b]


@mistake("You divided alpha by the number of outputs. r is the number of columns of B, not of rows.")
def scaled_by_alpha_over_d(B, A, b, alpha):
    return alpha / len(B) * B[:, :b] @ A[:b]


@mistake("You divided alpha by the number of inputs. r is the number of rows of A, not of columns.")
def scaled_by_alpha_over_k(B, A, b, alpha):
    return alpha / A.shape[1] * B[:, :b] @ A[:b]


@mistake("You divided with //, which drops the fraction: alpha / r.")
def fraction_dropped(B, A, b, alpha):
    return alpha // len(A) * B[:, :b] @ A[:b]


@mistake("You left the scale out: the network multiplies BA by alpha / r.")
def without_the_scale(B, A, b, alpha):
    return B[:, :b] @ A[:b]


@mistake("You kept the last b ranks. Training used the first ones most, under every b.")
def last_b_ranks(B, A, b, alpha):
    return alpha / len(A) * B[:, -b:] @ A[-b:]


@mistake("You kept rank b alone. Rank b means all of the first b pieces.")
def rank_b_alone(B, A, b, alpha):
    return alpha / len(A) * B[:, b - 1 : b] @ A[b - 1 : b]


@mistake("You kept one piece too many: `:b` already holds b of them, 0 to b - 1.")
def one_term_too_many(B, A, b, alpha):
    return alpha / len(A) * B[:, : b + 1] @ A[: b + 1]


@mistake(
    "You took the best rank b by SVD. That is another matrix; DyLoRA's order is the one it was trained in."
)
def best_rank_b(B, A, b, alpha):
    U, s, Vh = torch.linalg.svd(alpha / len(A) * B @ A, full_matrices=False)
    return U[:, :b] * s[:b] @ Vh[:b]


@mistake("You cut rows of B. B is (d, r): its ranks are its columns.")
def cut_rows_of_B(B, A, b, alpha):
    return alpha / len(A) * B[:b] @ A


@mistake("You cut A and not B, so that they no longer fit together.")
def cut_A_only(B, A, b, alpha):
    return alpha / len(A) * B @ A[:b]


EXERCISE = Exercise(
    reference=truncate,
    challenges=(
        Challenge("the first of two ranks", lambda: (*small_factors(), 1, 4)),
        Challenge("both ranks", lambda: (*small_factors(), 2, 4)),
        Challenge("no rank at all", lambda: (*small_factors(), 0, 4)),
        Challenge("three of five, random", lambda: (*random_factors(7, 6, 5), 3, 12.0)),
    ),
    mistakes=(
        scaled_by_alpha_over_b,
        scaled_by_alpha_over_b_guarded,
        scaled_by_alpha_over_d,
        scaled_by_alpha_over_k,
        fraction_dropped,
        without_the_scale,
        last_b_ranks,
        rank_b_alone,
        one_term_too_many,
        best_rank_b,
        cut_rows_of_B,
        cut_A_only,
    ),
    hints=(
        "Which columns of B belong to the first rows of A?",
        "(alpha / r) B[:, :b] A[:b], with r the number of rows of A.",
        "alpha / len(A) times the product of B[:, :b] and A[:b].",
    ),
)
