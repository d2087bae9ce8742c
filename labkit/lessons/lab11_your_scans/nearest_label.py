"""`nearest_label`: labels on another grid, each new voxel that of the nearest old one."""

from __future__ import annotations

import numpy as np

from labkit.lessons.exercise import Challenge, Exercise, mistake


def nearest_label(label: np.ndarray, step: tuple[float, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Labels at i * step along each axis, of the nearest voxel; beyond the last voxel, that one."""
    places = [
        np.minimum(np.rint(np.arange(n) * s), old - 1).astype(int)
        for n, s, old in zip(shape, step, label.shape, strict=True)
    ]
    return label[np.ix_(*places)]


# Challenges: steps of even tenths, which come to no place halfway between two voxels


def row(digits: str) -> np.ndarray:
    return np.array([[[int(digit) for digit in digits]]], np.uint8)


def finer() -> tuple:
    return row("0220"), (1.0, 1.0, 0.6), (1, 1, 6)


def coarser() -> tuple:
    return row("00122200"), (1.0, 1.0, 1.6), (1, 1, 5)


def beyond_the_end() -> tuple:
    return row("0012"), (1.0, 1.0, 0.8), (1, 1, 6)


def drawn() -> tuple:
    """Blocks of the labels 0 to 4, with a step of its own along each axis."""
    label = np.kron(np.random.randint(0, 5, (2, 3, 3)), np.ones((2, 2, 2), int)).astype(np.uint8)
    step = tuple(float(s) for s in np.random.choice([0.4, 0.6, 0.8, 1.2, 1.4], 3))
    return label, step, tuple(int(n / s) for n, s in zip(label.shape, step, strict=True))


# Mistakes


def by_scipy(label: np.ndarray, step, shape, order: int) -> np.ndarray:
    from scipy.ndimage import affine_transform  # here, because its import takes long

    return affine_transform(label, step, output_shape=shape, order=order, mode="nearest")


BETWEEN = (
    "You interpolated. Between background, 0, and tumour, 2, that invents a rim of label 1, which is kidney: "
    "a label is a name, and names have no mean. Take the nearest voxel."
)


@mistake(BETWEEN)
def linear(label, step, shape):
    return by_scipy(label, step, shape, 1)


@mistake(BETWEEN)
def linear_and_rounded(label, step, shape):
    return np.rint(by_scipy(label.astype(float), step, shape, 1)).astype(label.dtype)


@mistake(BETWEEN)
def cubic(label, step, shape):
    return by_scipy(label, step, shape, 3)


@mistake("You divided by the step. New voxel i lies at the old place i * step.")
def divided(label, step, shape):
    return nearest_label(label, tuple(1 / s for s in step), shape)


@mistake("You cut the place down to a whole number. The nearest voxel may be the next one: round.")
def cut_down(label, step, shape):
    places = [
        np.minimum((np.arange(n) * s).astype(int), old - 1)
        for n, s, old in zip(shape, step, label.shape, strict=True)
    ]
    return label[np.ix_(*places)]


@mistake("You rounded up. The nearest voxel may be the one before: round to the nearest.")
def rounded_up(label, step, shape):
    places = [
        np.minimum(np.ceil(np.arange(n) * s).astype(int), old - 1)
        for n, s, old in zip(shape, step, label.shape, strict=True)
    ]
    return label[np.ix_(*places)]


@mistake(
    "You stretched the old grid so that first and last voxels meet. Then the spacing is no longer what the "
    "header says: new voxel i lies at i * step."
)
def ends_together(label, step, shape):
    ends = tuple((old - 1) / max(n - 1, 1) for old, n in zip(label.shape, shape, strict=True))
    return nearest_label(label, ends, shape)


@mistake("Beyond the last voxel you set 0. The patient does not end there; take the last voxel.")
def nothing_beyond(label, step, shape):
    found = nearest_label(label, step, shape)
    for axis, (n, s) in enumerate(zip(shape, step, strict=True)):
        beyond = np.rint(np.arange(n) * s) >= label.shape[axis]
        found[tuple(beyond if a == axis else slice(None) for a in range(label.ndim))] = 0
    return found


EXERCISE = Exercise(
    reference=nearest_label,
    challenges=(
        Challenge("a row of four voxels, onto a finer grid", finer),
        Challenge("a row of eight voxels, onto a coarser grid", coarser),
        Challenge("a row whose new grid reaches beyond the old one", beyond_the_end),
        Challenge("random labels, with a step of its own along each axis", drawn),
    ),
    mistakes=(
        linear,
        linear_and_rounded,
        cubic,
        divided,
        cut_down,
        rounded_up,
        ends_together,
        nothing_beyond,
    ),
    hints=(
        "For one axis: at which old place does new voxel i lie, and which old voxel is the nearest?",
        "place(i) = min(round(i * step), old - 1), for each axis; then pick those rows, columns and slices.",
        "`np.minimum(np.rint(np.arange(n) * s), old - 1).astype(int)` for each axis, then "
        "`label[np.ix_(*places)]`.",
    ),
)
