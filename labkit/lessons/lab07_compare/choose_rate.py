"""`choose_rate`: a learning rate chosen without the test patients, and the score that may be reported."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from labkit.lessons.exercise import Challenge, Exercise, mistake

Run = tuple[float, int, float, float]  # rate, seed, score on validation patients, score on test patients


def choose_rate(runs: Sequence[Run]) -> tuple[float, float, bool]:
    """The rate best on validation with seed 0, the mean test score of its seeds, and whether no rate tried
    lies beyond it.
    """
    tried = {rate: validation for rate, seed, validation, _ in runs if seed == 0}
    best = max(tried, key=tried.get)
    score = np.mean([test for rate, _, _, test in runs if rate == best])
    return best, float(score), best in (min(tried), max(tried))


# Challenges: the smallest first. Nothing is in order, and other seeds lie among the first


def best_in_the_middle() -> tuple:
    return (
        [
            (1e-3, 0, 0.80, 0.70),
            (1e-2, 0, 0.60, 0.66),
            (1e-4, 0, 0.70, 0.75),
            (1e-3, 1, 0.60, 0.65),
            (1e-3, 2, 0.64, 0.69),
        ],
    )


def best_at_the_edge() -> tuple:
    return (
        [
            (3e-4, 0, 0.74, 0.76),
            (3e-5, 1, 0.81, 0.83),
            (1e-4, 0, 0.79, 0.80),
            (3e-5, 0, 0.82, 0.78),
            (1e-3, 0, 0.50, 0.49),
        ],
    )


def best_at_the_upper_edge() -> tuple:
    return ([(1e-3, 0, 0.61, 0.58), (3e-3, 0, 0.64, 0.60), (1e-2, 0, 0.68, 0.64), (1e-2, 1, 0.60, 0.66)],)


def a_rival_with_seeds() -> tuple:
    """Of a rate that lost, other seeds are there too, and one of them is better than all."""
    return (
        [
            (3e-3, 1, 0.90, 0.88),
            (3e-3, 0, 0.61, 0.63),
            (1e-3, 0, 0.70, 0.64),
            (1e-2, 0, 0.50, 0.55),
            (1e-3, 1, 0.66, 0.70),
        ],
    )


def runs_drawn() -> tuple:
    rates = random.sample((1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2), random.randint(3, 6))
    runs = [(rate, seed, random.random(), random.random()) for rate in rates for seed in range(3)]
    return (random.sample(runs, len(runs)),)


# Mistakes


def _reported(runs, best):
    """What is returned once a rate is chosen."""
    rates = [run[0] for run in runs]
    return best, float(np.mean([run[3] for run in runs if run[0] == best])), best in (min(rates), max(rates))


@mistake(
    "You chose by the test patients. Then the best of several lucky numbers is reported, and the test is no "
    "test any more: choose by validation, look at the test once."
)
def chosen_on_test(runs):
    return _reported(runs, max((run for run in runs if run[1] == 0), key=lambda run: run[3])[0])


@mistake(
    "You chose the best of all runs. A rate that was trained with more seeds had more tries; compare rates "
    "by seed 0, which each of them has."
)
def best_run_of_any_seed(runs):
    return _reported(runs, max(runs, key=lambda run: run[2])[0])


@mistake(
    "You compared means over seeds. Rates that were tried with one seed alone would be compared with means "
    "of several; compare rates by seed 0, which each of them has."
)
def means_over_seeds(runs):
    means = {rate: np.mean([run[2] for run in runs if run[0] == rate]) for rate, *_ in runs}
    return _reported(runs, max(means, key=means.get))


@mistake("You reported the score of seed 0 alone. The chosen rate's other seeds belong into the mean.")
def first_seed_alone(runs):
    best, _, edge = choose_rate(runs)
    return best, next(run[3] for run in runs if run[:2] == (best, 0)), edge


@mistake("You reported the best seed. The next training will be an average one: report the mean.")
def best_seed(runs):
    best, _, edge = choose_rate(runs)
    return best, max(run[3] for run in runs if run[0] == best), edge


@mistake(
    "You reported the score on validation patients. The rate was chosen to be good on just these, so it "
    "flatters: report the test."
)
def validation_reported(runs):
    best, _, edge = choose_rate(runs)
    return best, float(np.mean([run[2] for run in runs if run[0] == best])), edge


@mistake(
    "You asked for the highest rate alone. A better one may lie below the lowest, too: both ends are an edge."
)
def upper_edge_alone(runs):
    best, score, _ = choose_rate(runs)
    return best, score, best == max(run[0] for run in runs)


@mistake(
    "You asked for the lowest rate alone. A better one may lie above the highest: both ends are an edge."
)
def lower_edge_alone(runs):
    best, score, _ = choose_rate(runs)
    return best, score, best == min(run[0] for run in runs)


@mistake(
    "You turned the last answer round: True means that the best rate is the lowest or the highest tried."
)
def inside_for_edge(runs):
    best, score, edge = choose_rate(runs)
    return best, score, not edge


@mistake("You took the place in the list for the place on the scale: the runs come in no order.")
def edge_of_the_list(runs):
    best, score, _ = choose_rate(runs)
    tried = [run[0] for run in runs if run[1] == 0]
    return best, score, best in (tried[0], tried[-1])


@mistake("You returned the smallest validation score's rate: here more is better.")
def worst_rate(runs):
    return _reported(runs, min((run for run in runs if run[1] == 0), key=lambda run: run[2])[0])


EXERCISE = Exercise(
    reference=choose_rate,
    challenges=(
        Challenge("three rates, the best of them with three seeds", best_in_the_middle),
        Challenge("four rates, the lowest is best", best_at_the_edge),
        Challenge("three rates, the highest is best", best_at_the_upper_edge),
        Challenge("a rate that lost has another, lucky seed", a_rival_with_seeds),
        Challenge("runs drawn at random", runs_drawn),
    ),
    mistakes=(
        chosen_on_test,
        best_run_of_any_seed,
        means_over_seeds,
        first_seed_alone,
        best_seed,
        validation_reported,
        upper_edge_alone,
        lower_edge_alone,
        inside_for_edge,
        edge_of_the_list,
        worst_rate,
    ),
    hints=(
        "Two steps that must not be mixed: choose by one column, report another. And which runs may be "
        "compared with which?",
        "Of the runs with seed 0 take the rate with the highest validation score; then the mean test score "
        "of all runs at that rate; then ask whether it is the lowest or highest rate.",
        "`tried = {rate: validation for rate, seed, validation, _ in runs if seed == 0}` and "
        "`best = max(tried, key=tried.get)`.",
    ),
)
