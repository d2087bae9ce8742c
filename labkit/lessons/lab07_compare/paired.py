"""`paired`: two methods on the same patients, their mean difference and its interval."""

from __future__ import annotations

import math

import numpy as np

from labkit.lessons.exercise import Challenge, Exercise, mistake


def paired(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Mean of a - b over patients (n,), and half the width of its 95 % interval by the normal quantile."""
    d = a - b
    return float(d.mean()), float(1.96 * d.std(ddof=1) / math.sqrt(len(d)))


# Challenges: the smallest first


def four_patients() -> tuple:
    return np.array([0.80, 0.60, 0.90, 0.70]), np.array([0.78, 0.56, 0.88, 0.62])


def nine_random_patients() -> tuple:
    b = np.random.rand(9)  # patients differ much, the methods little
    a = b + 0.1 * np.random.rand(9)
    return a, b


# Mistakes


@mistake(
    "You treated the two methods as if each had patients of its own. Then the interval is as wide as "
    "patients are different, and a difference that every single patient shows is hidden."
)
def as_if_unpaired(a, b):
    d = a - b
    return float(d.mean()), float(1.96 * math.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b)))


@mistake(
    "You left out the square root of n. That is how far single patients lie from the mean; "
    "the mean itself is known better, the more patients there are."
)
def without_root_of_n(a, b):
    d = a - b
    return float(d.mean()), float(1.96 * d.std(ddof=1))


@mistake(
    "You divided by n instead of its square root. The interval would shrink far too fast with more patients."
)
def divided_by_n(a, b):
    d = a - b
    return float(d.mean()), float(1.96 * d.std(ddof=1) / len(d))


@mistake(
    "You divided the squares by n where n - 1 is asked for (NumPy's default, ddof=0). "
    "The mean was fitted to the same patients, so the spread around it comes out too small."
)
def spread_with_ddof_0(a, b):
    d = a - b
    return float(d.mean()), float(1.96 * d.std() / math.sqrt(len(d)))


@mistake("You returned the standard error. An interval of 95 % reaches 1.96 of them to either side.")
def standard_error(a, b):
    d = a - b
    return float(d.mean()), float(d.std(ddof=1) / math.sqrt(len(d)))


@mistake("You returned the whole width of the interval; half of it goes to either side.")
def whole_width(a, b):
    d = a - b
    return float(d.mean()), float(2 * 1.96 * d.std(ddof=1) / math.sqrt(len(d)))


@mistake(
    "You used Student's quantile instead of 1.96. With few patients that is the better interval, "
    "and the text says more; here 1.96 is asked for, so that all numbers are made alike."
)
def students_quantile(a, b):
    from scipy.stats import t  # here, because its import takes long

    d = a - b
    return float(d.mean()), float(t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / math.sqrt(len(d)))


@mistake("You subtracted a from b. Then a method that is better has a negative difference.")
def a_subtracted_from_b(a, b):
    d = b - a
    return float(d.mean()), float(1.96 * d.std(ddof=1) / math.sqrt(len(d)))


EXERCISE = Exercise(
    reference=paired,
    challenges=(
        Challenge("four patients, two methods", four_patients),
        Challenge("nine random patients", nine_random_patients),
    ),
    mistakes=(
        as_if_unpaired,
        without_root_of_n,
        divided_by_n,
        spread_with_ddof_0,
        standard_error,
        whole_width,
        students_quantile,
        a_subtracted_from_b,
    ),
    hints=(
        "What varies here: the patients, or the difference between the two methods on one patient?",
        "d = a - b for each patient; then mean(d), and 1.96 sd(d) / sqrt(n).",
        "`d.std(ddof=1)` divides by n - 1. Return two plain numbers: `float(...)`.",
    ),
)
