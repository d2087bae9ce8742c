"""`tasks_that_fit`: how many tasks a disk holds, when the backbone is stored once."""

from __future__ import annotations

import torch

from labkit.lessons.exercise import Challenge, Exercise, mistake


def tasks_that_fit(megabytes: float, shared: int, per_task: int) -> int:
    """Whole tasks on a disk of so many MB (10^6 bytes): `shared` numbers once, `per_task` numbers for each
    task, 4 bytes a number."""
    return max(0, int(megabytes * 1e6 / 4 - shared) // per_task)


# Challenges


def random_sizes() -> tuple[float, int, int]:
    """Sizes as in the lab, with room for some tasks."""
    megabytes, shared, per_task = (torch.randint(high // 2, high, ()).item() for high in (200, 10**7, 10**6))
    return megabytes + 0.1, shared, per_task


# Mistakes


@mistake("You left out what is shared: the backbone must lie on the disk too, once.")
def shared_left_out(megabytes, shared, per_task):
    return int(megabytes * 1e6 / 4) // per_task


@mistake("You stored the backbone again for every task. It is the same for all: once is enough.")
def shared_with_every_task(megabytes, shared, per_task):
    return int(megabytes * 1e6 / 4) // (shared + per_task)


@mistake("You took a number for a byte. A float32 number has 32 bits, so 4 bytes.")
def one_byte_a_number(megabytes, shared, per_task):
    return max(0, int(megabytes * 1e6 - shared) // per_task)


@mistake("A megabyte is 10^6 bytes; 2^20 are a mebibyte, MiB.")
def mebibytes(megabytes, shared, per_task):
    return max(0, int(megabytes * 2**20 / 4 - shared) // per_task)


@mistake("You rounded up or to the nearest. A task that fits in part does not fit.")
def rounded(megabytes, shared, per_task):
    return max(0, round((megabytes * 1e6 / 4 - shared) / per_task))


@mistake("Your number is negative where not even the backbone fits; then no task does: 0.")
def fewer_than_none(megabytes, shared, per_task):
    return int(megabytes * 1e6 / 4 - shared) // per_task


@mistake("Return whole tasks, an int: `//` divides and rounds down, `int(...)` makes a whole number.")
def a_fraction(megabytes, shared, per_task):
    return max(0, (megabytes * 1e6 / 4 - shared) / per_task)


EXERCISE = Exercise(
    reference=tasks_that_fit,
    challenges=(
        Challenge("8 MB, that is 2 million numbers", lambda: (8, 500_000, 400_000)),
        Challenge("everything is stored for every task", lambda: (100, 0, 5_900_000)),
        Challenge("exactly full", lambda: (20, 1_000_000, 1_000_000)),
        Challenge("the backbone alone is too large", lambda: (4, 2_500_000, 300_000)),
        Challenge("half a megabyte more than ten", lambda: (10.5, 125_000, 500_001)),
        Challenge("random sizes", random_sizes),
    ),
    mistakes=(
        shared_left_out,
        shared_with_every_task,
        one_byte_a_number,
        mebibytes,
        rounded,
        fewer_than_none,
        a_fraction,
    ),
    hints=(
        "How many numbers fit on the disk? How many of these are left once the backbone lies there?",
        "(MB x 10^6 / 4 - shared) / per task, rounded down, and never below 0.",
        "max(0, int(megabytes * 1e6 / 4 - shared) // per_task)",
    ),
)
