"""`patients_needed`: how many test patients a difference of a given size takes."""

from __future__ import annotations

import math

import numpy as np

from labkit.lessons.exercise import Challenge, Exercise, mistake
from labkit.lessons.lab07_compare.paired import quantile


def patients_needed(sd: float, apart: float) -> int:
    """The fewest patients with which half the paired 95 % interval is smaller than `apart`, for differences
    between patients of standard deviation `sd` > 0 in the same unit as `apart` > 0."""
    n = 2
    while quantile(n - 1) * sd / math.sqrt(n) >= apart:
        n += 1
    return n


# Challenges: the smallest first


def random_study() -> tuple:
    return float(np.random.uniform(1, 6)), float(np.random.uniform(1, 3))


# Mistakes


@mistake(
    "You solved it with 1.96. With so few patients t is larger, and it depends on n: try n = 2, 3, 4, ... "
    "until the interval is small enough."
)
def normal_quantile(sd, apart):
    return max(2, math.floor((1.96 * sd / apart) ** 2) + 1)


@mistake("You took n degrees of freedom; the mean uses up one, so n - 1 are left.")
def freedom_of_n(sd, apart):
    n = 2
    while quantile(n) * sd / math.sqrt(n) >= apart:
        n += 1
    return n


@mistake("You compared the whole width. What must not reach 0 is one end, half a width away from the mean.")
def whole_width(sd, apart):
    return patients_needed(2 * sd, apart)


@mistake("You left out the quantile: one standard error is an interval of two thirds, not of 95 %.")
def one_standard_error(sd, apart):
    return max(2, math.floor((sd / apart) ** 2) + 1)


@mistake("You divided by n instead of its square root: the interval would shrink far too fast.")
def divided_by_n(sd, apart):
    n = 2
    while quantile(n - 1) * sd / n >= apart:
        n += 1
    return n


@mistake("You stopped one too early: this n is the last that does not suffice.")
def one_too_few(sd, apart):
    return patients_needed(sd, apart) - 1


@mistake("You went one too far: the n before it suffices.")
def one_too_many(sd, apart):
    return patients_needed(sd, apart) + 1


EXERCISE = Exercise(
    reference=patients_needed,
    challenges=(
        Challenge("a difference as large as the spread", lambda: (2.0, 2.0)),
        Challenge("a difference far larger than the spread: two patients tell", lambda: (0.1, 2.0)),
        Challenge("a difference smaller than the spread", lambda: (3.0, 1.0)),
        Challenge("a random study", random_study),
    ),
    mistakes=(
        normal_quantile,
        freedom_of_n,
        whole_width,
        one_standard_error,
        divided_by_n,
        one_too_few,
        one_too_many,
    ),
    hints=(
        "The formula of section 2 read the other way: the half width is wanted, n is asked for, and t "
        "depends on n too.",
        "The smallest n from 2 on with t(n - 1) sd / sqrt(n) < apart.",
        "`for n in range(2, 1001):`, and in it return n if "
        "`stats.t.ppf(0.975, n - 1) * sd / math.sqrt(n) < apart`.",
    ),
)
