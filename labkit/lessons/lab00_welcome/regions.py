"""`regions`: the three nested regions of BraTS from one volume of labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from labkit import metrics
from labkit.lessons.exercise import Challenge, Exercise, mistake
from labkit.lessons.lab00_welcome.inputs import labels, random_labels


def regions(label: np.ndarray) -> dict[str, np.ndarray]:
    """Boolean masks (S, H, W) of the three regions of a label volume (S, H, W)."""
    return {name: np.isin(label, values) for name, values in metrics.BRATS_REGIONS.items()}


# Properties


def nested(answer: Callable, output: Mapping, label: np.ndarray) -> str | None:
    """None, or the first voxel of `label` (S, H, W) that lies in a region but not in the one around it."""
    for inner, outer in (("ET", "TC"), ("TC", "WT")):
        outside = output[inner] & ~output[outer]
        if outside.any():
            value = label[tuple(np.argwhere(outside)[0])]
            return (
                f"a voxel with label {value} is in {inner} but not in {outer}, which should contain {inner}."
            )
    return None


# Mistakes


@mistake(
    "Each of your regions is a single label. Regions are unions of labels and overlap: an enhancing voxel "
    "belongs to all three."
)
def one_label_each(label):
    return {"ET": label == 4, "WT": label == 2, "TC": label == 1}


@mistake(
    "Your ET includes the necrotic core. Label 1 takes up hardly any contrast agent: it is in TC and WT, not "
    "in ET."
)
def necrosis_in_ET(label):
    return {"ET": (label == 1) | (label == 4), "WT": label > 0, "TC": (label == 1) | (label == 4)}


@mistake("Your ET looks for label 3, which does not occur here: enhancing tumour is 4.")
def label_3_as_ET(label):
    return {"ET": label == 3, "WT": label > 0, "TC": (label == 1) | (label == 4)}


@mistake(
    "You wrote 3 for 4. BraTS calls enhancing tumour 3 since 2023; here, as until then, it is 4, in "
    "ET and in TC."
)
def label_3_for_4(label):
    return {"ET": label == 3, "WT": label > 0, "TC": (label == 1) | (label == 3)}


@mistake("Your WT lacks the enhancing tumour. Whole tumour is all there is: labels 1, 2 and 4.")
def WT_without_enhancing_tumour(label):
    return {"ET": label == 4, "WT": (label == 1) | (label == 2), "TC": (label == 1) | (label == 4)}


@mistake("Your WT is the oedema alone. Whole tumour is all there is: labels 1, 2 and 4.")
def oedema_as_WT(label):
    return {"ET": label == 4, "WT": label == 2, "TC": (label == 1) | (label == 4)}


@mistake(
    "Your TC includes the oedema. The core is the solid tumour: labels 1 and 4. Oedema is the swelling "
    "around it."
)
def oedema_in_TC(label):
    return {"ET": label == 4, "WT": label > 0, "TC": label > 0}


@mistake(
    "Your TC is the necrosis alone. The enhancing rim is living tumour and belongs to the core: "
    "labels 1 and 4."
)
def necrosis_as_TC(label):
    return {"ET": label == 4, "WT": label > 0, "TC": label == 1}


@mistake("You exchanged WT and TC: the whole tumour is the larger one.")
def WT_and_TC_exchanged(label):
    return {"ET": label == 4, "WT": (label == 1) | (label == 4), "TC": label > 0}


@mistake(
    "Your conditions need brackets, and `|` instead of `or`: (label == 1) | (label == 4). Without brackets "
    "Python computes 1 | label first, and `or` asks for one answer about the whole array. (NumPy's advice, "
    "a.any() or a.all(), is not what you want: it leaves one answer instead of one for each voxel.)"
)
def without_brackets(label):
    return {"ET": label == 4, "WT": label > 0, "TC": label == 1 | label == 4}


EXERCISE = Exercise(
    reference=regions,
    challenges=(
        Challenge("one voxel of each label", lambda: (labels(0, 1, 2, 4),)),
        Challenge("a patient whose tumour does not enhance", lambda: (labels(0, 1, 2, 2),)),
        Challenge("a volume of random labels", lambda: (random_labels(),)),
    ),
    properties={"keeps ET inside TC and TC inside WT": nested},
    mistakes=(
        one_label_each,
        necrosis_in_ET,
        label_3_as_ET,
        label_3_for_4,
        WT_without_enhancing_tumour,
        oedema_as_WT,
        oedema_in_TC,
        necrosis_as_TC,
        WT_and_TC_exchanged,
        without_brackets,
    ),
    hints=(
        "Comparing an array with a number gives a boolean array; | joins two of them voxel by voxel.",
        "ET is label 4. WT is every label above 0. TC is label 1 or label 4.",
        'return {"ET": label == 4, "WT": label > 0, "TC": (label == 1) | (label == 4)}',
    ),
)
