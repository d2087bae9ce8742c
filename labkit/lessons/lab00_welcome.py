"""Lab 00: regions from labels, the Dice score, a tumour's volume; and how each is usually got wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from labkit import metrics
from labkit.lessons.compare import difference
from labkit.lessons.exercise import Challenge, Exercise


def regions(label: np.ndarray) -> dict[str, np.ndarray]:
    """Boolean masks (S, H, W) of the three regions of a label volume (S, H, W)."""
    return {name: np.isin(label, labels) for name, labels in metrics.BRATS_REGIONS.items()}


def tumour_ml(label: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Volume of the whole tumour in millilitres; a cubic centimetre is one, and 1000 cubic millimetres."""
    return float(np.count_nonzero(label) * np.prod(spacing_mm) / 1000)


def _labels(*values: int) -> np.ndarray:
    return np.array([[values]], dtype=np.uint8)  # (1, 1, W)


def _mask(*values: int) -> np.ndarray:
    return np.array([[values]], dtype=bool)  # (1, 1, W)


def _random_labels() -> np.ndarray:
    return np.random.choice(np.array([0, 1, 2, 4], dtype=np.uint8), size=(3, 4, 5))


def _two_slices() -> tuple[np.ndarray, np.ndarray]:
    """A large tumour half found in one slice, a small one found in the next: (2, 1, 6) each."""
    truth = np.array([[[1, 1, 1, 1, 1, 1]], [[1, 0, 0, 0, 0, 0]]], dtype=bool)
    prediction = np.array([[[1, 1, 1, 0, 0, 0]], [[1, 0, 0, 0, 0, 0]]], dtype=bool)
    return prediction, truth


# Regions


def _made_of(**labels: tuple[int, ...]):
    """`regions` with other labels for some of the regions."""
    mixed = metrics.BRATS_REGIONS | labels
    return lambda label: {name: np.isin(label, mixed[name]) for name in mixed}


def _nested(answer, output: Mapping, label: np.ndarray) -> str | None:
    for inner, outer in (("ET", "TC"), ("TC", "WT")):
        outside = output[inner] & ~output[outer]
        if outside.any():
            value = label[tuple(np.argwhere(outside)[0])]
            return (
                f"a voxel with label {value} is in {inner} but not in {outer}, which should contain {inner}."
            )
    return None


# Dice


def _divided(top, bottom, nothing: float):
    """top / bottom of the masks, and `nothing` where bottom is 0."""

    def wrong(prediction: np.ndarray, truth: np.ndarray) -> float:
        below = bottom(prediction, truth)
        return float(top(prediction, truth) / below) if below else nothing

    return wrong


def _both(prediction: np.ndarray, truth: np.ndarray) -> int:
    return np.count_nonzero(prediction & truth)


def _sizes(prediction: np.ndarray, truth: np.ndarray) -> int:
    return np.count_nonzero(prediction) + np.count_nonzero(truth)


def _twice(prediction: np.ndarray, truth: np.ndarray) -> int:
    return 2 * _both(prediction, truth)


def _union(prediction: np.ndarray, truth: np.ndarray) -> int:
    return np.count_nonzero(prediction | truth)


def _accuracy(prediction: np.ndarray, truth: np.ndarray) -> float:
    return float((prediction == truth).mean())


def _with_background(prediction: np.ndarray, truth: np.ndarray) -> float:
    return (metrics.dice(prediction, truth) + metrics.dice(~prediction, ~truth)) / 2


def _per_slice(prediction: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([metrics.dice(p, t) for p, t in zip(prediction, truth, strict=True)]))


def _one_if_truth_empty(prediction: np.ndarray, truth: np.ndarray) -> float:
    return metrics.dice(prediction, truth) if truth.any() else 1.0


def _smoothed(prediction: np.ndarray, truth: np.ndarray) -> float:
    return (_twice(prediction, truth) + 1) / (_sizes(prediction, truth) + 1)


# Volume


def _volume(voxels=np.count_nonzero, voxel_mm3=np.prod, mm3_per_ml: float = 1000):
    """`tumour_ml` with another count, another size of a voxel or another unit."""
    return lambda label, spacing_mm: float(voxels(label) * voxel_mm3(spacing_mm) / mm3_per_ml)


EXERCISES = {
    "regions": Exercise(
        reference=regions,
        challenges=(
            Challenge("one voxel of each label", lambda: (_labels(0, 1, 2, 4),)),
            Challenge("a patient whose tumour does not enhance", lambda: (_labels(0, 1, 2, 2),)),
            Challenge("a volume of random labels", lambda: (_random_labels(),)),
        ),
        properties={"keeps ET inside TC and TC inside WT": _nested},
        mistakes={
            "Each of your regions is a single label. Regions are unions of labels and overlap: an "
            "enhancing voxel belongs to all three.": _made_of(ET=(4,), TC=(1,), WT=(2,)),
            "Your ET includes the necrotic core. Label 1 takes up hardly any contrast agent: it is in TC and "
            "WT, not in ET.": _made_of(ET=(1, 4)),
            "Your ET looks for label 3, which does not occur here: enhancing tumour is 4.": _made_of(ET=(3,)),
            "Your WT lacks the enhancing tumour. Whole tumour is all there is: labels 1, 2 and 4.": _made_of(
                WT=(1, 2)
            ),
            "Your WT is the oedema alone. Whole tumour is all there is: labels 1, 2 and 4.": _made_of(
                WT=(2,)
            ),
            "Your TC includes the oedema. The core is the solid tumour: labels 1 and 4. Oedema is the "
            "swelling around it.": _made_of(TC=(1, 2, 4)),
            "Your TC is the necrosis alone. The enhancing rim is living tumour and belongs to the core: "
            "labels 1 and 4.": _made_of(TC=(1,)),
            "You exchanged WT and TC: the whole tumour is the larger one.": _made_of(WT=(1, 4), TC=(1, 2, 4)),
        },
        hints=(
            "Comparing an array with a number gives a boolean array; | joins two of them voxel by voxel.",
            "ET is label 4. WT is every label above 0. TC is label 1 or label 4.",
            'return {"ET": label == 4, "WT": label > 0, "TC": (label == 1) | (label == 4)}',
        ),
    ),
    "dice": Exercise(
        reference=metrics.dice,
        challenges=(
            Challenge("one voxel, found", lambda: (_mask(1), _mask(1))),
            Challenge("two voxels each, one in common", lambda: (_mask(1, 1, 0, 0), _mask(0, 1, 1, 0))),
            Challenge("nothing there, nothing found", lambda: (_mask(0, 0), _mask(0, 0))),
            Challenge("nothing there, one voxel claimed", lambda: (_mask(0, 1), _mask(0, 0))),
            Challenge("one voxel there, nothing found", lambda: (_mask(0, 0), _mask(0, 1))),
            Challenge("two slices of one patient", _two_slices),
            Challenge(
                "two random volumes", lambda: (np.random.rand(3, 4, 5) > 0.7, np.random.rand(3, 4, 5) > 0.6)
            ),
        ),
        properties={
            "is the same when prediction and truth change places": lambda answer, output, p, t: difference(
                answer(t, p), output
            )
        },
        mistakes={
            "You divided by the union: that is the Jaccard index, not Dice.": _divided(_both, _union, 1.0),
            "You divided by the union (the Jaccard index, not Dice), and two empty masks give 0/0.": _divided(
                _both, _union, float("nan")
            ),
            "The factor 2 is missing: a perfect prediction would score only 0.5.": _divided(
                _both, _sizes, 1.0
            ),
            "The factor 2 is missing (a perfect prediction would score only 0.5), and two empty masks "
            "give 0/0.": _divided(_both, _sizes, float("nan")),
            "The sum of two boolean arrays is their union, not a count: True + True is True. Count each "
            "mask by itself, then add the counts.": _divided(_twice, _union, 1.0),
            "The sum of two boolean arrays is their union, not a count: True + True is True. Count each "
            "mask by itself, then add. And two empty masks give 0/0.": _divided(_twice, _union, float("nan")),
            "Two empty masks give 0/0, which is nan. Nothing was there and nothing was found: that is "
            "right, so the score is 1.": _divided(_twice, _sizes, float("nan")),
            "Two empty masks give 0 (a small number in the denominator alone does that too). Nothing was "
            "there and nothing was found: that is right, so the score is 1.": _divided(_twice, _sizes, 0.0),
            "You score 1 whenever the truth is empty. A voxel claimed where there is no tumour is a false"
            " alarm: the score is 0. Only when both are empty is it 1.": _one_if_truth_empty,
            "You added 1 to numerator and denominator. That smoothing belongs in a loss, where it keeps "
            "the gradient finite; in a score it turns a false alarm into part success.": _smoothed,
            "You counted the voxels on which both agree, background included: that is the accuracy. A "
            "brain is mostly background, so finding nothing would score above 0.9.": _accuracy,
            "You averaged the Dice of the tumour with that of the background, which is easy and large, so"
            " it hides a poor tumour score.": _with_background,
            "You averaged over slices. A patient is one volume: count over all slices first, divide once."
            " Else a slice with one voxel weighs as much as one with thousands.": _per_slice,
            "You divided by the size of the prediction: that is the precision. It does not see what was "
            "missed.": _divided(_both, lambda p, t: np.count_nonzero(p), 1.0),
            "You divided by the size of the truth: that is the recall (sensitivity). It does not see "
            "false alarms.": _divided(_both, lambda p, t: np.count_nonzero(t), 1.0),
        },
        hints=(
            "Three counts will do: voxels in both masks, in the prediction, in the truth. If all are 0?",
            "Dice = 2 |P and T| / (|P| + |T|), and 1 when both masks are empty.",
            "sizes = prediction.sum() + truth.sum(), then: 1.0 if sizes == 0 else 2 * (prediction & "
            "truth).sum() / sizes",
        ),
    ),
    "tumour_ml": Exercise(
        reference=tumour_ml,
        challenges=(
            Challenge("one voxel of 1 cm in each direction", lambda: (_labels(1), (10.0, 10.0, 10.0))),
            Challenge("three labels, thick slices", lambda: (_labels(0, 1, 2, 4), (5.0, 1.0, 2.0))),
            Challenge("a healthy brain", lambda: (_labels(0, 0), (2.0, 2.0, 2.0))),
            Challenge("a volume of random labels", lambda: (_random_labels(), (3.0, 0.5, 0.75))),
        ),
        mistakes={
            "You counted voxels. A voxel has a size: multiply by the spacing of all three axes.": (
                _volume(voxel_mm3=lambda s: 1, mm3_per_ml=1)
            ),
            "Your result is in cubic millimetres. A millilitre is a cubic centimetre, 10 x 10 x 10 mm: "
            "divide by 1000.": _volume(mm3_per_ml=1),
            "You divided by 10. One centimetre is 10 millimetres along each of three axes: divide by "
            "1000.": _volume(mm3_per_ml=10),
            "You left out the distance between slices: height times width is an area.": (
                _volume(voxel_mm3=lambda s: s[1] * s[2])
            ),
            "You left out the last axis: all three spacings make up a voxel's volume.": (
                _volume(voxel_mm3=lambda s: s[0] * s[1])
            ),
            "You took one spacing to the power of three. Voxels need not be cubes: slices are often "
            "thicker.": _volume(voxel_mm3=lambda s: s[0] ** 3),
            "You added the spacings; a volume is their product.": _volume(voxel_mm3=sum),
            "You summed label values: an enhancing voxel then counts four times. Count the voxels above "
            "0.": _volume(voxels=np.sum),
            "You measured the whole image. Count only the voxels with a label above 0.": (
                _volume(voxels=np.size)
            ),
        },
        hints=(
            "How many voxels are tumour, and how many cubic millimetres is one voxel?",
            "ml = voxels x (spacing S x spacing H x spacing W, in mm) / 1000.",
            "return (label > 0).sum() * spacing_mm[0] * spacing_mm[1] * spacing_mm[2] / 1000",
        ),
    ),
}
