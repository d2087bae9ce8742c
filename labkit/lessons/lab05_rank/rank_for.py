"""`rank_for`: the largest rank that LoRA can have on some matrices within a budget of numbers."""

from __future__ import annotations

import torch

from labkit.lessons.exercise import Challenge, Exercise, mistake


def rank_for(budget: int, shapes: list[tuple[int, int]]) -> int:
    """The largest rank r, the same on every matrix (d, k) of `shapes`, such that all B (d, r) and A (r, k)
    hold `budget` numbers at most; never above the short side of a matrix; 0 if no rank fits."""
    per_rank = sum(d + k for d, k in shapes)
    return min(budget // per_rank, *(min(shape) for shape in shapes))


# Challenges


def drawn_at_random() -> tuple[int, list[tuple[int, int]]]:
    """Up to five matrices, and numbers for some ranks."""
    shapes = [tuple(torch.randint(20, 60, (2,)).tolist()) for _ in range(torch.randint(2, 6, ()).item())]
    return torch.randint(500, 4000, ()).item(), shapes


# Mistakes


@mistake("You counted whole matrices, d · k. LoRA stores B (d, r) and A (r, k): r · (d + k) numbers.")
def whole_matrices(budget, shapes):
    return min(budget // sum(d * k for d, k in shapes), *(min(shape) for shape in shapes))


@mistake("You let each matrix have all of the budget. They share it: add up what one rank costs in all.")
def budget_for_each(budget, shapes):
    return min(*(budget // (d + k) for d, k in shapes), *(min(shape) for shape in shapes))


@mistake("You counted B or A alone. One rank of a matrix is a column of d numbers and a row of k.")
def B_alone(budget, shapes):
    return min(budget // sum(d for d, k in shapes), *(min(shape) for shape in shapes))


@mistake("You counted B or A alone. One rank of a matrix is a row of k numbers and a column of d.")
def A_alone(budget, shapes):
    return min(budget // sum(k for d, k in shapes), *(min(shape) for shape in shapes))


@mistake("You rounded to the nearest, or up. A rank that fits in part does not fit.")
def rounded(budget, shapes):
    return min(round(budget / sum(d + k for d, k in shapes)), *(min(shape) for shape in shapes))


@mistake("You rounded up. A rank that fits in part does not fit: `//` rounds down.")
def rounded_up(budget, shapes):
    return min(-(-budget // sum(d + k for d, k in shapes)), *(min(shape) for shape in shapes))


@mistake(
    "Your rank can be larger than the short side of a matrix. No matrix has more directions than that, so "
    "the numbers above it buy nothing."
)
def above_the_short_side(budget, shapes):
    return budget // sum(d + k for d, k in shapes)


@mistake("You stopped at the long side. A matrix of 4 x 300 has at most 4 directions, not 300.")
def up_to_the_long_side(budget, shapes):
    return min(budget // sum(d + k for d, k in shapes), *(max(shape) for shape in shapes))


@mistake("You forced at least rank 1. If not even that fits, the answer is 0: tune the head alone.")
def at_least_one(budget, shapes):
    return max(1, rank_for(budget, shapes))


@mistake("Return a whole number: `//` divides and rounds down.")
def a_fraction(budget, shapes):
    return min(budget / sum(d + k for d, k in shapes), *(min(shape) for shape in shapes))


EXERCISE = Exercise(
    reference=rank_for,
    challenges=(
        Challenge("one matrix of 30 x 20", lambda: (190, [(30, 20)])),
        Challenge("two matrices", lambda: (330, [(30, 20), (10, 40)])),
        Challenge("exactly two ranks", lambda: (200, [(30, 20), (10, 40)])),
        Challenge("not even one rank", lambda: (60, [(30, 20), (10, 40)])),
        Challenge("numbers in plenty, and a matrix of 4 x 300", lambda: (40_000, [(50, 60), (4, 300)])),
        Challenge("matrices drawn at random", drawn_at_random),
    ),
    mistakes=(
        whole_matrices,
        budget_for_each,
        B_alone,
        A_alone,
        rounded,
        rounded_up,
        above_the_short_side,
        up_to_the_long_side,
        at_least_one,
        a_fraction,
    ),
    hints=(
        "What does one more rank cost, over all matrices? And from which rank on does it buy nothing?",
        "budget / sum(d + k), rounded down, but at most the smallest of all d and k.",
        "min(budget // sum(d + k for d, k in shapes), *(min(shape) for shape in shapes))",
    ),
)
