"""`hd95`: how far apart two borders lie, in mm, without the farthest twentieth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt

from labkit import metrics
from labkit.lessons.exercise import Challenge, Exercise, mistake


def hd95(prediction: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """The 95th percentile of the distances from border to border, the larger of the two directions, in mm."""
    return metrics.hd95(prediction, truth, spacing_mm)


# Challenges


def row(digits: str) -> np.ndarray:
    """A mask (W,) from its voxels as text, as "0110"."""
    return np.array([digit == "1" for digit in digits])


def block(*sides: slice) -> np.ndarray:
    """A mask (6, 16, 16) that is true in a block."""
    mask = np.zeros((6, 16, 16), bool)
    mask[sides] = True
    return mask


def one_slice_further() -> tuple:
    """Slices are 5 mm apart, rows 2 mm, columns 1 mm."""
    truth = block(slice(1, 3), slice(4, 9), slice(4, 9))
    return np.roll(truth, 1, axis=0), truth, (5.0, 2.0, 1.0)


def a_stray_voxel() -> tuple:
    truth = block(slice(1, 5), slice(3, 10), slice(3, 10))
    prediction = truth.copy()
    prediction[3, 15, 15] = True
    return prediction, truth, (1.0, 1.0, 1.0)


def a_lesion_missed() -> tuple:
    truth = block(slice(1, 4), slice(1, 4), slice(1, 4))
    prediction = truth.copy()
    truth[2:5, 10:14, 10:14] = True
    return prediction, truth, (2.0, 1.0, 1.0)


def a_false_one() -> tuple:
    prediction, truth, spacing_mm = a_lesion_missed()
    return truth, prediction, spacing_mm


def random_blobs() -> tuple:
    """Two masks of blocks of voxels, alike in most of them, away from the volume's edge."""
    coarse = np.random.random((4, 5, 6)) < 0.4
    other = coarse ^ (np.random.random(coarse.shape) < 0.1)
    prediction, truth = (np.pad(np.kron(one, np.ones((2, 3, 2))), 1) > 0 for one in (coarse, other))
    return prediction, truth, (3.0, 1.0, 2.0)


# Mistakes


def border(mask: np.ndarray) -> np.ndarray:
    return mask & ~binary_erosion(mask)


def empty(P: np.ndarray, T: np.ndarray, spacing_mm: Sequence[float]) -> float | None:
    """What is returned where a mask is empty; None where none is."""
    if P.any() and T.any():
        return None
    return float(np.linalg.norm(np.multiply(P.shape, spacing_mm))) if P.any() or T.any() else 0.0


def distances(P: np.ndarray, T: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """From each border voxel of P to the nearest of T, in mm; neither mask is empty."""
    return distance_transform_edt(~border(T), sampling=spacing_mm)[border(P)]


def from_distances(measure):
    """An answer that has the rule for empty masks, and else `measure` of the distances in both directions."""

    def answer(prediction, truth, spacing_mm):
        if (found := empty(prediction, truth, spacing_mm)) is not None:
            return found
        there, back = (distances(*masks, spacing_mm) for masks in ((prediction, truth), (truth, prediction)))
        return float(measure(there, back))

    return answer


the_farthest = mistake(
    "You took the farthest voxel, which is the plain Hausdorff distance: one stray voxel decides it. Take "
    "the 95th percentile of each direction."
)(from_distances(lambda there, back: max(there.max(), back.max())))

prediction_to_truth_only = mistake(
    "You looked from the prediction to the truth alone: a lesion that was missed costs nothing. Look both "
    "ways, and take the larger."
)(from_distances(lambda there, back: np.percentile(there, 95)))

truth_to_prediction_only = mistake(
    "You looked from the truth to the prediction alone: a false lesion costs nothing. Look both ways, and "
    "take the larger."
)(from_distances(lambda there, back: np.percentile(back, 95)))

mean_of_both_directions = mistake(
    "You took the mean of the two directions. The larger counts, or a missed lesion is half forgiven."
)(from_distances(lambda there, back: (np.percentile(there, 95) + np.percentile(back, 95)) / 2))

pooled = mistake(
    "You pooled the distances of both directions, as some libraries do, and then took their percentile: the "
    "larger border outvotes the smaller. Here: a percentile for each direction, then the larger."
)(from_distances(lambda there, back: np.percentile(np.concatenate([there, back]), 95)))

mean_distance = mistake("You took the mean of the distances. Take their 95th percentile.")(
    from_distances(lambda there, back: max(there.mean(), back.mean()))
)


@mistake("Your distances are in voxels. Give the distance transform the spacing: `sampling=spacing_mm`.")
def in_voxels(prediction, truth, spacing_mm):
    return metrics.hd95(prediction, truth, (1.0,) * truth.ndim)


@mistake("You turned the spacing round: it is (slice, row, column), in the order of the masks' axes.")
def spacing_turned_round(prediction, truth, spacing_mm):
    return metrics.hd95(prediction, truth, spacing_mm[::-1])


@mistake(
    "You measured from all voxels of a mask. Those that lie inside the other have distance 0 and water the "
    "percentile down: measure from border to border."
)
def all_voxels(prediction, truth, spacing_mm):
    if (found := empty(prediction, truth, spacing_mm)) is not None:
        return found
    there = distance_transform_edt(~truth, sampling=spacing_mm)[prediction]
    back = distance_transform_edt(~prediction, sampling=spacing_mm)[truth]
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


@mistake("Nothing was there and nothing was found: that is perfect, 0 mm.")
def diagonal_for_two_empty_masks(prediction, truth, spacing_mm):
    if not (prediction.any() or truth.any()):
        return float(np.linalg.norm(np.multiply(truth.shape, spacing_mm)))
    return metrics.hd95(prediction, truth, spacing_mm)


@mistake("One empty mask cost you nothing. It is the worst that can be: the diagonal of the volume.")
def nothing_for_one_empty_mask(prediction, truth, spacing_mm):
    if not (prediction.any() and truth.any()):
        return 0.0
    return metrics.hd95(prediction, truth, spacing_mm)


@mistake(
    "Where one mask is empty you give no finite number. A mean over patients must stay one: the diagonal of "
    "the volume."
)
def infinite_for_one_empty_mask(prediction, truth, spacing_mm):
    if prediction.any() != truth.any():
        return float("inf")
    return metrics.hd95(prediction, truth, spacing_mm)


@mistake(
    "Your diagonal is in voxels: a side of the volume is its number of voxels times their spacing, in mm."
)
def diagonal_in_voxels(prediction, truth, spacing_mm):
    if prediction.any() != truth.any():
        return float(np.linalg.norm(truth.shape))
    return metrics.hd95(prediction, truth, spacing_mm)


EXERCISE = Exercise(
    reference=hd95,
    challenges=(
        Challenge(
            "a row of voxels of 2 mm; the prediction lies one voxel further",
            lambda: (row("00011100"), row("00111000"), (2.0,)),
        ),
        Challenge("a lesion that lies one slice higher than the true one", one_slice_further),
        Challenge("a perfect lesion, and one voxel far away", a_stray_voxel),
        Challenge("two lesions, one of them missed", a_lesion_missed),
        Challenge("one lesion, found, and a false one", a_false_one),
        Challenge("nothing there, nothing found", lambda: (row("0000"), row("0000"), (2.0,))),
        Challenge(
            "something there, nothing found: 3 x 4 voxels of 5 x 2 mm",
            lambda: (np.zeros((3, 4), bool), np.eye(3, 4, dtype=bool), (5.0, 2.0)),
        ),
        Challenge("random masks", random_blobs),
    ),
    mistakes=(
        the_farthest,
        prediction_to_truth_only,
        truth_to_prediction_only,
        mean_of_both_directions,
        pooled,
        mean_distance,
        in_voxels,
        spacing_turned_round,
        all_voxels,
        diagonal_for_two_empty_masks,
        nothing_for_one_empty_mask,
        infinite_for_one_empty_mask,
        diagonal_in_voxels,
    ),
    hints=(
        "For every voxel of one border: how far is the nearest voxel of the other? Then the same from the "
        "other side.",
        "max(percentile 95 of the distances from P's border to T's, percentile 95 of those from T's to P's). "
        "Empty masks first.",
        "P, T = (mask & ~binary_erosion(mask) for mask in (prediction, truth)); "
        "np.percentile(distance_transform_edt(~T, sampling=spacing_mm)[P], 95) is one direction.",
    ),
)
