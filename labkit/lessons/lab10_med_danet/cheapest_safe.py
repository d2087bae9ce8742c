"""`cheapest_safe`: the cheapest way by which no patient loses more than is allowed."""

from __future__ import annotations

import numpy as np

from labkit.lessons.exercise import Challenge, Exercise, mistake


def cheapest_safe(costs: np.ndarray, dices: np.ndarray, base: np.ndarray, allowed: float) -> int | None:
    """The way of least cost, costs (K,), whose Dice (K, P) is for no patient more than `allowed` below base
    (P,); NaN where a patient does not have the region. None: there is no such way."""
    losses = base - dices
    safe = [k for k in range(len(costs)) if np.nanmax(losses[k]) <= allowed]
    return min(safe, key=lambda k: costs[k], default=None)


# Challenges


def two_ways() -> tuple:
    """The mean of the cheaper one is even better, and one patient pays for it."""
    return np.array([0.5, 0.2]), np.array([[0.8, 0.8], [1.0, 0.7]]), np.array([0.8, 0.8]), 0.05


def three_ways() -> tuple:
    """The last is safe, and not the cheapest."""
    dices = np.array([[0.9, 0.8, 0.7], [0.6, 0.8, 0.7], [0.88, 0.8, 0.9]])
    return np.array([1.0, 0.2, 0.3]), dices, np.array([0.9, 0.8, 0.7]), 0.03


def a_patient_without_the_region() -> tuple:
    nan = float("nan")
    dices = np.array([[0.9, nan, 0.7], [0.89, nan, 0.72], [0.5, nan, 0.9]])
    return np.array([1.0, 0.4, 0.1]), dices, np.array([0.9, nan, 0.7]), 0.03


def none_is_safe() -> tuple:
    return np.array([0.5, 0.2]), np.array([[0.6, 0.8], [0.9, 0.1]]), np.array([0.8, 0.8]), 0.05


def drawn() -> tuple:
    base = 0.5 + 0.4 * np.random.random(6)
    losses = 0.2 * np.random.random((5, 6)) * np.linspace(0.1, 1, 5)[:, None]
    order = np.random.permutation(5)
    return np.linspace(1, 0.1, 5)[order], (base - losses)[order], base, 0.1


# Mistakes


@mistake("You judged by the mean patient. One who loses much is hidden by others who gain: judge the worst.")
def by_the_mean(costs, dices, base, allowed):
    losses = np.nanmean(base - dices, axis=1)
    safe = [k for k in range(len(costs)) if losses[k] <= allowed]
    return min(safe, key=lambda k: costs[k], default=None)


@mistake(
    "A patient without the region has NaN, and NaN compares as False with everything, so that he decides. "
    "Leave him out: np.nanmax."
)
def without_the_rule_for_nan(costs, dices, base, allowed):
    losses = (base - dices).max(axis=1)
    safe = [k for k in range(len(costs)) if losses[k] <= allowed]
    return min(safe, key=lambda k: costs[k], default=None)


@mistake("You gave the way with the best Dice. Asked for is the cheapest of those that lose little enough.")
def the_best(costs, dices, base, allowed):
    safe = [k for k in range(len(costs)) if np.nanmax(base - dices[k]) <= allowed]
    return max(safe, key=lambda k: np.nanmean(dices[k]), default=None)


@mistake("You took the cheapest way of all, whatever it loses.")
def the_cheapest_of_all(costs, dices, base, allowed):
    return int(np.argmin(costs))


@mistake("You gave the first way that is safe. There may be a cheaper one behind it.")
def the_first_safe(costs, dices, base, allowed):
    return next((k for k in range(len(costs)) if np.nanmax(base - dices[k]) <= allowed), None)


@mistake("You counted a gain as a loss. Only a Dice below the base is one: base - dices, without abs.")
def gains_count_as_losses(costs, dices, base, allowed):
    losses = np.nanmax(np.abs(base - dices), axis=1)
    safe = [k for k in range(len(costs)) if losses[k] <= allowed]
    return min(safe, key=lambda k: costs[k], default=None)


@mistake("You took the difference the wrong way round: a loss is what the base is above a way.")
def gains_for_losses(costs, dices, base, allowed):
    safe = [k for k in range(len(costs)) if np.nanmax(dices[k] - base) <= allowed]
    return min(safe, key=lambda k: costs[k], default=None)


@mistake("You return its cost. Asked for is its number, counted from 0.")
def the_cost(costs, dices, base, allowed):
    k = cheapest_safe(costs, dices, base, allowed)
    return None if k is None else costs[k]


@mistake("Where no way is safe you gave one all the same. Return None: then nothing may be saved.")
def one_all_the_same(costs, dices, base, allowed):
    k = cheapest_safe(costs, dices, base, allowed)
    return 0 if k is None else k


EXERCISE = Exercise(
    reference=cheapest_safe,
    challenges=(
        Challenge("two ways, two patients", two_ways),
        Challenge("three ways, three patients", three_ways),
        Challenge("one of the patients does not have the region", a_patient_without_the_region),
        Challenge("two ways, none of them safe", none_is_safe),
        Challenge("five ways, six patients, drawn at random", drawn),
    ),
    mistakes=(
        by_the_mean,
        without_the_rule_for_nan,
        the_best,
        the_cheapest_of_all,
        the_first_safe,
        gains_count_as_losses,
        gains_for_losses,
        the_cost,
        one_all_the_same,
    ),
    hints=(
        "Two questions, one after the other: which ways are safe for every patient? Which is the cheapest?",
        "Way k is safe if the largest of base - dices[k], NaN left out, is at most `allowed`.",
        "safe = [k for k in range(len(costs)) if np.nanmax(base - dices[k]) <= allowed]; then the one of "
        "least costs[k], or None.",
    ),
)
