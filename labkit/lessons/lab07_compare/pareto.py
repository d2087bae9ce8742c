"""`pareto`: the methods that no other beats in both cost and score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from labkit.lessons.exercise import Challenge, Exercise, mistake


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """The points (cost, score) that no other beats: none is as cheap, as good, and better in one of them."""
    front = []
    for i, p in enumerate(points):
        if not any(q[0] <= p[0] and q[1] >= p[1] and q != p for q in points):
            front.append(i)
    return front


# Challenges: the smallest first


def five_methods() -> tuple:
    return ([(1, 0.5), (2, 0.4), (3, 0.9), (3, 0.7), (5, 0.9)],)


def twins() -> tuple:
    return ([(1, 0.5), (1, 0.5)],)


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
    challenges=(
        Challenge("five methods, two of equal cost and two of equal score", five_methods),
        Challenge("twins", twins),
        Challenge("twenty random points with many ties", twenty_random_points),
    ),
    mistakes=(
        best_score_alone,
        strictly_better_in_both,
        worse_score_wins,
        dearer_method_wins,
        twins_beat_each_other,
        beaten_in_one_of_two,
        score_divided_by_cost,
    ),
    hints=(
        "When would you never choose a method? When another one is at least as good in everything.",
        "q beats p if q costs no more, scores no less, and is strictly better in one of the two.",
        "Two conditions with <= and >=, and a third that q and p are not equal: `q != p`.",
    ),
)
