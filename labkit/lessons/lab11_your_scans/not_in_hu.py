"""`not_in_hu`: which scans of a folder do not hold Hounsfield units, told by their air."""

from __future__ import annotations

import numpy as np

from labkit.lessons.exercise import Challenge, Exercise, mistake

AIR_HU, AWAY_HU = -1000, 100


def not_in_hu(scans: dict[str, np.ndarray]) -> list[str]:
    """Names, in their order, of the scans whose 5th percentile is more than 100 HU away from -1000."""
    return [name for name, scan in scans.items() if far_off(np.percentile(scan, 5))]


def far_off(air: float) -> bool:
    return abs(air - AIR_HU) > AWAY_HU


def names(output: object, scans: dict[str, np.ndarray]) -> object:
    """What is compared: the names; a tuple of them is as good as a list."""
    return list(output) if isinstance(output, tuple) else output


# Challenges. A tenth of a scan and more is air, as around a trunk, but in `at_the_limit`.


def scan(slope: float = 1, shift: float = 0, air_hu: float = AIR_HU, streak: bool = False) -> np.ndarray:
    """Air and soft tissue (2, 6, 6), as a file with a wrong slope or shift would hold them; a streak is one
    voxel that is far too dark, as beside metal."""
    hu = np.full((2, 6, 6), 60.0)
    hu[:, :3] = air_hu
    hu += np.arange(72).reshape(hu.shape) % 7  # noise
    hu = hu * slope + shift
    if streak:
        hu[0, 5, 5] = -3024
    return hu.astype(np.int16)


def one_of_two() -> tuple:
    return ({"a": scan(), "b": scan(slope=0.5)},)


def above_and_below() -> tuple:
    return ({"a": scan(shift=1024), "b": scan(), "c": scan(slope=2), "d": scan(shift=-400)},)


def a_streak() -> tuple:
    return ({"a": scan(streak=True), "b": scan(shift=1024, streak=True)},)


def all_are_well() -> tuple:
    return ({"a": scan(), "b": scan(air_hu=-960)},)


def at_the_limit() -> tuple:
    """101 voxels in a row, so that the 5th percentile is the sixth of them: 100 HU away, and 101."""
    rising = 2 * np.arange(101)
    return ({"a": rising - 910, "b": rising - 909},)


def drawn() -> tuple:
    """Scans of random names, of which some are wrong in one way or another."""
    found = {}
    for number in np.random.permutation(90)[:6]:
        slope, shift = [(1, 0), (1, 0), (0.5, 0), (1, 1024), (2, 0)][np.random.randint(5)]
        found[f"patient-{number + 10}"] = scan(slope, shift, streak=np.random.rand() < 0.5)
    return (found,)


# Mistakes


@mistake(
    "You took the darkest voxel for air, or nearly: `np.percentile` counts to 100, so 5 and not 0.05. One "
    "streak beside metal, or padding of -3024, decides then; a low percentile does not care about it."
)
def by_the_minimum(scans):
    return [name for name, scan in scans.items() if far_off(scan.min())]


@mistake("You took the mean. It says how much air is around the patient, and not what air measures.")
def by_the_mean(scans):
    return [name for name, scan in scans.items() if far_off(scan.mean())]


@mistake(
    "You named scans whose air is too bright alone. Too dark is as wrong: take the distance, `abs(...)`."
)
def too_bright_alone(scans):
    return [name for name, scan in scans.items() if np.percentile(scan, 5) - AIR_HU > AWAY_HU]


@mistake(
    "You named scans whose air is too dark alone. Too bright is as wrong: take the distance, `abs(...)`."
)
def too_dark_alone(scans):
    return [name for name, scan in scans.items() if AIR_HU - np.percentile(scan, 5) > AWAY_HU]


@mistake("You named the scans that are in HU. Asked for are the others.")
def the_good_ones(scans):
    return [name for name, scan in scans.items() if not far_off(np.percentile(scan, 5))]


@mistake("Air has minus 1000 HU. A number is as far from it as `number + 1000` says.")
def plus_a_thousand(scans):
    return [name for name, scan in scans.items() if abs(np.percentile(scan, 5) - 1000) > AWAY_HU]


@mistake("You stopped at the first one. A folder may have several.")
def the_first_one(scans):
    return not_in_hu(scans)[:1]


EXERCISE = Exercise(
    reference=not_in_hu,
    challenges=(
        Challenge("two scans, one of half the slope", one_of_two),
        Challenge("four scans, shifted up, right, of twice the slope, shifted down", above_and_below),
        Challenge("two scans with a streak beside metal, one of them shifted", a_streak),
        Challenge("two scans, both well", all_are_well),
        Challenge("two scans whose 5th percentile is 100 and 101 HU away", at_the_limit),
        Challenge("six scans drawn at random", drawn),
    ),
    result=names,
    mistakes=(
        by_the_minimum,
        by_the_mean,
        too_bright_alone,
        too_dark_alone,
        the_good_ones,
        plus_a_thousand,
        the_first_one,
    ),
    hints=(
        "What does air measure in this scan? Ask for a number that a few odd voxels can't move.",
        "A scan is suspicious if |5th percentile - (-1000)| > 100.",
        "[name for name, scan in scans.items() if abs(np.percentile(scan, 5) + 1000) > 100]",
    ),
)
