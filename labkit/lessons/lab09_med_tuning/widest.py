"""`widest`: the widest bottleneck that a budget of numbers allows."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import torch

from labkit.lessons.compare import kind
from labkit.lessons.exercise import Challenge, Exercise, Unfit, mistake


def size(d: int, m: int, T: int) -> int:
    """Numbers of an adapter as released, with the interaction of stages."""
    return 2 * d * m + m**2 + 52 * m + d + 2 * T + interaction(m)


def interaction(m: int) -> int:
    """Numbers of align and fuse, both 1 x 1 x 1."""
    return 3 * m**2 + 2 * m


def widest(budget: int, d: int, T: int, blocks: int) -> int:
    """The largest m of which `blocks` adapters together have at most `budget` numbers; 0 if none fits."""
    m = 0
    while blocks * size(d, m + 1, T) <= budget:
        m += 1
    return m


def whole(output: Any, *_: int) -> int:
    """The answer, if it is a whole number: with 54.0 no layer can be built."""
    if not isinstance(output, Integral):
        raise Unfit(f"return a whole number, an int, not {kind(output)}")
    return int(output)


# Challenges


def room_for_some() -> tuple:
    return 1000, 10, 4, 1


def not_even_one() -> tuple:
    return size(10, 1, 4) - 1, 10, 4, 1


def to_the_last_number() -> tuple:
    return 4 * size(384, 17, 16), 384, 16, 4


def one_number_less() -> tuple:
    return 4 * size(384, 17, 16) - 1, 384, 16, 4


def a_vit_of_twelve_blocks() -> tuple:
    """A budget of its own at each look, so that nobody can write down the answer."""
    return 1_500_000 + int(torch.randint(1_000_000, ())), 768, 128, 12


# Mistakes


def most(budget: int, fits) -> int:
    """The largest m up to which `fits` holds."""
    m = 0
    while fits(m + 1):
        m += 1
    return m


@mistake("You left out align and fuse: 3m^2 + 2m more, in each of the blocks.")
def without_interaction(budget, d, T, blocks):
    return most(budget, lambda m: blocks * (size(d, m, T) - interaction(m)) <= budget)


@mistake("Your budget goes to one adapter. There is one after every block.")
def one_block(budget, d, T, blocks):
    return most(budget, lambda m: size(d, m, T) <= budget)


@mistake("An adapter that uses the budget up to the last number still fits: `<=`, not `<`.")
def strictly_below(budget, d, T, blocks):
    return most(budget, lambda m: blocks * size(d, m, T) < budget)


@mistake("You returned the first m that is too large; the one before it still fits.")
def one_too_many(budget, d, T, blocks):
    return widest(budget, d, T, blocks) + 1


@mistake("You return 1 at least. Where not even m = 1 fits the answer is 0.")
def one_at_least(budget, d, T, blocks):
    return max(1, widest(budget, d, T, blocks))


@mistake("You returned how many numbers that is; the question is for m.")
def the_numbers(budget, d, T, blocks):
    return blocks * size(d, widest(budget, d, T, blocks), T)


@mistake("Return a whole number, an int: a bottleneck has no fractions.")
def a_fraction(budget, d, T, blocks):
    return float(widest(budget, d, T, blocks))


@mistake("You left out 2T, the numbers of the filter.")
def without_the_filter(budget, d, T, blocks):
    return most(budget, lambda m: blocks * size(d, m, 0) <= budget)


EXERCISE = Exercise(
    reference=widest,
    challenges=(
        Challenge("one adapter, d = 10, T = 4, a budget of 1,000", room_for_some),
        Challenge("the same with one number less than m = 1 needs", not_even_one),
        Challenge("a budget that m = 17 uses to the last number", to_the_last_number),
        Challenge("one number less", one_number_less),
        Challenge("twelve blocks of a ViT-B/16, some budget", a_vit_of_twelve_blocks),
    ),
    result=whole,
    mistakes=(
        without_interaction,
        one_block,
        strictly_below,
        one_too_many,
        one_at_least,
        the_numbers,
        a_fraction,
        without_the_filter,
    ),
    hints=(
        "Write the count of one adapter as a function of m. How do you find the largest m without solving "
        "anything?",
        "blocks * (2dm + m^2 + 52m + d + 2T + 3m^2 + 2m) <= budget; begin at m = 0, go up while m + 1 fits.",
        "while blocks * size(m + 1) <= budget: m += 1",
    ),
)
