"""`prompts_that_fit`: how many deep prompts each of many tasks may have in a memory of a given size."""

from __future__ import annotations

import torch

from labkit.lessons.exercise import Challenge, Exercise, mistake


def prompts_that_fit(megabytes: float, tasks: int, head: int, d: int, L: int) -> int:
    """Deep prompts a block for each of `tasks`, beside a head of so many numbers each, in so many MB (10^6
    bytes); width d, L blocks, 4 bytes a number."""
    return max(0, (numbers(megabytes) // tasks - head) // (L * d))


def numbers(megabytes: float, each: int = 4) -> int:
    """How many numbers of so many bytes each lie in so many megabytes."""
    return int(megabytes * 1e6 / each)


# Challenges


def random_sizes() -> tuple:
    tasks, head, d, L, n = (torch.randint(high // 2, high, ()).item() for high in (60, 20_000, 400, 13, 30))
    return 4 * tasks * (head + (n + 0.5) * d * L) / 1e6, tasks, head, d, L


# Mistakes


@mistake("You left out the head: every task has one of its own, and it lies in the same memory.")
def without_the_head(megabytes, tasks, head, d, L):
    return numbers(megabytes) // tasks // (L * d)


@mistake("You stored the head once. It is trained with the prompts of its task: one for each.")
def one_head_for_all(megabytes, tasks, head, d, L):
    return max(0, (numbers(megabytes) - head) // tasks // (L * d))


@mistake("You counted shallow prompts. Deep ones are new in every block: n prompts are L n d numbers.")
def shallow(megabytes, tasks, head, d, L):
    return max(0, (numbers(megabytes) // tasks - head) // d)


@mistake("You counted keys and values, 2d numbers. Of a deep prompt its d numbers are stored.")
def as_a_free_prefix(megabytes, tasks, head, d, L):
    return max(0, (numbers(megabytes) // tasks - head) // (2 * L * d))


@mistake("You forgot that there are several tasks: each needs prompts and a head.")
def one_task(megabytes, tasks, head, d, L):
    return max(0, (numbers(megabytes) - head) // (L * d))


@mistake("You took a number for a byte. A float32 number has 32 bits, so 4 bytes.")
def one_byte_a_number(megabytes, tasks, head, d, L):
    return max(0, (numbers(megabytes, each=1) // tasks - head) // (L * d))


@mistake("Your number is negative where not even the heads fit; then no prompt does: 0.")
def fewer_than_none(megabytes, tasks, head, d, L):
    return (numbers(megabytes) // tasks - head) // (L * d)


@mistake("You rounded up. A prompt that fits in part does not fit.")
def rounded_up(megabytes, tasks, head, d, L):
    return max(0, -((head - numbers(megabytes) // tasks) // (L * d)))


@mistake("Return whole prompts, an int: `//` divides and rounds down, `int(...)` makes a whole number.")
def a_fraction(megabytes, tasks, head, d, L):
    return max(0.0, (megabytes * 1e6 / 4 / tasks - head) / (L * d))


EXERCISE = Exercise(
    reference=prompts_that_fit,
    challenges=(
        Challenge("8 MB, 4 tasks, heads of 100,000 numbers", lambda: (8, 4, 100_000, 300, 12)),
        Challenge("exactly full", lambda: (4.8, 10, 20_000, 250, 4)),
        Challenge("one number too few for a hundred", lambda: (4, 1, 900_001, 250, 4)),
        Challenge("the heads alone are too large", lambda: (4, 20, 60_000, 384, 4)),
        Challenge("random sizes", random_sizes),
    ),
    mistakes=(
        without_the_head,
        one_head_for_all,
        shallow,
        as_a_free_prefix,
        one_task,
        one_byte_a_number,
        fewer_than_none,
        rounded_up,
        a_fraction,
    ),
    hints=(
        "How many numbers may one task have? What of it is taken by its head?",
        "(megabytes 10^6 / 4 / tasks - head) / (L d), rounded down, and not below 0.",
        "max(0, int(megabytes * 1e6 / 4 / tasks - head) // (L * d))",
    ),
)
