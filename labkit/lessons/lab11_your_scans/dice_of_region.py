"""`dice_of_region`: a mean Dice that does not hide the patients who lack the region."""

from __future__ import annotations

import math

import numpy as np

from labkit.lessons.compare import kind
from labkit.lessons.exercise import Challenge, Exercise, Unfit, mistake


def dice_of_region(
    predictions: list[np.ndarray], truths: list[np.ndarray], voxel_ml: float
) -> tuple[float, float]:
    """Mean Dice over the patients who have the region (NaN if nobody has it), and the ml that are marked in
    the others together."""
    pairs = list(zip(predictions, truths, strict=True))
    dices = [2 * (P & T).sum() / (P.sum() + T.sum()) for P, T in pairs if T.any()]
    false = sum(P.sum() for P, T in pairs if not T.any())
    return float(np.mean(dices)) if dices else math.nan, float(false * voxel_ml)


def as_pair(output: object, *inputs: object) -> tuple:
    """What is compared. Unfit: no two numbers."""
    if not isinstance(output, (tuple, list)) or len(output) != 2:
        raise Unfit(f"return two numbers, `return mean, false_ml`, not {kind(output)}")
    return tuple(output)


# Challenges


def row(digits: str) -> np.ndarray:
    return np.array([digit == "1" for digit in digits])


def one_has_none() -> tuple:
    return [row("01100"), row("00000")], [row("01110"), row("00000")], 0.5


def marked_where_none_is() -> tuple:
    return [row("0110"), row("0111"), row("0000")], [row("0111"), row("0000"), row("0001")], 0.25


def nobody_has_it() -> tuple:
    return [row("0100"), row("0000")], [row("0000"), row("0000")], 2.0


def large_and_small() -> tuple:
    return [row("1" * 90 + "0" * 10), row("01" + "0" * 98)], [row("1" * 100), row("11" + "0" * 98)], 1.0


def drawn() -> tuple:
    """Seven patients, of whom some lack the region; some of those are marked all the same."""
    truths = [np.random.rand(3, 4, 4) < share for share in (0.5, 0.2, 0, 0.4, 0, 0, 0.1)]
    predictions = [truth ^ (np.random.rand(*truth.shape) < 0.15) for truth in truths]
    predictions[5] = np.zeros((3, 4, 4), bool)
    order = np.random.permutation(7)
    return [predictions[i] for i in order], [truths[i] for i in order], float(np.random.randint(1, 9) / 8)


# Mistakes


def scored(predictions, truths, voxel_ml, dice) -> tuple[float, float]:
    """The mean of some `dice` over all patients, and the right volume."""
    dices = [dice(P, T) for P, T in zip(predictions, truths, strict=True)]
    return float(np.mean(dices)), dice_of_region(predictions, truths, voxel_ml)[1]


@mistake(
    "A patient who lacks the region counts as a perfect 1 where nothing is marked. A network that never "
    "marks anything is praised for him. Leave him out of the mean."
)
def perfect_where_none_is(predictions, truths, voxel_ml):
    def dice(P, T):
        return 2 * (P & T).sum() / (P.sum() + T.sum()) if (P | T).any() else 1.0

    return scored(predictions, truths, voxel_ml, dice)


@mistake("A patient who lacks the region counts as 0, whatever is marked: nobody could do it right.")
def zero_where_none_is(predictions, truths, voxel_ml):
    return scored(predictions, truths, voxel_ml, lambda P, T: 2 * (P & T).sum() / max(P.sum() + T.sum(), 1))


@mistake(
    "You added a small number above and below, as in a loss. Two empty masks then have a Dice of 1: a "
    "patient without the region is counted after all."
)
def with_epsilon(predictions, truths, voxel_ml):
    return scored(
        predictions, truths, voxel_ml, lambda P, T: (2 * (P & T).sum() + 1) / (P.sum() + T.sum() + 1)
    )


@mistake("One NaN makes the mean NaN. Leave those patients out first, or use `np.nanmean`.")
def nan_in_the_mean(predictions, truths, voxel_ml):
    def dice(P, T):
        return 2 * (P & T).sum() / (P.sum() + T.sum()) if T.any() else math.nan

    return scored(predictions, truths, voxel_ml, dice)


@mistake(
    "You left out everybody of whom nothing is marked. Who has a region that was missed must count, with 0; "
    "leave out who does not have it."
)
def missed_left_out(predictions, truths, voxel_ml):
    pairs = [(P, T) for P, T in zip(predictions, truths, strict=True) if P.any()]
    dices = [2 * (P & T).sum() / (P.sum() + T.sum()) for P, T in pairs]
    return float(np.mean(dices)) if dices else math.nan, dice_of_region(predictions, truths, voxel_ml)[1]


@mistake("You pooled the voxels of all patients. One large tumour then speaks for all small ones.")
def pooled(predictions, truths, voxel_ml):
    pairs = [(P, T) for P, T in zip(predictions, truths, strict=True) if T.any()]
    both, sizes = sum((P & T).sum() for P, T in pairs), sum(P.sum() + T.sum() for P, T in pairs)
    return float(2 * both / sizes) if pairs else math.nan, dice_of_region(predictions, truths, voxel_ml)[1]


@mistake("You divided by the union: that is the Jaccard index, not Dice.")
def jaccard(predictions, truths, voxel_ml):
    pairs = [(P, T) for P, T in zip(predictions, truths, strict=True) if T.any()]
    shares = [(P & T).sum() / (P | T).sum() for P, T in pairs]
    return float(np.mean(shares)) if pairs else math.nan, dice_of_region(predictions, truths, voxel_ml)[1]


@mistake("Your volume is in voxels. A voxel has voxel_ml.")
def in_voxels(predictions, truths, voxel_ml):
    return dice_of_region(predictions, truths, 1.0)


@mistake(
    "Your volume counts all that is marked wrongly. Asked for is what is marked in those who lack the region."
)
def all_that_is_wrong(predictions, truths, voxel_ml):
    false = sum((P & ~T).sum() for P, T in zip(predictions, truths, strict=True))
    return dice_of_region(predictions, truths, voxel_ml)[0], float(false * voxel_ml)


EXERCISE = Exercise(
    reference=dice_of_region,
    challenges=(
        Challenge("two patients, one without the region and without marks", one_has_none),
        Challenge("three patients, one marked without need, one missed", marked_where_none_is),
        Challenge("two patients, nobody has the region", nobody_has_it),
        Challenge("a large region, and a small one half found", large_and_small),
        Challenge("seven patients drawn at random", drawn),
    ),
    result=as_pair,
    mistakes=(
        perfect_where_none_is,
        with_epsilon,
        zero_where_none_is,
        nan_in_the_mean,
        missed_left_out,
        pooled,
        jaccard,
        in_voxels,
        all_that_is_wrong,
    ),
    hints=(
        "Who can be asked how well his region was found? And what may be asked of the others?",
        "Mean of 2|P and T| / (|P| + |T|) over those with |T| > 0; for the others the sum of |P| x voxel_ml.",
        "`[2 * (P & T).sum() / (P.sum() + T.sum()) for P, T in zip(predictions, truths) if T.any()]`; of an "
        "empty list the mean is NaN, `math.nan`.",
    ),
)
