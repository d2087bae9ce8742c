"""`vtab_average`: one number for many tasks, averaged over tasks and over their groups."""

from __future__ import annotations

import random
from collections.abc import Sequence

from labkit.lessons.exercise import Challenge, Exercise, mistake


def vtab_average(means: Sequence[float], sizes: Sequence[int]) -> tuple[float, float]:
    """The mean over all tasks and the mean over the groups, from each group's mean and number of tasks."""
    over_tasks = sum(mean * size for mean, size in zip(means, sizes, strict=True)) / sum(sizes)
    over_groups = sum(means) / len(means)
    return over_tasks, over_groups


# Challenges


def groups_drawn() -> tuple:
    count = random.randint(3, 6)
    return [random.uniform(20, 95) for _ in range(count)], random.sample(range(2, 12), count)


# Mistakes


@mistake("You returned the two means in the other order: first the one over tasks.")
def over_groups_first(means, sizes):
    over_tasks = sum(mean * size for mean, size in zip(means, sizes, strict=True)) / sum(sizes)
    over_groups = sum(means) / len(means)
    return over_groups, over_tasks


@mistake(
    "You returned the mean over groups twice. "
    "A group of eight tasks and one of four are not the same number of tasks."
)
def over_groups_twice(means, sizes):
    over_groups = sum(means) / len(means)
    return over_groups, over_groups


@mistake(
    "You weighted by the number of tasks and then divided by the number of groups. "
    "The result of a weighted mean is divided by the sum of the weights."
)
def divided_by_the_groups(means, sizes):
    over_tasks = sum(mean * size for mean, size in zip(means, sizes, strict=True)) / len(means)
    over_groups = sum(means) / len(means)
    return over_tasks, over_groups


@mistake(
    "You divided each group by its size although its mean was already taken: large groups would count least."
)
def large_groups_count_least(means, sizes):
    weights = [1 / size for size in sizes]
    over_tasks = sum(mean * weight for mean, weight in zip(means, weights, strict=True)) / sum(weights)
    over_groups = sum(means) / len(means)
    return over_tasks, over_groups


@mistake("You averaged over tasks for both numbers. The second one gives every group the same weight.")
def over_tasks_twice(means, sizes):
    over_tasks = sum(mean * size for mean, size in zip(means, sizes, strict=True)) / sum(sizes)
    return over_tasks, over_tasks


EXERCISE = Exercise(
    reference=vtab_average,
    challenges=(
        Challenge("three groups of 1, 1 and 2 tasks", lambda: ([80.0, 60.0, 50.0], [1, 1, 2])),
        Challenge("groups of 7, 4 and 8 tasks", lambda: ([71.5, 84.25, 33.0], [7, 4, 8])),
        Challenge("groups drawn at random", groups_drawn),
    ),
    mistakes=(
        over_groups_first,
        over_groups_twice,
        divided_by_the_groups,
        large_groups_count_least,
        over_tasks_twice,
    ),
    hints=(
        "A mean over tasks needs the sum over all tasks. What is the sum over one group, if you know its "
        "mean and its size?",
        "Over tasks: sum of mean times size, over the sum of the sizes. Over groups: sum of means, over "
        "their number.",
        "`sum(m * s for m, s in zip(means, sizes)) / sum(sizes)`, and `sum(means) / len(means)`.",
    ),
)
