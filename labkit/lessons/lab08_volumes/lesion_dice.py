"""`lesion_dice`: a Dice score in which every lesion has one vote, and every false alarm too."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import label

from labkit.lessons.exercise import Challenge, Exercise, mistake
from labkit.metrics import dice, lesion_wise


def lesion_dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Mean Dice over the true lesions and the false components, of masks of up to three dimensions."""
    P = prediction[(None,) * (3 - prediction.ndim)]
    T = truth[(None,) * (3 - truth.ndim)]
    spacing_mm = (5.0, 5.0, 5.0)  # so large that no voxel is too small to count, and none grows into the next
    return lesion_wise(P, T, spacing_mm, hausdorff=False)["lesion_dice"]


# Challenges


def row(digits: str) -> np.ndarray:
    """A mask (W,) from its voxels as text, as "0110"."""
    return np.array([digit == "1" for digit in digits])


def touching_at_a_corner() -> tuple:
    truth = np.zeros((3, 4), bool)
    truth[0, 0] = truth[1, 1] = True
    prediction = truth.copy()
    prediction[1, 1] = False
    return prediction, truth


def random_voxels() -> tuple:
    truth, errors = np.random.random((2, 5, 7, 8)) < 0.05
    return truth ^ errors, truth


# Mistakes


def components(mask: np.ndarray) -> np.ndarray:
    """The number of its component (1, 2, ...) for each voxel of a mask, 0 outside; corners connect."""
    return label(mask, np.ones((3,) * mask.ndim))[0]


def lesion_votes(parts: np.ndarray, lesions: np.ndarray) -> list[float]:
    """Dice of each numbered lesion with all numbered parts of the prediction that touch it, taken whole."""
    votes = []
    for i in range(1, lesions.max() + 1):
        lesion = lesions == i
        touching = set(parts[lesion]) - {0}
        votes.append(dice(np.isin(parts, list(touching)), lesion))
    return votes


def false_votes(parts: np.ndarray, lesions: np.ndarray) -> list[float]:
    """A zero for each numbered part of the prediction that touches no numbered lesion."""
    false = set(parts.ravel()) - set(parts[lesions > 0]) - {0}
    return [0.0] * len(false)


@mistake("This is the plain Dice score: every voxel has a vote, so the large lesion decides alone.")
def plain_dice(prediction, truth):
    return dice(prediction, truth)


@mistake("False components cost you nothing: each of them takes part in the mean with 0.")
def without_false_components(prediction, truth):
    votes = lesion_votes(components(prediction), components(truth))
    return sum(votes) / len(votes) if votes else 1.0


@mistake("Missed lesions cost you nothing: each of them takes part in the mean with 0.")
def without_missed_lesions(prediction, truth):
    parts = components(prediction)
    lesions = components(truth)
    votes = [vote for vote in lesion_votes(parts, lesions) if vote > 0]
    votes += false_votes(parts, lesions)
    return sum(votes) / len(votes) if votes else 1.0


@mistake(
    "You cut the prediction to the lesion, so whatever was marked too much was forgiven. A component that "
    "touches a lesion belongs to it whole."
)
def prediction_cut_to_the_lesion(prediction, truth):
    parts = components(prediction)
    lesions = components(truth)
    votes = false_votes(parts, lesions)
    for i in range(1, lesions.max() + 1):
        lesion = lesions == i
        votes.append(dice(prediction & lesion, lesion))
    return sum(votes) / len(votes) if votes else 1.0


@mistake("Where nothing is and nothing was found you gave no number (nan). That is a perfect answer: 1.")
def nan_for_two_empty_masks(prediction, truth):
    parts = components(prediction)
    lesions = components(truth)
    votes = lesion_votes(parts, lesions) + false_votes(parts, lesions)
    return sum(votes) / len(votes) if votes else float("nan")


@mistake(
    "You gave the votes to the components of the prediction. The lesions vote, and those components that "
    "touch none of them."
)
def votes_of_the_prediction(prediction, truth):
    parts = components(prediction)
    lesions = components(truth)
    votes = lesion_votes(parts=lesions, lesions=parts)  # in exchanged roles
    if votes:
        return sum(votes) / len(votes)
    return 0.0 if truth.any() else 1.0


@mistake("Voxels that meet at a corner or an edge are connected too: give `label` a structure of ones.")
def without_corners(prediction, truth):
    parts, _ = label(prediction)
    lesions, _ = label(truth)
    votes = lesion_votes(parts, lesions) + false_votes(parts, lesions)
    return sum(votes) / len(votes) if votes else 1.0


@mistake(
    "You counted the background as a component: label gives it the number 0, and around a lesion it touches "
    "everything. Take 0 out of what touches."
)
def background_as_a_component(prediction, truth):
    parts = components(prediction)
    lesions = components(truth)
    votes = [dice(np.isin(parts, parts[lesions == i]), lesions == i) for i in range(1, lesions.max() + 1)]
    votes += false_votes(parts, lesions)
    return sum(votes) / len(votes) if votes else 1.0


@mistake("All false components together cost you one 0. Each of them has a vote of its own.")
def one_vote_for_all_false_components(prediction, truth):
    parts = components(prediction)
    lesions = components(truth)
    votes = lesion_votes(parts, lesions) + false_votes(parts, lesions)[:1]
    return sum(votes) / len(votes) if votes else 1.0


EXERCISE = Exercise(
    reference=lesion_dice,
    challenges=(
        Challenge(
            "one lesion, found, and one component that is nothing",
            lambda: (row("11110010"), row("11110000")),
        ),
        Challenge("two lesions, one of them missed", lambda: (row("11110000"), row("11110010"))),
        Challenge("one lesion, found, and two false ones", lambda: (row("11001010"), row("11000000"))),
        Challenge("nothing there, nothing found", lambda: (row("00000000"), row("00000000"))),
        Challenge("two lesions bridged by the prediction", lambda: (row("11111000"), row("11011000"))),
        Challenge("one lesion found in two parts", lambda: (row("11011000"), row("11111000"))),
        Challenge("nothing there, something found", lambda: (row("00110000"), row("00000000"))),
        Challenge("a lesion of two pixels that touch at a corner, half found", touching_at_a_corner),
        Challenge("random voxels", random_voxels),
    ),
    mistakes=(
        plain_dice,
        without_false_components,
        without_missed_lesions,
        prediction_cut_to_the_lesion,
        nan_for_two_empty_masks,
        votes_of_the_prediction,
        without_corners,
        background_as_a_component,
        one_vote_for_all_false_components,
    ),
    hints=(
        "Who has a vote? Every true lesion, and every component of the prediction that touches none.",
        "(sum of the lesions' Dice) / (lesions + false components), 1 if there is neither.",
        "For lesion i: `touching = set(parts[lesions == i]) - {0}`; its Dice is that of "
        "np.isin(parts, list(touching)) with lesions == i.",
    ),
)
