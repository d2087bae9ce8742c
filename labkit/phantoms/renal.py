"""Two kidneys: cortex, medulla, the sinus with its fat and urine, vessels, perirenal fat, and cysts.

A kidney is a bean: an ellipsoid whose poles bend towards the spine, less a sinus that opens forwards and
inwards. It is about 110 mm long (Emamian et al., 1993, AJR 160:83: medians of 112 mm on the left and 109 on
the right in 665 adults); the left one lies higher. Other numbers were chosen by eye.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labkit.phantoms.shapes import amount, around, box_of, line, over, tube
from labkit.phantoms.synthesis import smooth_field
from labkit.phantoms.torso import Torso

HALF_LENGTH_MM, HALF_WIDTH_MM, HALF_DEPTH_MM = (49, 61), (25, 30), (20, 25)
HEIGHT_MM, HEIGHT_VARIES_MM = {-1: -14, 1: 2}, 8  # of the right (-1) and the left one's centre
FROM_SPINE_MM, BEHIND_SPINE_MM = (54, 64), (-8, 6)
TILT, LEAN = (0.12, 0.30), (0.02, 0.22)  # the upper pole lies this much inwards and backwards, mm per mm
TURN_DEGREES = (20, 45)  # the hilum looks forwards by so much
BEND_MM = (5, 10)
CORTEX_MM, PYRAMID_MM = (6, 9), 9
SINUS_MM, SINUS_INWARD_MM = (27, 12, 17), 20
CALYCES = 5
EXCRETES = 0.25  # probability that contrast has come as far as the collecting system
FAT_AROUND_MM = (4, 13)
CYSTS, CYST_MM = {0: 0.4, 1: 0.3, 2: 0.2, 3: 0.1}, (4, 15)  # how many, radius
EDGE_UNEVEN_MM = 1.0


@dataclass(frozen=True)
class Kidney:
    """One kidney as drawn; `w`, `v`, `u` are its own axes in mm: upwards, backwards, away from the hilum."""

    side: int  # -1 the patient's right, 1 the left
    w: np.ndarray
    v: np.ndarray
    u: np.ndarray
    radii_mm: tuple[float, float, float]
    hull: np.ndarray  # distance (S, H, W), the sinus included
    tissue: np.ndarray  # amount (S, H, W) of parenchyma and cysts, what KiTS19 labels as kidney

    def distance_to(self, point_mm: np.ndarray) -> np.ndarray:
        """(S, H, W) mm from a point (w, v, u)."""
        w, v, u = point_mm
        return np.sqrt((self.w - w) ** 2 + (self.v - v) ** 2 + (self.u - u) ** 2)


def build(
    rng: np.random.Generator,
    hu: np.ndarray,
    torso: Torso,
    mm: np.ndarray,
    spacing_mm: float,
    hu_of: dict[str, float],
) -> list[Kidney]:
    """Paint both kidneys, and all that belongs to them, over `hu` in place."""
    shift = rng.normal(0, HEIGHT_VARIES_MM)
    excretes = rng.uniform() < EXCRETES
    kidneys = []
    for side in (-1, 1):
        placed = _place(rng, side, shift, torso, mm)
        kidneys.append(_paint(rng, hu, placed, torso, spacing_mm, hu_of, excretes))
        _vessels(rng, hu, placed, torso, spacing_mm, hu_of)
    return kidneys


@dataclass(frozen=True)
class _Placed:
    side: int
    centre: np.ndarray
    w: np.ndarray
    v: np.ndarray
    u: np.ndarray
    radii_mm: tuple[float, float, float]
    turn: float


def _place(rng, side: int, shift: float, torso: Torso, mm: np.ndarray) -> _Placed:
    z, y, x = mm
    centre = np.array(
        [
            HEIGHT_MM[side] + shift + rng.normal(0, HEIGHT_VARIES_MM / 2),
            torso.spine_mm + rng.uniform(*BEHIND_SPINE_MM),
            side * rng.uniform(*FROM_SPINE_MM),
        ]
    )
    radii = tuple(rng.uniform(*span) for span in (HALF_LENGTH_MM, HALF_DEPTH_MM, HALF_WIDTH_MM))
    w = z - centre[0]
    out = side * (x - centre[2]) + rng.uniform(*TILT) * w
    back = y - centre[1] - rng.uniform(*LEAN) * w
    turn = np.deg2rad(rng.uniform(*TURN_DEGREES))
    u = np.cos(turn) * out + np.sin(turn) * back + rng.uniform(*BEND_MM) * (w / radii[0]) ** 2
    v = np.cos(turn) * back - np.sin(turn) * out
    return _Placed(side, centre, w, v, u, radii, turn)


def _paint(rng, hu, at: _Placed, torso: Torso, spacing_mm, hu_of, excretes: bool) -> Kidney:
    hull = around([at.w, at.v, at.u], at.radii_mm)
    hull = hull + EDGE_UNEVEN_MM * smooth_field(rng, hu.shape, spacing_mm, 14)
    scale = at.radii_mm[0] / 55
    sinus = around([at.w, at.v, at.u + SINUS_INWARD_MM * scale], tuple(scale * radius for radius in SINUS_MM))
    sinus = sinus + 2.5 * smooth_field(rng, hu.shape, spacing_mm, 7)  # fat between the calyces
    room = amount(torso.cavity + 1, spacing_mm) * (1 - torso.wall)
    over(hu, amount(hull - rng.uniform(*FAT_AROUND_MM), spacing_mm) * room, hu_of["fat"])

    tissue = amount(np.maximum(hull, -sinus), spacing_mm)
    cortex_mm = rng.uniform(*CORTEX_MM)
    pyramids = smooth_field(rng, hu.shape, spacing_mm, PYRAMID_MM) > -0.25
    inner = amount(hull + cortex_mm, spacing_mm) * pyramids
    over(hu, tissue, hu_of["cortex"] + inner * (hu_of["medulla"] - hu_of["cortex"]))
    urine = hu_of["excreted contrast"] if excretes else hu_of["urine"]
    inside = amount(hull - 4, spacing_mm)
    box = box_of(inside > 0)  # a few per cent of the body
    over(hu[box], _collecting(rng, at, box, scale, spacing_mm) * inside[box], urine)
    return Kidney(
        at.side, at.w, at.v, at.u, at.radii_mm, hull, _cysts(rng, hu, at, tissue, room, spacing_mm, hu_of)
    )


def _collecting(rng, at: _Placed, box: tuple[slice, ...], scale: float, spacing_mm: float) -> np.ndarray:
    """Amount of the renal pelvis and its calyces in a box."""
    of_w, of_v, of_u = at.w[box], at.v[box], at.u[box]
    pelvis = around([of_w, of_v, of_u + 20 * scale], (10, 4.5, 9))
    for w in np.linspace(-19, 19, CALYCES) * scale:
        v, u = rng.uniform(-5, 5), rng.uniform(-9, -4) * scale
        calyx = around([of_w - w, of_v - v, of_u - u], (3.6, 3.6, 5.5))
        pelvis = np.minimum(pelvis, calyx)
    return amount(pelvis, spacing_mm)


def _cysts(rng, hu, at: _Placed, tissue, room, spacing_mm, hu_of) -> np.ndarray:
    """Paint cysts at the surface; the tissue with them."""
    for _ in range(rng.choice(list(CYSTS), p=list(CYSTS.values()))):
        direction = rng.normal(0, 1, 3)
        direction[2] = abs(direction[2])  # away from the hilum
        direction /= np.linalg.norm(direction)
        w, v, u = np.array(at.radii_mm) * direction * rng.uniform(0.75, 1.1)
        radius = rng.uniform(*CYST_MM)
        cyst = amount(around([at.w - w, at.v - v, at.u - u], (radius,) * 3), spacing_mm) * room
        over(hu, cyst, hu_of["cyst"] + rng.uniform(-4, 4))
        tissue = np.maximum(tissue, cyst)
    return tissue


def _vessels(rng, hu, at: _Placed, torso: Torso, spacing_mm, hu_of) -> None:
    """Renal vein and artery between hilum and the great vessels, in the fat only."""
    inward = 26 * np.array([0, -np.sin(at.turn), -at.side * np.cos(at.turn)])
    hilum = at.centre + inward
    front = torso.spine_mm - 30
    fatty = np.clip((0 - hu) / 60, 0, 1)
    ends = {
        "aorta": ((at.centre[0] + 12, front + 6, 9), 2.8),
        "vena cava": ((at.centre[0] + 14, front, -16), 5),
    }
    for name, (end, radius) in ends.items():
        bend = (0, -6.0 if name == "vena cava" else 3.0, 0)
        start = hilum + rng.normal(0, 2, 3) + (0, bend[1] / 2, 0)
        vessel = tube(hu.shape, line(tuple(start), end, bend), radius, spacing_mm)
        over(hu, vessel * fatty, hu_of[name])
