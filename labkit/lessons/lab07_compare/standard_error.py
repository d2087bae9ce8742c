"""`standard_error`: how far the mean of a table, seeds x patients, would move with others of both."""

from __future__ import annotations

import math

import numpy as np

from labkit.lessons.exercise import Challenge, Exercise, mistake


def standard_error(y: np.ndarray) -> float:
    """Of the mean of y (seeds, patients), if other seeds and other patients had been drawn.

    A two-way analysis of variance without replication; the seeds' part is kept at 0 or more.
    """
    seeds, patients = y.shape
    of_seeds = y.mean(1).var(ddof=1) / seeds
    of_patients = y.mean(0).var(ddof=1) / patients
    return math.sqrt(of_patients + max(0.0, of_seeds - rest(y) / (seeds * patients)))


def rest(y: np.ndarray) -> float:
    """Variance of what neither the seed nor the patient explains."""
    seeds, patients = y.shape
    left = y - y.mean(1, keepdims=True) - y.mean(0) + y.mean()
    return (left**2).sum() / ((seeds - 1) * (patients - 1))


# Challenges: the smallest first


def two_seeds_three_patients() -> tuple:
    return (np.array([[1.0, 2.0, 6.0], [4.0, 6.0, 11.0]]),)


def seeds_that_agree() -> tuple:
    """Their means are closer than what is left makes likely: the seeds' part would be negative."""
    return (np.array([[1.0, 5.0, 3.0, 7.0], [3.0, 4.0, 4.0, 5.0], [2.0, 6.0, 2.0, 6.0]]),)


def three_random_seeds() -> tuple:
    seeds, patients = np.random.randn(3, 1), np.random.randn(20)
    return (2 + 3 * seeds + patients + 0.5 * np.random.randn(3, 20),)


# Mistakes


@mistake(
    "You averaged the seeds away. What is left holds for other patients under these very trainings; that "
    "another training gives another network is lost."
)
def patients_alone(y):
    return float(y.mean(0).std(ddof=1) / math.sqrt(y.shape[1]))


@mistake("You looked at seeds alone. Other patients would move the mean too.")
def seeds_alone(y):
    return float(y.mean(1).std(ddof=1) / math.sqrt(y.shape[0]))


@mistake(
    "You took every number of the table for a case of its own. The same patient under three seeds is one "
    "patient, and the same training on twenty patients one training."
)
def all_independent(y):
    return float(y.std(ddof=1) / math.sqrt(y.size))


@mistake(
    "You counted the rest twice. It moves the seeds' means and the patients' means, and stands in both "
    "variances: subtract it once."
)
def rest_counted_twice(y):
    return math.sqrt(y.mean(1).var(ddof=1) / y.shape[0] + y.mean(0).var(ddof=1) / y.shape[1])


@mistake(
    "You let the seeds' part become negative. Where the seeds differ less than the rest makes likely, none "
    "of the spread is theirs: take 0."
)
def seeds_below_zero(y):
    variance = y.mean(1).var(ddof=1) / y.shape[0] + y.mean(0).var(ddof=1) / y.shape[1] - rest(y) / y.size
    return math.sqrt(max(variance, 0.0))


@mistake("You returned the variance. The standard error is its square root, in the units of y.")
def variance(y):
    return standard_error(y) ** 2


@mistake(
    "You divided the squares by their number where one less is asked for (NumPy's default, ddof=0). The mean "
    "was fitted to the same numbers, so the spread around it comes out too small."
)
def spread_with_ddof_0(y):
    seeds = y.mean(1).var() / y.shape[0] - rest(y) / y.size
    return math.sqrt(y.mean(0).var() / y.shape[1] + max(0.0, seeds))


@mistake(
    "You divided the squares of the rest by all numbers of the table. Its rows and its columns each add up "
    "to 0, so (seeds - 1) x (patients - 1) of them are free."
)
def rest_over_all(y):
    left = y - y.mean(1, keepdims=True) - y.mean(0) + y.mean()
    seeds = y.mean(1).var(ddof=1) / y.shape[0] - (left**2).mean() / y.size
    return math.sqrt(y.mean(0).var(ddof=1) / y.shape[1] + max(0.0, seeds))


EXERCISE = Exercise(
    reference=standard_error,
    challenges=(
        Challenge("two seeds, three patients", two_seeds_three_patients),
        Challenge("three seeds that agree in the mean, four patients", seeds_that_agree),
        Challenge("three random seeds, twenty patients", three_random_seeds),
    ),
    mistakes=(
        patients_alone,
        seeds_alone,
        all_independent,
        rest_counted_twice,
        seeds_below_zero,
        variance,
        spread_with_ddof_0,
        rest_over_all,
    ),
    hints=(
        "Three numbers: how far the seeds' means differ, how far the patients' means differ, and what "
        "neither explains.",
        "var(patients' means) / P + max(0, var(seeds' means) / S - var(rest) / (S P)), and the root of it.",
        "`rest = y - y.mean(1, keepdims=True) - y.mean(0) + y.mean()`; its squares are summed and divided by "
        "(S - 1) (P - 1). The variances of means are `y.mean(0).var(ddof=1)` and `y.mean(1).var(ddof=1)`.",
    ),
)
