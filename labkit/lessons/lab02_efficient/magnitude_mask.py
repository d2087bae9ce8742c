"""`magnitude_mask`: which weights stay when the smallest go."""

from __future__ import annotations

import math

import torch

from labkit.efficient import prune
from labkit.lessons.exercise import Challenge, Exercise, mistake


def magnitude_mask(w: torch.Tensor, share: float) -> torch.Tensor:
    """True where a weight stays, in the shape of w; of all weights a share goes, the smallest in |w|."""
    return prune.magnitude_mask(w, share)


def mask_or_count(output: torch.Tensor, w: torch.Tensor, share: float) -> torch.Tensor | int:
    """What is compared: the mask, in the shape of w; of equal weights any may go, so only how many do."""
    if len(w.abs().unique()) > 1:
        return output
    return int((~output).sum())


# Challenges


def six_weights() -> tuple:
    return torch.tensor([-3, 1, 2.2, -0.5, 2.5, 0.1]), 2 / 3


def equal_weights() -> tuple:
    return torch.ones(2, 5), 0.3


def random_matrix() -> tuple:
    return torch.randn(4, 7), 0.5


def rounding_up() -> tuple:
    """2.8 of seven weights, so three."""
    return torch.randn(7), 0.4


def rounding_down() -> tuple:
    """4.2 of seven weights, so four."""
    return torch.randn(7), 0.6


# Properties


def count_differs(answer, output, w, share) -> str | None:
    removed, wanted = int((~output).sum()), round(share * w.numel())
    return None if removed == wanted else f"{removed} of {w.numel()} weights go, and {wanted} should"


# Mistakes


@mistake("You compared w itself. A large negative weight matters as much as a large positive one: sort |w|.")
def compared_w_itself(w, share):
    n = round(share * w.numel())
    threshold = w.flatten().sort().values[n]
    return w >= threshold


@mistake("Your mask is the other way round: True is for what stays, the weights of large magnitude.")
def the_other_way_round(w, share):
    order = w.abs().flatten().argsort()
    goes = torch.zeros(w.numel(), dtype=torch.bool)
    goes[order[: round(share * w.numel())]] = True
    return goes.view(w.shape)


@mistake(
    "You removed a share of the range: all below share times the largest |w|. The share is of the number of "
    "weights."
)
def share_of_the_range(w, share):
    return w.abs() >= share * w.abs().max()


@mistake(
    "You compared with a threshold, and where weights are equal none or all of them go. Count instead: sort, "
    "and take the first n."
)
def compared_with_a_threshold(w, share):
    n = round(share * w.numel())
    threshold = w.abs().flatten().sort().values[n]
    return w.abs() >= threshold


@mistake("You took the share for what stays. It is what goes.")
def share_that_stays(w, share):
    order = w.abs().flatten().argsort()
    keep = torch.ones(w.numel(), dtype=torch.bool)
    keep[order[: round((1 - share) * w.numel())]] = False
    return keep.view(w.shape)


@mistake("You returned the pruned weights. What is asked for is the mask, True and False in the shape of w.")
def the_pruned_weights(w, share):
    order = w.abs().flatten().argsort()
    keep = torch.ones(w.numel(), dtype=torch.bool)
    keep[order[: round(share * w.numel())]] = False
    return w * keep.view(w.shape)


@mistake(
    "You rounded the number of weights down. 0.4 of seven weights are 2.8, nearest to 3: `round`, not `int`."
)
def rounded_down(w, share):
    return prune.magnitude_mask(w, int(share * w.numel() + 1e-6) / w.numel())


@mistake("You rounded the number of weights up. 0.6 of seven weights are 4.2, nearest to 4: `round`.")
def rounded_up(w, share):
    return prune.magnitude_mask(w, math.ceil(share * w.numel() - 1e-6) / w.numel())


@mistake(
    "You kept what is *above* the threshold, so the weight at it goes too: one too many, and all of "
    "them where weights are equal. Count instead: sort, and take the first n."
)
def strictly_above_a_threshold(w, share):
    n = round(share * w.numel())
    threshold = w.abs().flatten().sort().values[n]
    return w.abs() > threshold


@mistake(
    "You kept what is above a threshold or a quantile. Where weights are equal all of them go: count "
    "instead, sort, and take the first n."
)
def above_the_largest_that_goes(w, share):
    n = round(share * w.numel())
    threshold = w.abs().flatten().sort().values[n - 1]
    return w.abs() > threshold


EXERCISE = Exercise(
    reference=magnitude_mask,
    challenges=(
        Challenge("six weights, two thirds go", six_weights),
        Challenge("a matrix of equal weights, three of ten go", equal_weights),
        Challenge("a random matrix, half goes", random_matrix),
        Challenge("seven weights, 40 % go: 2.8, so three", rounding_up),
        Challenge("seven weights, 60 % go: 4.2, so four", rounding_down),
    ),
    properties={"removes as many as asked for": count_differs},
    result=mask_or_count,
    mistakes=(
        compared_w_itself,
        the_other_way_round,
        share_of_the_range,
        compared_with_a_threshold,
        share_that_stays,
        the_pruned_weights,
        rounded_down,
        rounded_up,
        strictly_above_a_threshold,
        above_the_largest_that_goes,
    ),
    hints=(
        "Put the weights in order of magnitude. How many of them go, and which?",
        "n = round(share numel); the n places that come first in the order of |w| become False.",
        "order = w.abs().flatten().argsort(); keep = torch.ones(w.numel(), dtype=torch.bool); "
        "keep[order[:n]] = False; return keep.view(w.shape).",
    ),
)
