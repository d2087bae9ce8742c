"""`tumour_ml`: the volume of the whole tumour, from labels and the size of a voxel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from labkit.lessons.exercise import Challenge, Exercise, mistake
from labkit.lessons.lab00_welcome.inputs import labels, random_labels


def tumour_ml(label: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Millilitres of tumour in labels (S, H, W): one is a cubic centimetre, or 1000 cubic millimetres."""
    return float(np.count_nonzero(label) * np.prod(spacing_mm) / 1000)


# Mistakes


@mistake("You counted voxels. A voxel has a size: multiply by the spacing of all three axes.")
def number_of_voxels(label, spacing_mm):
    return float(np.count_nonzero(label))


@mistake(
    "Your result is in cubic millimetres. A millilitre is a cubic centimetre, 10 x 10 x 10 mm: divide "
    "by 1000."
)
def cubic_millimetres(label, spacing_mm):
    return float(np.count_nonzero(label) * np.prod(spacing_mm))


@mistake("You divided by 10. One centimetre is 10 millimetres along each of three axes: divide by 1000.")
def divided_by_10(label, spacing_mm):
    return float(np.count_nonzero(label) * np.prod(spacing_mm) / 10)


@mistake(
    "You divided by 100. That turns square millimetres into square centimetres; a volume has three axes: "
    "divide by 1000."
)
def divided_by_100(label, spacing_mm):
    return float(np.count_nonzero(label) * np.prod(spacing_mm) / 100)


@mistake("You left out the distance between slices: height times width is an area.")
def without_the_first_spacing(label, spacing_mm):
    return float(np.count_nonzero(label) * spacing_mm[1] * spacing_mm[2] / 1000)


@mistake("You left out the last axis: all three spacings make up a voxel's volume.")
def without_the_last_spacing(label, spacing_mm):
    return float(np.count_nonzero(label) * spacing_mm[0] * spacing_mm[1] / 1000)


@mistake("You took one spacing to the power of three. Voxels need not be cubes: slices are often thicker.")
def cubed_one_spacing(label, spacing_mm):
    return float(np.count_nonzero(label) * spacing_mm[0] ** 3 / 1000)


@mistake("You added the spacings; a volume is their product.")
def added_the_spacings(label, spacing_mm):
    return float(np.count_nonzero(label) * sum(spacing_mm) / 1000)


@mistake("You summed label values: an enhancing voxel then counts four times. Count the voxels above 0.")
def summed_the_labels(label, spacing_mm):
    return float(label.sum() * np.prod(spacing_mm) / 1000)


@mistake("You measured the whole image. Count only the voxels with a label above 0.")
def measured_the_whole_image(label, spacing_mm):
    return float(label.size * np.prod(spacing_mm) / 1000)


EXERCISE = Exercise(
    reference=tumour_ml,
    challenges=(
        Challenge("one voxel of 1 cm in each direction", lambda: (labels(1), (10.0, 10.0, 10.0))),
        Challenge("three labels, thick slices", lambda: (labels(0, 1, 2, 4), (5.0, 1.0, 2.0))),
        Challenge("a healthy brain", lambda: (labels(0, 0), (2.0, 2.0, 2.0))),
        Challenge("a volume of random labels", lambda: (random_labels(), (3.0, 0.5, 0.75))),
    ),
    mistakes=(
        number_of_voxels,
        cubic_millimetres,
        divided_by_10,
        divided_by_100,
        without_the_first_spacing,
        without_the_last_spacing,
        cubed_one_spacing,
        added_the_spacings,
        summed_the_labels,
        measured_the_whole_image,
    ),
    hints=(
        "How many voxels are tumour, and how many cubic millimetres is one voxel?",
        "ml = voxels x (spacing S x spacing H x spacing W, in mm) / 1000.",
        "return (label > 0).sum() * spacing_mm[0] * spacing_mm[1] * spacing_mm[2] / 1000",
    ),
)
