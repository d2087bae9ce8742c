"""`pareto`: the methods that no other beats in both cost and score."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence

import numpy as np

from labkit.lessons.exercise import Challenge, Exercise, Unfit, mistake


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """The points (cost, score) that no other beats: none is as cheap, as good, and better in one of them."""
    front = []
    for i, p in enumerate(points):
        if not any(q[0] <= p[0] and q[1] >= p[1] and q != p for q in points):
            front.append(i)
    return front


def in_order(output: Iterable[int], points: Sequence) -> list[int]:
    """The indices sorted: a front drawn from cheap to dear is the same front.

    Unfit: what was returned is no list of whole numbers."""
    if isinstance(output, np.ndarray) and output.dtype == bool:
        raise Unfit("return the indices themselves, not True or False for each point; np.flatnonzero(...)")
    if not isinstance(output, (list, tuple, set, np.ndarray)):
        raise Unfit(f"return a list of indices, not a {type(output).__name__}")
    try:
        return sorted(map(operator.index, output))
    except TypeError as error:
        raise Unfit("return the indices of the points, whole numbers: 0 for the first") from error


# Challenges: the smallest first


def five_methods() -> tuple:
    return ([(1, 0.5), (2, 0.4), (3, 0.9), (3, 0.7), (5, 0.9)],)


def twins() -> tuple:
    return ([(1, 0.5), (1, 0.5)],)


def dear_ones_first() -> tuple:
    return ([(9, 0.9), (1, 0.5), (4, 0.8), (4, 0.6)],)


def twenty_random_points() -> tuple:
    return ([(float(cost), float(score)) for cost, score in np.random.randint(0, 8, (20, 2))],)


# Mistakes


@mistake(
    "You kept the best score only. A method that costs a tenth and scores a little less is not beaten by it: "
    "who has little memory would choose it."
)
def best_score_alone(points):
    values = [(score, -cost) for cost, score in points]
    return [values.index(max(values))]


@mistake(
    "You asked the other point to be strictly cheaper and strictly better. "
    "A method of the same cost that scores more beats one, too."
)
def strictly_better_in_both(points):
    front = []
    for i, p in enumerate(points):
        if not any(q[0] < p[0] and q[1] > p[1] for q in points):
            front.append(i)
    return front


@mistake(
    "You asked the other point to be strictly cheaper. One that costs the same and scores more beats it, too."
)
def strictly_cheaper(points):
    front = []
    for i, p in enumerate(points):
        if not any(q[0] < p[0] and q[1] >= p[1] for q in points):
            front.append(i)
    return front


@mistake(
    "You asked the other point to score strictly more. One that scores the same and costs less beats it, too."
)
def strictly_more(points):
    front = []
    for i, p in enumerate(points):
        if not any(q[0] <= p[0] and q[1] > p[1] for q in points):
            front.append(i)
    return front


@mistake("You let the worse score win: high Dice is good, high cost is not.")
def worse_score_wins(points):
    front = []
    for i, p in enumerate(points):
        if not any(q[0] <= p[0] and q[1] <= p[1] and q != p for q in points):
            front.append(i)
    return front


@mistake("You let the dearer method win: low cost is good.")
def dearer_method_wins(points):
    front = []
    for i, p in enumerate(points):
        if not any(q[0] >= p[0] and q[1] >= p[1] and q != p for q in points):
            front.append(i)
    return front


@mistake(
    "Two equal points beat each other in yours, and both are gone. "
    "To beat means to be better in at least one of the two."
)
def twins_beat_each_other(points):
    front = []
    for i, p in enumerate(points):
        others = [q for j, q in enumerate(points) if j != i]
        if not any(q[0] <= p[0] and q[1] >= p[1] for q in others):
            front.append(i)
    return front


@mistake("You kept the first of equal points and dropped its twins. Nobody beats them: all of them stay.")
def first_of_twins(points):
    front = pareto(points)
    return [i for i in front if points.index(points[i]) == i]


@mistake("You returned the points. Asked for are their indices: 0 for the first.")
def points_themselves(points):
    return [points[i] for i in pareto(points)]


@mistake(
    "You let a point go as soon as another is better in one of the two. Nearly everything is beaten in "
    "something; to be dominated, it must be beaten in one and not be ahead in the other."
)
def beaten_in_one_of_two(points):
    front = []
    for i, p in enumerate(points):
        if not any(q[0] < p[0] or q[1] > p[1] for q in points):
            front.append(i)
    return front


@mistake(
    "You divided score by cost. That ranks everything in one line again, "
    "and a network that costs next to nothing wins whatever it scores."
)
def score_divided_by_cost(points):
    values = [score / max(cost, 1e-9) for cost, score in points]
    return [values.index(max(values))]


EXERCISE = Exercise(
    reference=pareto,
    result=in_order,
    challenges=(
        Challenge("five methods, two of equal cost and two of equal score", five_methods),
        Challenge("four methods, the dearest first", dear_ones_first),
        Challenge("twins", twins),
        Challenge("twenty random points with many ties", twenty_random_points),
    ),
    mistakes=(
        best_score_alone,
        strictly_better_in_both,
        strictly_cheaper,
        strictly_more,
        worse_score_wins,
        dearer_method_wins,
        twins_beat_each_other,
        first_of_twins,
        points_themselves,
        beaten_in_one_of_two,
        score_divided_by_cost,
    ),
    hints=(
        "When would you never choose a method? When another one is at least as good in everything.",
        "q beats p if q costs no more, scores no less, and is strictly better in one of the two.",
        "Two conditions with <= and >=, and a third that q and p are not equal: `q != p`.",
    ),
)
