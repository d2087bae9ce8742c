"""CT numbers: what tissues measure in HU in the nephrographic phase, and the window a network is shown.

Middle and half width of the range over patients. Values with a source:

* fat -115 to -90, gas -1000, water 0: the definition of the scale and textbooks of CT.
* renal tumours in the nephrographic phase: homogeneous papillary ones 18 to 91 HU (Corwin et al., 2018, AJR
  211:1259), clear cell carcinomas brighter. Ours take both.
* cysts -9 to 20 HU (Bosniak classification, version 2019: Silverman et al., Radiology 292:475).

The others are rounded values as one finds them in portal-venous scans, chosen by eye.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

AIR, GAS = -1000.0, -930.0

# name: (middle, half width over patients), HU
TISSUES = {
    "fat": (-102, 8),
    "muscle": (62, 8),
    "marrow": (190, 50),
    "compact bone": (520, 80),
    "rib": (380, 60),
    "disc": (85, 12),
    "spinal canal": (28, 6),
    "liver": (108, 14),
    "liver veins": (155, 15),
    "bile": (8, 6),
    "spleen": (122, 12),
    "pancreas": (92, 12),
    "aorta": (158, 22),
    "vena cava": (148, 22),
    "bowel wall": (88, 14),
    "bowel fluid": (22, 12),
    "stool": (30, 20),
    "cortex": (188, 20),
    "medulla": (165, 25),
    "urine": (6, 5),
    "excreted contrast": (420, 120),
    "cyst": (7, 9),
    "tumour": (84, 32),
    "necrosis": (24, 8),
}

# What readers of CT and kidney_patient keep. The upper end is that of nnU-Net's entry to KiTS19, the 99.5th
# percentile in kidneys and tumours (Isensee & Maier-Hein, 2019, arXiv:1908.02182); its lower end, -79, would
# turn fat into air, ours keeps the two apart.
WINDOW_HU = (-160.0, 304.0)
HIGHEST_MINIMUM_HU = -100  # air and fat measure less


def measured(rng: np.random.Generator) -> dict[str, float]:
    """The CT number of every tissue in one patient."""
    return {name: middle + rng.uniform(-half, half) for name, (middle, half) in TISSUES.items()}


def window(image: np.ndarray, window_hu: tuple[float, float] | None) -> np.ndarray:
    """HU outside the window become its ends: air around the patient is then one value. None keeps all.

    ValueError: ends that are no two finite numbers in order.
    """
    if window_hu is None:
        return image
    ends = np.asarray(window_hu, dtype=float)
    if ends.shape != (2,) or not np.isfinite(ends).all() or ends[0] >= ends[1]:
        raise ValueError(
            f"window_hu must be the lowest and the highest HU to keep, such as {WINDOW_HU}, or None, "
            f"not {window_hu!r}"
        )
    return np.clip(image, *ends).astype(image.dtype)


def in_hu(voxels: np.ndarray, path: Path) -> np.ndarray:
    """The voxels of a file. ValueError: they cannot be HU."""
    lowest = voxels.min()
    if lowest > HIGHEST_MINIMUM_HU:
        raise ValueError(
            f"{path}: the lowest value is {lowest:g}, but in HU air is about -1000; were the values "
            "shifted or scaled?"
        )
    return voxels
