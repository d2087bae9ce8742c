"""What lies in the scanner: which tissue fills each voxel, and how much of it, on one grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labkit.phantoms.synthesis import regrid

VOLUME_MM = (160, 192, 192)  # of S, H, W, on every grid
GROWN_MM = 2.0  # patients are drawn and grown on this grid only, and scanned on any


@dataclass(frozen=True)
class Body:
    """One patient on one grid, each array (S, H, W)."""

    spacing_mm: float
    fractions: dict[str, np.ndarray]  # per name in mri_signal.TISSUES, float32; in sum 1 in the brain, else 0
    detail: np.ndarray  # float32: what the template's T1 shows beyond the fractions of healthy tissue
    diseased: np.ndarray  # bool: where tissue is as uneven as tumour
    label: np.ndarray  # uint8: 0, 1, 2, 4


def cover(fractions: dict[str, np.ndarray], name: str, amount: np.ndarray) -> None:
    """Replace `amount` (S, H, W, 0 to 1) of whatever a voxel holds by one more tissue, in place."""
    for other in fractions:
        fractions[other] = fractions[other] * (1 - amount)
    fractions[name] = fractions.get(name, 0) + amount


def on_grid(body: Body, spacing_mm: float) -> Body:
    """The same patient on another grid: mixed voxels hold the mean of their parts, labels the majority."""
    if spacing_mm == body.spacing_mm:
        return body
    shape = tuple(round(extent / spacing_mm) for extent in VOLUME_MM)

    def moved(values: np.ndarray) -> np.ndarray:
        return regrid(values.astype(np.float32), body.spacing_mm, shape, spacing_mm)

    diseased = moved(body.label > 0) > 0.5
    values = np.flatnonzero(np.bincount(body.label.ravel()))[1:].astype(np.uint8)  # 0 is always there
    winner = np.argmax([moved(body.label == value) for value in values], axis=0)
    return Body(
        spacing_mm,
        {name: moved(fraction) for name, fraction in body.fractions.items()},
        moved(body.detail),
        diseased,
        np.where(diseased, values[winner], 0).astype(np.uint8),
    )
