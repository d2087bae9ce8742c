"""`windowed`: a CT in a window of Hounsfield units, as a viewer shows it."""

from __future__ import annotations

import numpy as np

from labkit.lessons.compare import kind
from labkit.lessons.exercise import Challenge, Exercise, Unfit, mistake


def windowed(hu: np.ndarray, centre: float, width: float) -> np.ndarray:
    """0 at the window's lower end and below, 1 at its upper end and above, linear between."""
    low = centre - width / 2
    return np.clip((hu - low) / width, 0, 1)


def as_numbers(output: object, *inputs: object) -> np.ndarray:
    """What is compared: float32 or float64 are as good. Unfit: no array of numbers."""
    if not isinstance(output, np.ndarray):
        raise Unfit(f"return a NumPy array with the shape of hu, not {kind(output)}")
    if output.dtype.kind != "f":
        raise Unfit(f"grey values between 0 and 1 need a type with fractions, not {output.dtype}")
    return output.astype(float)


# Challenges; HU are whole numbers, as files hold them


def fat_to_bone() -> tuple:
    return np.array([-1000, -100, 0, 40, 240, 700], np.int16), 40, 400


def lung() -> tuple:
    return np.array([[-1024, -850, -600], [-300, 0, 1200]], np.int16), -600, 1500


def drawn() -> tuple:
    hu = np.random.randint(-1024, 1500, (2, 5, 5)).astype(np.int16)
    return hu, int(np.random.randint(-100, 200)), int(np.random.randint(2, 10) * 100)


# Mistakes


@mistake("You went a whole width to either side of the centre. The window is one width in all: half a side.")
def a_width_to_each_side(hu, centre, width):
    return np.clip((hu - (centre - width)) / (2 * width), 0, 1)


@mistake("You took the centre for the lower end. The window begins half a width below it.")
def from_the_centre(hu, centre, width):
    return np.clip((hu - centre) / width, 0, 1)


@mistake("You cut nothing off: what lies outside the window must be 0 below it and 1 above it.")
def not_cut_off(hu, centre, width):
    return (hu - (centre - width / 2)) / width


@mistake("You made all 0 that lies outside the window. Bone above it would be as black as air: it is 1.")
def outside_is_black(hu, centre, width):
    low = centre - width / 2
    return np.where((hu >= low) & (hu <= low + width), (hu - low) / width, 0.0)


@mistake("You cut off at the upper end alone. Air far below the window must be 0, too.")
def cut_off_above_alone(hu, centre, width):
    return np.minimum((hu - (centre - width / 2)) / width, 1)


@mistake(
    "You scaled by the darkest and brightest voxel of this scan. The same grey is then another tissue in the "
    "next patient; scale by the window's ends, which are the same for all."
)
def scaled_by_its_own(hu, centre, width):
    cut = np.clip(hu.astype(float), centre - width / 2, centre + width / 2)
    return (cut - hu.min()) / (int(hu.max()) - int(hu.min()))


@mistake(
    "You cut off at the window's ends and left HU. Asked for is 0 to 1: subtract the lower end, then divide "
    "by the width."
)
def still_in_hu(hu, centre, width):
    return np.clip(hu.astype(float), centre - width / 2, centre + width / 2)


@mistake("Your picture is a negative: bright tissue is near 1.")
def negative(hu, centre, width):
    return 1 - windowed(hu, centre, width)


EXERCISE = Exercise(
    reference=windowed,
    challenges=(
        Challenge("six tissues in a window for the abdomen", fat_to_bone),
        Challenge("six tissues in a window for the lung", lung),
        Challenge("HU and a window drawn at random", drawn),
    ),
    result=as_numbers,
    mistakes=(
        a_width_to_each_side,
        from_the_centre,
        not_cut_off,
        outside_is_black,
        cut_off_above_alone,
        scaled_by_its_own,
        still_in_hu,
        negative,
    ),
    hints=(
        "At which HU does the window begin? What becomes of a voxel just there, and what of one far below?",
        "(hu - low) / width with low = centre - width / 2, then cut off below 0 and above 1.",
        "np.clip((hu - (centre - width / 2)) / width, 0, 1)",
    ),
)
