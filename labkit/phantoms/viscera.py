"""Organs that are no kidneys: liver, spleen, pancreas, great vessels, stomach and bowel.

All lengths in mm, chosen by eye after cross-sections of adults. A loop of bowel is a disc in one slice and a
tube across slices; its fluid measures what a cyst does, its wall what a tumour may.
"""

from __future__ import annotations

import numpy as np

from labkit.phantoms.shapes import amount, around, ellipsoid, line, over, tube
from labkit.phantoms.synthesis import smooth_field, wandering_path
from labkit.phantoms.torso import Torso
from labkit.scans.hounsfield import GAS

SHIFT_MM = 6  # spread of where an organ lies
AORTA_MM, VENA_CAVA_MM = (8.5, 11), ((6, 9), (9, 12))
LOOPS, LOOP_MM, LOOP_LENGTH_MM = (11, 16), (9, 14), (50, 110)
WALL_MM = 2.5
GAS_IN = {"loop": 0.3, "colon": 0.75}  # probability
COLON_MM = (17, 23)
UNEVEN_HU = {"organ": 5.0, "stool": 60.0}


def paint(
    rng: np.random.Generator, torso: Torso, mm: np.ndarray, spacing_mm: float, hu_of: dict[str, float]
) -> np.ndarray:
    """All organs over the torso's fat, (S, H, W); the kidneys' places are left to be painted over."""
    hu = torso.hu.copy()
    inside = amount(torso.cavity + 2, spacing_mm) * (1 - torso.wall)
    uneven = UNEVEN_HU["organ"] * smooth_field(rng, hu.shape, spacing_mm, 8)
    _mesentery(rng, hu, inside, spacing_mm)
    for loop in _loops(rng, torso):
        _bowel(rng, hu, inside, loop, rng.uniform(*LOOP_MM), "loop", spacing_mm, hu_of)
    for path in _colon(rng, torso):
        _bowel(rng, hu, inside, path, rng.uniform(*COLON_MM), "colon", spacing_mm, hu_of)
    _stomach(rng, hu, inside, mm, torso, spacing_mm, hu_of)
    _pancreas(rng, hu, inside, spacing_mm, hu_of, uneven)
    _spleen(rng, hu, inside, mm, torso, spacing_mm, hu_of, uneven)
    _liver(rng, hu, inside, mm, torso, spacing_mm, hu_of, uneven)
    _vessels(rng, hu, mm, torso, spacing_mm, hu_of)
    return hu


def _about(rng: np.random.Generator, *centre: float) -> tuple:
    return tuple(np.array(centre) + rng.normal(0, SHIFT_MM, 3))


def _mesentery(rng, hu, inside, spacing_mm) -> None:
    """Strands and small vessels, so that fat is not empty."""
    strands = np.abs(smooth_field(rng, hu.shape, spacing_mm, 10)) < 0.1
    over(hu, inside * strands * 0.35, 40.0)


def _loops(rng, torso: Torso) -> list[np.ndarray]:
    """Paths of the small bowel, in front of the spine and below the liver."""
    loops = []
    for _ in range(rng.integers(*LOOPS)):
        start = np.array(
            [rng.uniform(-96, 25), rng.uniform(-0.62, -0.12) * torso.half_depth_mm, rng.uniform(-55, 85)]
        )
        heading = rng.normal(0, 1, 3) * (0.9, 0.5, 1)
        loops.append(
            wandering_path(rng, start, heading / np.linalg.norm(heading), rng.uniform(*LOOP_LENGTH_MM))
        )
    return loops


def _colon(rng, torso: Torso) -> list[np.ndarray]:
    """Ascending, transverse and descending colon."""
    side, front = 0.66 * torso.half_width_mm, 0.55 * torso.half_depth_mm
    bend = rng.uniform(-25, 0)
    wiggle = tuple(rng.normal(0, 6, 3))
    return [
        line((-100, 8, -side), (bend, -10, -side + 4), wiggle),
        line((bend, -15, -side + 8), (bend + 45, -20, side - 8), (-30, -front + 15, 0)),
        line((-100, 18, side + 4), (bend + 45, 0, side), wiggle),
    ]


def _bowel(rng, hu, inside, path_mm, radius_mm, kind, spacing_mm, hu_of) -> None:
    """A wall around fluid or stool, gas in front in some."""
    swelling = 1 + (0.16 if kind == "colon" else 0.06) * np.sin(np.arange(len(path_mm)) * 2.0 / 3.2)
    outer = tube(hu.shape, path_mm, radius_mm * swelling, spacing_mm) * inside
    inner = tube(hu.shape, path_mm, radius_mm * swelling - WALL_MM, spacing_mm) * inside
    filling = hu_of["bowel fluid"]
    if kind == "colon":
        filling = hu_of["stool"] - UNEVEN_HU["stool"] * np.abs(smooth_field(rng, hu.shape, spacing_mm, 5))
    over(hu, outer, hu_of["bowel wall"])
    over(hu, inner, filling)
    if rng.uniform() < GAS_IN[kind]:
        lifted = path_mm - (0, rng.uniform(0.25, 0.6) * radius_mm, 0)  # the patient lies on the back
        gas = tube(hu.shape, lifted, 0.62 * radius_mm, spacing_mm) * inner
        over(hu, gas, GAS)


def _stomach(rng, hu, inside, mm, torso, spacing_mm, hu_of) -> None:
    centre = _about(rng, 80, -0.42 * torso.half_depth_mm, 45)
    distance = ellipsoid(mm, centre, (38, 30, 46))
    over(hu, amount(distance, spacing_mm) * inside, hu_of["bowel wall"])
    lumen = amount(distance + 4, spacing_mm) * inside
    over(hu, lumen, hu_of["bowel fluid"])
    over(hu, lumen * amount(mm[1] - centre[1] + rng.uniform(0, 18), spacing_mm), GAS)


def _pancreas(rng, hu, inside, spacing_mm, hu_of, uneven) -> None:
    head, tail = (10 + rng.normal(0, 6), -12, -32), (42 + rng.normal(0, 8), 5, 70)
    path = line(head, tail, (0, -24, 0))
    lobes = 10 + 2 * np.sin(np.arange(len(path)) * 0.9)
    over(hu, tube(hu.shape, path, lobes, spacing_mm) * inside, hu_of["pancreas"] + 3 * uneven)


def _spleen(rng, hu, inside, mm, torso, spacing_mm, hu_of, uneven) -> None:
    centre = _about(rng, 70, 26, 0.68 * torso.half_width_mm)
    distance = ellipsoid(mm, centre, (rng.uniform(42, 58), rng.uniform(36, 46), 24))
    hollow = ellipsoid(mm, (centre[0], centre[1] - 8, centre[2] - 36), (60, 40, 25))
    over(hu, amount(np.maximum(distance, -hollow), spacing_mm) * inside, hu_of["spleen"] + uneven)


def _liver(rng, hu, inside, mm, torso, spacing_mm, hu_of, uneven) -> None:
    w, d = torso.half_width_mm, torso.half_depth_mm
    reach = rng.uniform(85, 120)  # downwards from its centre
    right = ellipsoid(mm, _about(rng, 75, -2, -0.55 * w), (reach, 0.74 * d, 0.48 * w))
    left = ellipsoid(mm, _about(rng, 88, -0.5 * d, -12), (52, 0.32 * d, 58))
    hollow = ellipsoid(mm, (15, 42, -45), (75, 40, 42))  # the kidney's bed
    distance = np.maximum(np.minimum(right, left), -hollow)
    liver = amount(distance, spacing_mm) * inside
    over(hu, liver, hu_of["liver"] + uneven)
    for _ in range(9):
        start = np.array([rng.uniform(20, 90), rng.uniform(-40, 10), -0.45 * w])
        heading = rng.normal(0, 1, 3)
        path = wandering_path(rng, start, heading / np.linalg.norm(heading), rng.uniform(25, 60))
        vein = tube(hu.shape, path, rng.uniform(2, 4.5), spacing_mm)
        over(hu, vein * liver * amount(distance + 6, spacing_mm), hu_of["liver veins"])
    bladder = ellipsoid(mm, _about(rng, 15, -0.42 * d, -0.36 * w), (24, 15, 14))
    over(hu, amount(bladder, spacing_mm) * inside, hu_of["bile"])


def _vessels(rng, hu, mm, torso, spacing_mm, hu_of) -> None:
    """Aorta and vena cava before the spine, the mesenteric vessels before them."""
    z, y, x = mm
    front = torso.spine_mm - 28
    aorta = np.hypot(y - front, x - 9 - 0.03 * z) - rng.uniform(*AORTA_MM)
    over(hu, amount(aorta - 1.5, spacing_mm), hu_of["muscle"])
    over(hu, amount(aorta, spacing_mm), hu_of["aorta"])
    flat, wide = (rng.uniform(*span) for span in VENA_CAVA_MM)
    cava = around([y - front + 2 + 0.06 * z, x + 19], (flat, wide))
    over(hu, amount(cava, spacing_mm), hu_of["vena cava"])
    for side in (5, -8):
        mesenteric = np.hypot(y - front + 24 - 0.05 * z, x - side) - rng.uniform(3, 4.5)
        over(hu, amount(mesenteric, spacing_mm) * (z < 45), hu_of["vena cava"])
