"""`dice`: how well two masks agree, from 0 to 1; two empty masks agree."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from labkit import metrics
from labkit.lessons.compare import Difference, difference
from labkit.lessons.exercise import Challenge, Exercise, mistake

# Challenges


def mask(*values: int) -> np.ndarray:
    """A single row of zeros and ones as a mask, (1, 1, W)."""
    return np.array([[values]], dtype=bool)


def two_slices() -> tuple:
    """A large tumour half found in one slice, a small one found in the next: (2, 1, 6) each."""
    truth = np.array([[[1, 1, 1, 1, 1, 1]], [[1, 0, 0, 0, 0, 0]]], dtype=bool)
    prediction = np.array([[[1, 1, 1, 0, 0, 0]], [[1, 0, 0, 0, 0, 0]]], dtype=bool)
    return prediction, truth


def random_volumes() -> tuple:
    """A sparser prediction and a denser truth, (3, 4, 5) each."""
    prediction = np.random.rand(3, 4, 5) > 0.7
    truth = np.random.rand(3, 4, 5) > 0.6
    return prediction, truth


# Properties


def symmetric(
    answer: Callable, output: float, prediction: np.ndarray, truth: np.ndarray
) -> Difference | None:
    """None, or how the score changes when the two masks (S, H, W) change places."""
    return difference(answer(truth, prediction), output)


def false_alarm_is_nothing(
    answer: Callable, output: float, prediction: np.ndarray, truth: np.ndarray
) -> str | None:
    """None, or the score of masks (S, H, W) of which one is empty: 0 to seven places."""
    if prediction.any() == truth.any() or abs(output) < 1e-7:
        return None
    return f"one mask is empty and the other is not, so nothing overlaps; the score is {output:.3g}"


# Mistakes: 0/0 is written as the nan that NumPy makes of it


@mistake("You divided by the union: that is the Jaccard index, not Dice.")
def jaccard(prediction, truth):
    union = np.count_nonzero(prediction | truth)
    if union == 0:
        return 1.0
    return float(np.count_nonzero(prediction & truth) / union)


@mistake("You divided by the union (the Jaccard index, not Dice), and two empty masks give 0/0.")
def jaccard_with_nan(prediction, truth):
    union = np.count_nonzero(prediction | truth)
    if union == 0:
        return float("nan")
    return float(np.count_nonzero(prediction & truth) / union)


@mistake("The factor 2 is missing: a perfect prediction would score only 0.5.")
def without_the_factor_2(prediction, truth):
    sizes = np.count_nonzero(prediction) + np.count_nonzero(truth)
    if sizes == 0:
        return 1.0
    return float(np.count_nonzero(prediction & truth) / sizes)


@mistake("The factor 2 is missing (a perfect prediction would score only 0.5), and two empty masks give 0/0.")
def without_the_factor_2_with_nan(prediction, truth):
    sizes = np.count_nonzero(prediction) + np.count_nonzero(truth)
    if sizes == 0:
        return float("nan")
    return float(np.count_nonzero(prediction & truth) / sizes)


@mistake(
    "The sum of two boolean arrays is their union, not a count: True + True is True. Count each mask by "
    "itself, then add the counts."
)
def counted_the_sum_of_the_masks(prediction, truth):
    sizes = np.count_nonzero(prediction + truth)
    if sizes == 0:
        return 1.0
    return float(2 * np.count_nonzero(prediction & truth) / sizes)


@mistake(
    "The sum of two boolean arrays is their union, not a count: True + True is True. Count each mask by "
    "itself, then add. And two empty masks give 0/0."
)
def counted_the_sum_of_the_masks_with_nan(prediction, truth):
    sizes = np.count_nonzero(prediction + truth)
    if sizes == 0:
        return float("nan")
    return float(2 * np.count_nonzero(prediction & truth) / sizes)


@mistake(
    "Two empty masks give 0/0, which is nan. Nothing was there and nothing was found: that is right, so the "
    "score is 1."
)
def nan_for_two_empty_masks(prediction, truth):
    sizes = np.count_nonzero(prediction) + np.count_nonzero(truth)
    if sizes == 0:
        return float("nan")
    return float(2 * np.count_nonzero(prediction & truth) / sizes)


@mistake(
    "Two empty masks give 0 (a small number in the denominator alone does that too). Nothing was there and "
    "nothing was found: that is right, so the score is 1."
)
def zero_for_two_empty_masks(prediction, truth):
    sizes = np.count_nonzero(prediction) + np.count_nonzero(truth)
    if sizes == 0:
        return 0.0
    return float(2 * np.count_nonzero(prediction & truth) / sizes)


@mistake(
    "You score 1 whenever the truth is empty. A voxel claimed where there is no tumour is a false alarm: the "
    "score is 0. Only when both are empty is it 1."
)
def one_for_an_empty_truth(prediction, truth):
    if not truth.any():
        return 1.0
    sizes = np.count_nonzero(prediction) + np.count_nonzero(truth)
    return float(2 * np.count_nonzero(prediction & truth) / sizes)


@mistake(
    "You added 1 to numerator and denominator. That smoothing belongs in a loss, where it keeps the gradient "
    "finite; in a score it turns a false alarm into part success."
)
def smoothed(prediction, truth):
    sizes = np.count_nonzero(prediction) + np.count_nonzero(truth)
    return (2 * np.count_nonzero(prediction & truth) + 1) / (sizes + 1)


@mistake(
    "You counted the voxels on which both agree, background included: that is the accuracy. A brain is "
    "mostly background, so finding nothing would score above 0.9."
)
def accuracy(prediction, truth):
    return float((prediction == truth).mean())


@mistake(
    "You averaged the Dice of the tumour with that of the background, which is easy and large, so it hides a "
    "poor tumour score."
)
def averaged_with_background(prediction, truth):
    tumour = metrics.dice(prediction, truth)
    background = metrics.dice(~prediction, ~truth)
    return (tumour + background) / 2


@mistake(
    "You averaged over slices. A patient is one volume: count over all slices first, divide once. Else a "
    "slice with one voxel weighs as much as one with thousands."
)
def averaged_over_slices(prediction, truth):
    scores = [metrics.dice(prediction[s], truth[s]) for s in range(len(truth))]
    return sum(scores) / len(scores)


@mistake("You divided by the size of the prediction: that is the precision. It does not see what was missed.")
def precision(prediction, truth):
    size = np.count_nonzero(prediction)
    if size == 0:
        return 1.0
    return float(np.count_nonzero(prediction & truth) / size)


@mistake(
    "You divided by the size of the truth: that is the recall (sensitivity). It does not see false alarms."
)
def recall(prediction, truth):
    size = np.count_nonzero(truth)
    if size == 0:
        return 1.0
    return float(np.count_nonzero(prediction & truth) / size)


@mistake("Your score is in per cent. Dice is a share, 0 to 1; multiply only where you print it.")
def per_cent(prediction, truth):
    return 100 * metrics.dice(prediction, truth)


@mistake(
    "You return 1 - Dice. That is a loss, which training makes small; Dice itself is a score, and 1 "
    "is the best."
)
def as_a_loss(prediction, truth):
    return 1 - metrics.dice(prediction, truth)


@mistake(
    "`and` asks one question of a whole array; `&` asks it of every voxel. (NumPy's advice, a.any() or "
    "a.all(), is not what you want here.)"
)
def and_of_arrays(prediction, truth):
    sizes = np.count_nonzero(prediction) + np.count_nonzero(truth)
    return 2 * np.count_nonzero(prediction and truth) / sizes if sizes else 1.0


EPSILON = (
    "You added a small number above and below so that 0/0 becomes 1. It also gives a false alarm more than "
    "0, and how much depends on your number: ask whether both masks are empty instead."
)


def with_epsilon(epsilon: float) -> Callable:
    """A Dice with a small number above and below the fraction."""

    def dice(prediction, truth):
        sizes = np.count_nonzero(prediction) + np.count_nonzero(truth)
        return (2 * np.count_nonzero(prediction & truth) + epsilon) / (sizes + epsilon)

    return dice


EXERCISE = Exercise(
    reference=metrics.dice,
    challenges=(
        Challenge("one voxel, found", lambda: (mask(1), mask(1))),
        Challenge("two voxels each, one in common", lambda: (mask(1, 1, 0, 0), mask(0, 1, 1, 0))),
        Challenge("nothing there, nothing found", lambda: (mask(0, 0), mask(0, 0))),
        Challenge("nothing there, one voxel claimed", lambda: (mask(0, 1), mask(0, 0))),
        Challenge("one voxel there, nothing found", lambda: (mask(0, 0), mask(0, 1))),
        Challenge("two slices of one patient", two_slices),
        Challenge("two random volumes", random_volumes),
    ),
    properties={
        "is the same when prediction and truth change places": symmetric,
        "is 0 for a false alarm, and for a tumour not found": false_alarm_is_nothing,
    },
    mistakes=(
        jaccard,
        jaccard_with_nan,
        without_the_factor_2,
        without_the_factor_2_with_nan,
        counted_the_sum_of_the_masks,
        counted_the_sum_of_the_masks_with_nan,
        nan_for_two_empty_masks,
        zero_for_two_empty_masks,
        one_for_an_empty_truth,
        smoothed,
        accuracy,
        averaged_with_background,
        averaged_over_slices,
        precision,
        recall,
        per_cent,
        as_a_loss,
        and_of_arrays,
        *(mistake(EPSILON)(with_epsilon(10.0**-n)) for n in (2, 3, 4, 5, 6)),
    ),
    hints=(
        "Three counts will do: voxels in both masks, in the prediction, in the truth. If all are 0?",
        "Dice = 2 |P and T| / (|P| + |T|), and 1 when both masks are empty.",
        "sizes = prediction.sum() + truth.sum(), then: 1.0 if sizes == 0 else 2 * (prediction & truth).sum() "
        "/ sizes",
    ),
)
