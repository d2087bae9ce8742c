"""`best_within`: the method to take within a budget, chosen on validation patients, told on the test."""

from __future__ import annotations

import numpy as np

from labkit.lessons.compare import kind
from labkit.lessons.exercise import Challenge, Exercise, Unfit, mistake


def best_within(rows: list[dict], budget: int) -> tuple[str, float]:
    """Of the rows that learn at most so many numbers, the one with the best mean validation Dice; its mean
    Dice on the test."""
    affordable = [row for row in rows if row["tuned"] <= budget]
    best = max(affordable, key=lambda row: np.mean(row["validation"]))
    return best["name"], float(np.mean(best["test"]))


def as_pair(output: object, *inputs: object) -> tuple:
    """What is compared. Unfit: not a name and a number."""
    if not isinstance(output, (tuple, list)) or len(output) != 2:
        raise Unfit(f"return two things, `return name, dice`, not {kind(output)}")
    return tuple(output)


# Challenges: a row has a mean on validation and on the test, of some seeds each


def rows_of(*cells: tuple) -> list[dict]:
    return [dict(zip(("name", "tuned", "validation", "test"), cell, strict=True)) for cell in cells]


def two_methods() -> tuple:
    return rows_of(("a", 100, [0.70, 0.72], [0.60, 0.62]), ("b", 100, [0.68, 0.69], [0.66, 0.67])), 200


def one_is_too_large() -> tuple:
    rows = rows_of(
        ("small", 100, [0.5, 0.5], [0.4, 0.5]),
        ("just so", 500, [0.6, 0.7], [0.5, 0.6]),
        ("large", 900, [0.9, 0.8], [0.8, 0.9]),
    )
    return rows, 500


def one_lucky_seed() -> tuple:
    rows = rows_of(
        ("steady", 300, [0.70, 0.71, 0.72], [0.68, 0.69, 0.70]),
        ("lucky", 200, [0.80, 0.40, 0.50], [0.55, 0.45, 0.5]),
    )
    return rows, 1000


def drawn() -> tuple:
    """Six methods, of which the second smallest and the larger ones may be best."""
    sizes = np.sort(np.random.permutation(np.arange(1, 40))[:6] * 100)
    rows = [
        {
            "name": f"method {number}",
            "tuned": int(size),
            "validation": np.random.uniform(0.4, 0.9, 3).round(3).tolist(),
            "test": np.random.uniform(0.4, 0.9, 3).round(3).tolist(),
        }
        for number, size in zip(np.random.permutation(6), sizes, strict=True)
    ]
    return rows, int(sizes[3])


# Mistakes


def chosen(rows: list[dict], budget: int, by, tells: str = "test") -> tuple[str, float]:
    best = max((row for row in rows if row["tuned"] <= budget), key=by)
    return best["name"], float(np.mean(best[tells]))


@mistake(
    "You chose on the test patients. The best of several numbers is too good by luck, and nobody is left to "
    "tell by how much: choose on validation patients, look at the test once."
)
def on_the_test(rows, budget):
    return chosen(rows, budget, lambda row: np.mean(row["test"]))


@mistake(
    "You report the validation Dice by which the row was chosen. It is the best of several, so too good by "
    "luck; the test's is not."
)
def validation_told(rows, budget):
    return chosen(rows, budget, lambda row: np.mean(row["validation"]), "validation")


@mistake("You chose by the best single seed. A method that is lucky once and fails twice is not better.")
def by_the_best_seed(rows, budget):
    return chosen(rows, budget, lambda row: max(row["validation"]))


@mistake("You left the budget out of account: the row learns more numbers than there is room for.")
def without_the_budget(rows, budget):
    return chosen(rows, max(row["tuned"] for row in rows), lambda row: np.mean(row["validation"]))


@mistake("What learns exactly as many numbers as the budget allows still fits: `<=`.")
def strictly_below(rows, budget):
    return chosen(rows, budget - 1, lambda row: np.mean(row["validation"]))


@mistake("You took the largest that fits. More numbers need not be better: compare on validation patients.")
def the_largest(rows, budget):
    return chosen(rows, budget, lambda row: row["tuned"])


@mistake("You report the best seed on the test. Report the mean: another training has another seed.")
def best_test_seed(rows, budget):
    affordable = [row for row in rows if row["tuned"] <= budget]
    best = max(affordable, key=lambda row: np.mean(row["validation"]))
    return best["name"], float(max(best["test"]))


EXERCISE = Exercise(
    reference=best_within,
    challenges=(
        Challenge("two methods of equal size", two_methods),
        Challenge("three methods, one too large", one_is_too_large),
        Challenge("two methods, one with a lucky seed", one_lucky_seed),
        Challenge("six methods drawn at random", drawn),
    ),
    result=as_pair,
    mistakes=(
        on_the_test,
        validation_told,
        by_the_best_seed,
        without_the_budget,
        strictly_below,
        the_largest,
        best_test_seed,
    ),
    hints=(
        "Three steps: who fits, who is best of them, what do you tell of it? Which patients are for which?",
        "Of the rows with tuned <= budget the one with the largest mean of validation; tell the mean of its "
        "test.",
        "`best = max(affordable, key=lambda row: np.mean(row['validation']))`, then "
        "`best['name'], float(np.mean(best['test']))`.",
    ),
)
