"""The wall of the trunk at the height of the kidneys: skin, fat, muscles, spine and ribs.

All lengths in mm, chosen by eye after cross-sections of adults; ranges are over patients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labkit.phantoms import shapes
from labkit.phantoms.shapes import amount, around, over
from labkit.phantoms.synthesis import smooth_field

HALF_WIDTH_MM, HALF_DEPTH_MM = (132, 158), (92, 116)
SQUARENESS = 2.5  # exponent of the outline; 2 is an ellipse
FAT_MM, FAT_AT_THE_BACK = (8, 26), 0.7
WALL_MM = (8, 13)  # muscles around the cavity
SKIN_MM = 2.0

VERTEBRA_BEHIND_MM, VERTEBRA_RADII_MM = 0.36, (16, 23)  # of half depth; front to back, left to right
RIM_MM = 2.5  # compact bone
LEVEL_MM, DISC_MM = (33, 39), 9  # from one vertebra to the next
CANAL_MM = 9
PSOAS_MM, QUADRATUS_MM, ERECTOR_MM = (17, 14), (11, 20), (19, 27)
PSOAS_NARROWS = 0.0045  # upwards, of its radius, per mm
RIB_RADIUS_MM, RIB_APART_MM, RIB_FALLS_MM = 4.5, 27, 85


@dataclass(frozen=True)
class Torso:
    """Where organs may lie."""

    hu: np.ndarray  # (S, H, W) float32: the trunk, its cavity full of fat
    cavity: np.ndarray  # distance (S, H, W) in mm to its wall, negative inside
    wall: np.ndarray  # amount (S, H, W) of muscle and bone
    half_width_mm: float
    half_depth_mm: float
    spine_mm: float  # y of the vertebrae's centre


def build(rng: np.random.Generator, mm: np.ndarray, spacing_mm: float, hu_of: dict[str, float]) -> Torso:
    """Skin, fat, muscle and bone of one patient at warped positions `mm`."""
    z, y, x = mm
    width, depth = rng.uniform(*HALF_WIDTH_MM), rng.uniform(*HALF_DEPTH_MM)
    # the back is flatter than the belly, and hollow over the spine
    rear = np.clip(y / 40, 0, 1)
    behind = 1 + rear * (0.04 * np.exp(-((x / 22) ** 2)) - 0.07)
    k = (np.abs(x / width) ** SQUARENESS + np.abs(y * behind / depth) ** SQUARENESS) ** (1 / SQUARENESS)
    outline = (k - 1) * np.hypot(x, y) / np.maximum(k, 1e-3)
    fat_mm = rng.uniform(*FAT_MM) * (1 - (1 - FAT_AT_THE_BACK) * rear)
    wall_mm = rng.uniform(*WALL_MM)
    cavity = outline + fat_mm + wall_mm

    hu = np.full(x.shape, -1000, np.float32)
    over(hu, amount(outline, spacing_mm), hu_of["muscle"] - 40)  # skin
    over(hu, amount(outline + SKIN_MM, spacing_mm), hu_of["fat"])
    muscle = amount(outline + fat_mm, spacing_mm) * (1 - amount(cavity, spacing_mm))
    layers = smooth_field(rng, x.shape, spacing_mm, 9) * 18  # fat between the layers
    spine = VERTEBRA_BEHIND_MM * depth
    for side in (-1, 1):
        muscle = np.maximum(muscle, amount(_pair(mm, side, spine), spacing_mm))
    over(hu, muscle, hu_of["muscle"] + np.minimum(layers, 0))
    bone = _spine(rng, mm, spacing_mm, spine, hu_of, hu) + _ribs(
        rng, spacing_mm, width - fat_mm.mean(), depth - fat_mm.mean(), wall_mm, hu_of, hu
    )
    return Torso(hu, cavity, np.maximum(muscle, np.clip(bone, 0, 1)), width, depth, spine)


def _pair(mm: np.ndarray, side: int, spine: float) -> np.ndarray:
    """Distance to the three muscles beside the spine."""
    z, y, x = mm
    narrow = np.clip(1 - PSOAS_NARROWS * (z + 60), 0.35, 1.15)
    psoas = around([(y - spine - 2) / narrow, (side * x - 26 - 12 * narrow) / narrow], PSOAS_MM)
    quadratus = around([y - spine - 18, side * x - 68], QUADRATUS_MM)
    erector = around([y - spine - 39, side * x - 30], ERECTOR_MM)
    return np.minimum(np.minimum(psoas, quadratus), erector)


def _spine(rng, mm, spacing_mm, spine, hu_of, hu) -> np.ndarray:
    """Paint vertebrae, discs, the canal and the processes; the amount painted."""
    z, y, x = mm
    level = rng.uniform(*LEVEL_MM)
    phase = (z + rng.uniform(0, level)) % level
    disc = amount(np.abs(phase - level / 2) - DISC_MM / 2, spacing_mm)
    waist = 1 + 0.08 * np.cos(2 * np.pi * (phase - level / 2) / level)  # wider at the discs
    body = around([(y - spine) / waist, x / waist], VERTEBRA_RADII_MM)
    rough = 30 * smooth_field(rng, x.shape, spacing_mm, 5)
    whole = amount(body, spacing_mm)
    over(hu, whole, hu_of["compact bone"])
    over(hu, amount(body + RIM_MM, spacing_mm), hu_of["marrow"] + rough)
    over(hu, whole * disc, hu_of["disc"])
    canal_y = spine + VERTEBRA_RADII_MM[0] + CANAL_MM - 2
    arch = around([y - canal_y, x], (CANAL_MM + 5, CANAL_MM + 7))
    process = around([y - canal_y - 22, x], (15, 3.5))
    across = around([y - canal_y + 2 + 0.1 * np.abs(x), np.abs(x) - 26], (4, 16))
    lamina = np.minimum(np.minimum(arch, process), np.where(disc > 0.5, 9.0, across))
    posterior = amount(lamina, spacing_mm) * (1 - whole)
    over(hu, posterior, hu_of["compact bone"] - 150 + rough)
    over(hu, amount(around([y - canal_y, x], (CANAL_MM, CANAL_MM + 2)), spacing_mm), hu_of["spinal canal"])
    return whole + posterior


def _ribs(rng, spacing_mm, width, depth, wall_mm, hu_of, hu) -> np.ndarray:
    """Paint ribs that fall from the spine forwards in the wall; the amount painted."""
    drawn = np.zeros(hu.shape, np.float32)
    inward = wall_mm / 2
    for side in (-1, 1):
        top = rng.uniform(60, 60 + RIB_APART_MM)
        for number in range(5):
            # longer ones further up: the lowest ends in the flank
            angles = np.linspace(np.deg2rad(62), np.deg2rad(max(40 - 38 * number, -60)), 90)
            t = np.linspace(0, 1, 90)
            z = top + (number - 1) * RIB_APART_MM - RIB_FALLS_MM * t * (0.5 + 0.15 * number)
            path = np.stack(
                [z, (depth - inward) * np.sin(angles), side * (width - inward) * np.cos(angles)], 1
            )
            drawn = np.maximum(drawn, shapes.tube(hu.shape, path, RIB_RADIUS_MM, spacing_mm))
    over(hu, drawn, hu_of["rib"])
    return drawn
