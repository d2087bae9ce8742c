"""What is no tumour but can be mistaken for it: white-matter hyperintensities and veins.

Hyperintensities are as bright in FLAIR as oedema and come with age. Veins take up contrast agent like the
tumour's rim: dots in one slice, tubes across slices. All numbers were chosen by eye.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from labkit.phantoms import synthesis
from labkit.phantoms.body import GROWN_MM
from labkit.phantoms.glioma import Tumour
from labkit.phantoms.healthy_brain import Anatomy
from labkit.phantoms.synthesis import smooth_field

# Hyperintensities: caps along the ventricles
CAPS_REACH_MM, CAPS_GAIN, CAPS_THRESHOLD = 4, 6, 0.3
CAPS_UNEVEN, CAPS_UNEVEN_MM = 0.35, 9.0
# ... and spots in the deep white matter
SPOT_WHITE, SPOT_DEPTH_MM = 0.85, 10
SPOTS, SPOTS_BY_AGE = 5, 20  # expected number in the youngest, and how many more in the oldest
BALLS_PER_SPOT, BALLS_APART_MM, BALL_RADIUS_MM = 3, 1.5, (1.2, 3.0)  # three balls: no sphere
SPOT_AMOUNT, MOST_LESION = 0.85, 0.9  # of a voxel

# Veins
SINUS_RADIUS_MM, SINUS_BELOW_TOP_MM, SINUS_SMOOTHED_MM, SINUS_HALF_MM = (2.0, 3.0), 1.5, 5, 2.5
CORTICAL_DEPTH_MM, CORTICAL_OUTSIDE_WHITE = (3, 12), 0.6
DEEP_MM = 15
OFF_CORE_MM = 4  # veins in the oedema start at least this far from the core
COUNTS = {"cortical": (8, 15), "deep": (5, 10), "beside": (2, 5)}  # from, up to but without
LENGTH_MM, RADIUS_MM = (15, 35), (1.3, 2.6)  # length to each side of the start
TILT = 0.35  # spread of a vein's direction around upwards: it crosses slices
TAPER = 0.6  # the thin end has at least this part of the radius


def hyperintensities(rng: np.random.Generator, anatomy: Anatomy, age: float) -> np.ndarray:
    """Fraction (S, H, W) of white-matter lesion: caps along the ventricles and spots, more with age."""
    shape = anatomy.mask.shape
    near = ndimage.gaussian_filter(anatomy.ventricles.astype(np.float32), CAPS_REACH_MM / GROWN_MM)
    uneven = age + CAPS_UNEVEN * smooth_field(rng, shape, GROWN_MM, CAPS_UNEVEN_MM)
    caps = np.clip(CAPS_GAIN * near * uneven - CAPS_THRESHOLD, 0, 1)
    spots = np.zeros(shape, np.float32)
    white = np.argwhere((anatomy.white > SPOT_WHITE) & (anatomy.depth_mm > SPOT_DEPTH_MM))
    count = rng.poisson(SPOTS + SPOTS_BY_AGE * age)
    centres = (white[rng.integers(len(white), size=count)] - (np.array(shape) - 1) / 2) * GROWN_MM
    balls = np.concatenate(
        [centres + rng.normal(0, BALLS_APART_MM, centres.shape) for _ in range(BALLS_PER_SPOT)]
    )
    synthesis.paint_balls(spots, balls, rng.uniform(*BALL_RADIUS_MM, len(balls)), GROWN_MM)
    return np.clip(np.maximum(caps, SPOT_AMOUNT * spots), 0, MOST_LESION) * anatomy.white


def veins(rng: np.random.Generator, anatomy: Anatomy, tumour: Tumour) -> np.ndarray:
    """Fraction (S, H, W) of blood: sagittal sinus, veins that cross slices, some beside the tumour."""
    centre = (np.array(anatomy.mask.shape) - 1) / 2
    blood = np.zeros(anatomy.mask.shape, np.float32)

    def paint(path_mm: np.ndarray, radius_mm: float) -> None:
        taper = np.linspace(1, rng.uniform(TAPER, 1), len(path_mm))
        synthesis.paint_balls(blood, path_mm, radius_mm * taper, GROWN_MM)

    paint(sagittal_sinus(anatomy), rng.uniform(*SINUS_RADIUS_MM))
    places = vein_places(anatomy, tumour)
    counts = {kind: rng.integers(*COUNTS[kind]) for kind in COUNTS}
    for kind, count in counts.items():
        for _ in range(count if len(places[kind]) else 0):
            start = (places[kind][rng.integers(len(places[kind]))] - centre) * GROWN_MM
            up = np.array([1.0, *rng.normal(0, TILT, 2)])
            length, radius = rng.uniform(*LENGTH_MM), rng.uniform(*RADIUS_MM)
            paint(synthesis.wandering_path(rng, start, up, length), radius)
            paint(synthesis.wandering_path(rng, start, -up, length), radius)
    return blood * anatomy.mask * ~tumour.core


def vein_places(anatomy: Anatomy, tumour: Tumour) -> dict[str, np.ndarray]:
    """Voxels (N, 3) where veins may start: in the sulci, deep in the brain, in the oedema."""
    shallow, deep = CORTICAL_DEPTH_MM
    cortical = (anatomy.depth_mm > shallow) & (anatomy.depth_mm < deep)
    cortical &= anatomy.csf + anatomy.grey > CORTICAL_OUTSIDE_WHITE
    around_core = ndimage.binary_dilation(tumour.core, iterations=round(OFF_CORE_MM / GROWN_MM))
    masks = {
        "cortical": cortical,
        "deep": (anatomy.depth_mm > DEEP_MM) & anatomy.mask,
        "beside": tumour.whole & ~around_core,
    }
    return {kind: np.argwhere(mask) for kind, mask in masks.items()}


def sagittal_sinus(anatomy: Anatomy) -> np.ndarray:
    """Points (N, 3) in mm along the upper midline of the brain, from the forehead to the back of the head."""
    plane = anatomy.mask & (np.abs(anatomy.template_mm[2]) < SINUS_HALF_MM)
    rows = np.flatnonzero(plane.any((0, 2)))
    top = [np.argwhere(plane[:, row]).max(0) for row in rows]
    below = SINUS_BELOW_TOP_MM / GROWN_MM
    path = np.array([[z - below, row, x] for row, (z, x) in zip(rows, top, strict=True)], float)
    path = ndimage.gaussian_filter1d(path, SINUS_SMOOTHED_MM / GROWN_MM, axis=0, mode="nearest")
    dense = np.linspace(0, len(path) - 1, round(len(path) * GROWN_MM))  # a point a millimetre
    path = np.stack([np.interp(dense, np.arange(len(path)), column) for column in path.T], 1)
    return (path - (np.array(anatomy.mask.shape) - 1) / 2) * GROWN_MM
