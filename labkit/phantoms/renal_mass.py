"""Tumours of the kidney: round, uneven, in some with a dead centre, inside the organ or growing out of it.

Diameters are those of the patients of KiTS19: a median of 4.2 cm, the middle half between 2.6 and 6.1 cm
(Heller et al., 2019, arXiv:1904.00445), cut off at both ends. Other numbers were chosen by eye.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from labkit.phantoms.renal import Kidney
from labkit.phantoms.shapes import amount, over
from labkit.phantoms.synthesis import smooth_field
from labkit.phantoms.torso import Torso

DIAMETER_MM, DIAMETER_SPREAD = 42, 0.63  # median; of its log: (ln 61 - ln 26) / 1.35
SMALLEST_MM, LARGEST_MM = 24, 84  # below, too few voxels of 3 mm to learn from
TWO = 0.12  # probability of a second tumour
SECOND_OF_FIRST = (0.35, 0.7)  # diameter
FORWARDS_AND_OUT = (0, -0.7, 0.3)  # of the kidney's axes: behind it the wall leaves little room
DEPTH = (0.6, 1.15)  # its centre, of the way from the kidney's centre to its surface
TRIES, KEPT = 8, 0.9  # of places; of the tumour's volume that is enough
ROUGH, ROUGH_MM = 0.09, 15  # spread of the surface, of the radius
UNEVEN_HU, UNEVEN_MM = 14, 8
NECROTIC, NECROTIC_ABOVE_MM = 0.65, 34  # probability, from this diameter on
CORE_DEPTH = 0.3  # of the radius: dead tissue lies deeper
FAT_AROUND_MM = 4  # pushed aside with the tumour


def grow(
    rng: np.random.Generator,
    hu: np.ndarray,
    kidneys: list[Kidney],
    torso: Torso,
    spacing_mm: float,
    hu_of: dict[str, float],
) -> np.ndarray:
    """Paint one or two tumours over `hu` in place; the amount (S, H, W) of tumour."""
    grown = np.zeros(hu.shape, np.float32)
    diameter = float(DIAMETER_MM * np.exp(DIAMETER_SPREAD * rng.standard_normal()))
    diameter = np.clip(diameter, SMALLEST_MM, LARGEST_MM)
    sizes = [diameter] + [diameter * rng.uniform(*SECOND_OF_FIRST)] * (rng.uniform() < TWO)
    for number, size in enumerate(sizes):
        kidney = kidneys[rng.integers(2)]
        tumour = _one(rng, hu, kidney, max(size, SMALLEST_MM), torso, spacing_mm, hu_of, number)
        grown = np.maximum(grown, tumour)
    return grown


def _centre(rng: np.random.Generator, kidney: Kidney, radius: float, room: np.ndarray) -> np.ndarray:
    """A place (w, v, u), of a few, where spine and muscles cut off little of the tumour."""
    coarse = np.s_[::2, ::2, ::2]
    thin = replace(kidney, w=kidney.w[coarse], v=kidney.v[coarse], u=kidney.u[coarse])
    best, most = np.zeros(3), -1.0
    for _ in range(TRIES):
        direction = rng.normal(FORWARDS_AND_OUT, 1)
        direction[2] = abs(direction[2]) - 0.2  # seldom at the hilum
        direction /= np.linalg.norm(direction)
        centre = np.array(kidney.radii_mm) * direction * rng.uniform(*DEPTH)
        inside = room[coarse][thin.distance_to(centre) < radius]
        kept = inside.mean() if inside.size else 0.0
        if kept > most:
            best, most = centre, kept
        if kept >= KEPT:
            break
    return best


def _one(
    rng, hu, kidney: Kidney, diameter: float, torso: Torso, spacing_mm, hu_of, number: int
) -> np.ndarray:
    radius = diameter / 2
    room = amount(torso.cavity + 2, spacing_mm) * (1 - torso.wall)
    centre = _centre(rng, kidney, radius, room)
    rough = ROUGH * radius * smooth_field(rng, hu.shape, spacing_mm, ROUGH_MM)
    distance = kidney.distance_to(centre) - radius + rough
    around_it = amount(distance - FAT_AROUND_MM, spacing_mm) * room * (kidney.hull > 0)
    over(hu, around_it, hu_of["fat"])
    tumour = amount(distance, spacing_mm) * room
    uneven = UNEVEN_HU * smooth_field(rng, hu.shape, spacing_mm, UNEVEN_MM)
    solid = hu_of["tumour"] + (rng.uniform(-15, 15) if number else 0)
    over(hu, tumour, solid + uneven)
    dead = smooth_field(rng, hu.shape, spacing_mm, 13) > rng.uniform(-0.9, 0.4)
    if rng.uniform() < NECROTIC and diameter > NECROTIC_ABOVE_MM:
        core = amount(distance + CORE_DEPTH * radius, 2 * spacing_mm)
        over(hu, core * dead * tumour, hu_of["necrosis"])
    return tumour
