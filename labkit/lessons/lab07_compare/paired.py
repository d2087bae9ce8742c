"""`paired`: two methods on the same patients, their mean difference and its interval."""

from __future__ import annotations

import math

import numpy as np

from labkit.lessons.exercise import Challenge, Exercise, mistake


def paired(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Mean of a - b over n patients, and half the width of its 95 % interval by Student's t with n - 1."""
    d = a - b
    return float(d.mean()), float(quantile(len(d) - 1) * d.std(ddof=1) / math.sqrt(len(d)))


def quantile(freedom: int) -> float:
    """97.5 % of Student's t with so many degrees of freedom."""
    from scipy.stats import t  # here, because its import takes long

    return t.ppf(0.975, freedom)


# Challenges: the smallest first; in each, some patient is worse under a


def four_patients() -> tuple:
    return np.array([0.80, 0.60, 0.90, 0.70]), np.array([0.78, 0.61, 0.88, 0.62])


def b_ahead() -> tuple:
    return np.array([0.50, 0.70, 0.65]), np.array([0.58, 0.69, 0.71])


def nine_random_patients() -> tuple:
    b = np.random.rand(9)  # patients differ much, the methods little, and in both directions
    return b + 0.1 * np.random.randn(9), b


# Mistakes


@mistake(
    "You took 1.96, the quantile for many patients. The spread is estimated from the same few, and may have "
    "come out too small by luck: Student's t with n - 1 degrees of freedom makes up for it."
)
def normal_quantile(a, b):
    d = a - b
    return float(d.mean()), float(1.96 * d.std(ddof=1) / math.sqrt(len(d)))


@mistake(
    "You took n degrees of freedom. One is used up by the mean that the spread is measured from: n - 1 are "
    "left."
)
def freedom_of_n(a, b):
    d = a - b
    return float(d.mean()), float(quantile(len(d)) * d.std(ddof=1) / math.sqrt(len(d)))


@mistake("You took 95 % of Student's t. An interval leaves out 2.5 % at either end: ask for 0.975.")
def one_sided(a, b):
    from scipy.stats import t

    d = a - b
    return float(d.mean()), float(t.ppf(0.95, len(d) - 1) * d.std(ddof=1) / math.sqrt(len(d)))


@mistake(
    "You treated the two methods as if each had patients of its own. Then the interval is as wide as "
    "patients are different, and a difference that every single patient shows is hidden."
)
def as_if_unpaired(a, b):
    n = len(a)
    return float((a - b).mean()), float(quantile(n - 1) * math.sqrt(a.var(ddof=1) / n + b.var(ddof=1) / n))


@mistake(
    "You pooled the variances of the two methods, as for two groups of different people (2n - 2 degrees of "
    "freedom). These are the same people: take the spread of the differences."
)
def pooled(a, b):
    n = len(a)
    variance = (a.var(ddof=1) + b.var(ddof=1)) / 2
    return float((a - b).mean()), float(quantile(2 * n - 2) * math.sqrt(variance * 2 / n))


@mistake(
    "You took the size of each difference without its sign. Then a patient who does worse counts as one who "
    "does better, and no method could ever be behind."
)
def size_of_each(a, b):
    d = np.abs(a - b)
    return float(d.mean()), float(quantile(len(d) - 1) * d.std(ddof=1) / math.sqrt(len(d)))


@mistake("You took the size of the mean without its sign. Which of the two is ahead would be lost.")
def size_of_the_mean(a, b):
    d = a - b
    return abs(float(d.mean())), float(quantile(len(d) - 1) * d.std(ddof=1) / math.sqrt(len(d)))


@mistake(
    "You left out the square root of n. That is how far single patients lie from the mean; "
    "the mean itself is known better, the more patients there are."
)
def without_root_of_n(a, b):
    d = a - b
    return float(d.mean()), float(quantile(len(d) - 1) * d.std(ddof=1))


@mistake(
    "You divided by n instead of its square root. The interval would shrink far too fast with more patients."
)
def divided_by_n(a, b):
    d = a - b
    return float(d.mean()), float(quantile(len(d) - 1) * d.std(ddof=1) / len(d))


@mistake(
    "You divided the squares by n where n - 1 is asked for (NumPy's default, ddof=0). "
    "The mean was fitted to the same patients, so the spread around it comes out too small."
)
def spread_with_ddof_0(a, b):
    d = a - b
    return float(d.mean()), float(quantile(len(d) - 1) * d.std() / math.sqrt(len(d)))


@mistake("You returned the standard error. An interval of 95 % reaches t of them to either side.")
def standard_error(a, b):
    d = a - b
    return float(d.mean()), float(d.std(ddof=1) / math.sqrt(len(d)))


@mistake("You returned the whole width of the interval; half of it goes to either side.")
def whole_width(a, b):
    d = a - b
    return float(d.mean()), float(2 * quantile(len(d) - 1) * d.std(ddof=1) / math.sqrt(len(d)))


@mistake("You returned the ends of the interval. Asked for are its middle and half its width.")
def ends(a, b):
    mean, half = paired(a, b)
    return mean - half, mean + half


@mistake("You subtracted a from b. Then a method that is better has a negative difference.")
def a_subtracted_from_b(a, b):
    return paired(b, a)


EXERCISE = Exercise(
    reference=paired,
    challenges=(
        Challenge("four patients, two methods", four_patients),
        Challenge("three patients, b is ahead", b_ahead),
        Challenge("nine random patients", nine_random_patients),
    ),
    mistakes=(
        normal_quantile,
        freedom_of_n,
        one_sided,
        as_if_unpaired,
        pooled,
        size_of_each,
        size_of_the_mean,
        without_root_of_n,
        divided_by_n,
        spread_with_ddof_0,
        standard_error,
        whole_width,
        ends,
        a_subtracted_from_b,
    ),
    hints=(
        "What varies here: the patients, or the difference between the two methods on one patient?",
        "d = a - b for each patient; then mean(d), and t sd(d) / sqrt(n) with t of n - 1 degrees of freedom.",
        "`d.std(ddof=1)` divides by n - 1; `stats.t.ppf(0.975, len(d) - 1)` is t. Return two plain numbers: "
        "`float(...)`.",
    ),
)
