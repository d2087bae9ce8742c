"""`reach`: how many slices one slice sees through several layers."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from labkit.lessons.exercise import Challenge, Exercise, mistake


def reach(kernels: Sequence[int]) -> int:
    """How many slices one slice sees through layers with these kernels, one after the other."""
    return 1 + sum(k - 1 for k in kernels)


# Challenges


def kernels_drawn() -> tuple:
    return ([2 * random.randint(0, 12) + 1 for _ in range(random.randint(6, 12))],)


# Mistakes


@mistake(
    "You added the kernels up. Each kernel counts its own slice too, which was there already: a layer adds "
    "k - 1."
)
def sum_of_kernels(kernels):
    return sum(kernels)


@mistake(
    "You multiplied the kernels. The reach would multiply if layers skipped slices; they add a few on both "
    "sides."
)
def product_of_kernels(kernels):
    return math.prod(kernels)


@mistake("You took the widest kernel alone. What the second layer sees has seen its own neighbours.")
def widest_kernel(kernels):
    return max(kernels)


@mistake("You counted one side only. A kernel reaches up and down.")
def one_side_only(kernels):
    return 1 + sum((k - 1) // 2 for k in kernels)


@mistake("You forgot the slice itself.")
def without_the_slice_itself(kernels):
    return sum(k - 1 for k in kernels)


EXERCISE = Exercise(
    reference=reach,
    challenges=(
        Challenge("one layer of kernel 3", lambda: ([3],)),
        Challenge("kernels 3 and 5", lambda: ([3, 5],)),
        Challenge("four layers of kernel 3", lambda: ([3] * 4,)),
        Challenge("five layers", lambda: ([5, 1, 7, 3, 3],)),
        Challenge("kernels drawn at random", kernels_drawn),
    ),
    mistakes=(sum_of_kernels, product_of_kernels, widest_kernel, one_side_only, without_the_slice_itself),
    hints=(
        "How far does one layer see, to each side?",
        "To each side (k - 1) / 2 more for every layer; both sides, and the slice itself.",
        "1 + the sum of (k - 1) over all kernels.",
    ),
)
