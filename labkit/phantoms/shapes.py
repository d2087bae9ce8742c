"""Soft-edged shapes of a drawn body: signed distances in mm, amounts in [0, 1], and paint over paint.

Positions are (3, S, H, W) in mm: upwards, to the back, to the patient's left. Distances are negative inside.
"""

from __future__ import annotations

import numpy as np

from labkit.phantoms import synthesis


def amount(distance_mm: np.ndarray, edge_mm: float) -> np.ndarray:
    """How much of a voxel lies inside, from the distance of its centre; `edge_mm` is the voxel's size."""
    return np.clip(0.5 - distance_mm / edge_mm, 0, 1)


def ellipsoid(mm: np.ndarray, centre: tuple, radii: tuple) -> np.ndarray:
    """Distance (S, H, W) to an ellipsoid along the axes: right at its surface, close to right near it."""
    return around([axis - c for axis, c in zip(mm, centre, strict=True)], radii)


def around(offset: list[np.ndarray], radii: tuple) -> np.ndarray:
    """The same from offsets to the centre; two of them make an elliptic cylinder."""
    scaled = sum((o / r) ** 2 for o, r in zip(offset, radii, strict=True))
    steep = sum((o / r**2) ** 2 for o, r in zip(offset, radii, strict=True))
    k = np.sqrt(scaled)
    return k * (k - 1) / np.sqrt(steep + 1e-12)


def box_of(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box (S, H, W) that holds all of a mask."""
    ends = (np.flatnonzero(mask.any(tuple({0, 1, 2} - {axis})))[[0, -1]] for axis in range(3))
    return tuple(slice(first, last + 1) for first, last in ends)


def over(hu: np.ndarray, part: np.ndarray, value: float | np.ndarray) -> None:
    """Paint in place: `part` (0 to 1) of what was there gives way to `value`."""
    hu += part * (value - hu)


def tube(shape: tuple, path_mm: np.ndarray, radius_mm: float | np.ndarray, spacing_mm: float) -> np.ndarray:
    """Amount (S, H, W) of a tube along points (N, 3) in mm that lie closer together than its radius."""
    drawn = np.zeros(shape, np.float32)
    radii = np.broadcast_to(radius_mm, len(path_mm))
    synthesis.paint_balls(drawn, np.asarray(path_mm, float), radii, spacing_mm)
    return drawn


def line(start_mm: tuple, end_mm: tuple, sag_mm: tuple = (0, 0, 0), step_mm: float = 2.0) -> np.ndarray:
    """Points (N, 3) from start to end, bent by `sag_mm` in the middle."""
    start, end = np.asarray(start_mm, float), np.asarray(end_mm, float)
    t = np.linspace(0, 1, max(int(np.linalg.norm(end - start) / step_mm), 2))[:, None]
    return start + t * (end - start) + 4 * t * (1 - t) * np.asarray(sag_mm, float)
