"""`blocks_to_share`: how many lower blocks must stay without adapters for many tasks to be affordable."""

from __future__ import annotations

import math

import torch

from labkit.lessons.exercise import Challenge, Exercise, mistake


def blocks_to_share(blocks: int, tasks: int, passes: int) -> int:
    """The fewest lower blocks without adapters with which all tasks take at most `passes` block passes a
    slice: the shared blocks once, the others once for each task. `passes` is `blocks` or more."""
    return next(n for n in range(blocks + 1) if n + tasks * (blocks - n) <= passes)


# Challenges


def random_numbers() -> tuple[int, int, int]:
    """A network, tasks, and passes between one network's and those of all tasks."""
    blocks, tasks = (int(torch.randint(low, 25, ())) for low in (4, 2))
    return blocks, tasks, int(torch.randint(blocks, tasks * blocks, ()))


# Mistakes


def quotient(blocks: int, tasks: int, passes: int) -> float:
    """n of n + tasks (blocks - n) = passes."""
    return (tasks * blocks - passes) / (tasks - 1)


@mistake(
    "With one task there is nothing to share, and tasks - 1 is 0: you divided by it. One task takes `blocks` "
    "passes, with adapters in all of them."
)
def divided_by_zero(blocks, tasks, passes):
    return max(0, math.ceil(quotient(blocks, tasks, passes)))


@mistake("You rounded down. One block fewer is shared then than must be, and the passes do not suffice.")
def rounded_down(blocks, tasks, passes):
    return 0 if tasks == 1 else max(0, int(quotient(blocks, tasks, passes)))


@mistake("You rounded to the nearest. Where that is down, the passes do not suffice.")
def rounded_to_the_nearest(blocks, tasks, passes):
    return 0 if tasks == 1 else max(0, round(quotient(blocks, tasks, passes)))


@mistake("Your number is below 0 where there are passes to spare; then no block need be shared: 0.")
def fewer_than_none(blocks, tasks, passes):
    return 0 if tasks == 1 else math.ceil(quotient(blocks, tasks, passes))


@mistake("You forgot that the shared blocks must be passed too, once for all tasks.")
def shared_for_nothing(blocks, tasks, passes):
    return next(n for n in range(blocks + 1) if tasks * (blocks - n) <= passes)


@mistake("You counted the shared blocks for every task. They are passed once: that is the point of sharing.")
def shared_by_nobody(blocks, tasks, passes):
    return 0 if tasks * blocks <= passes else blocks


@mistake("You returned how many blocks have adapters. Asked for are those that have none.")
def blocks_with_adapters(blocks, tasks, passes):
    return blocks - blocks_to_share(blocks, tasks, passes)


@mistake("You asked for fewer passes than `passes`. Exactly as many are allowed: <=.")
def exactly_as_many_refused(blocks, tasks, passes):
    return next((n for n in range(blocks + 1) if n + tasks * (blocks - n) < passes), blocks)


@mistake("You shared as many blocks as possible: then no task has adapters. Share as few as must be.")
def as_many_as_possible(blocks, tasks, passes):
    return max(n for n in range(blocks + 1) if n + tasks * (blocks - n) <= passes)


@mistake("Return a whole number of blocks, an int: `math.ceil` rounds up.")
def a_fraction(blocks, tasks, passes):
    return 0.0 if tasks == 1 else max(0.0, quotient(blocks, tasks, passes))


EXERCISE = Exercise(
    reference=blocks_to_share,
    challenges=(
        Challenge("four blocks, three tasks: 12 passes without sharing", lambda: (4, 3, 9)),
        Challenge("exactly as many passes as are allowed", lambda: (6, 4, 15)),
        Challenge("passes to spare", lambda: (4, 5, 30)),
        Challenge("a single task", lambda: (4, 1, 4)),
        Challenge("passes for one network alone", lambda: (12, 40, 12)),
        Challenge("a larger network, where nearly half a block is missing", lambda: (12, 20, 100)),
        Challenge("random numbers", random_numbers),
    ),
    mistakes=(
        divided_by_zero,
        rounded_down,
        rounded_to_the_nearest,
        fewer_than_none,
        shared_for_nothing,
        shared_by_nobody,
        blocks_with_adapters,
        exactly_as_many_refused,
        as_many_as_possible,
        a_fraction,
    ),
    hints=(
        "Say n lower blocks have no adapters. How often is each of these n passed, and how often each of the "
        "others?",
        "n + tasks x (blocks - n) passes. Which is the smallest n from 0 to blocks for which that is at most "
        "`passes`?",
        "Go through n in range(blocks + 1) and return the first with n + tasks * (blocks - n) <= passes.",
    ),
)
