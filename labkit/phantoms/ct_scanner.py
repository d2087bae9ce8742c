"""The CT scanner: blur, uneven tissue and noise of which neighbouring voxels know each other's."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from labkit.phantoms.synthesis import regrid, smooth_field

BLUR_MM, GRAIN_MM = 1.1, 1.6  # of the image, of the noise: soft-tissue kernels
NOISE_HU = (9, 17)  # spread in the middle of the body, over patients
OUTSIDE = 0.35  # of the noise, far from the middle, where rays cross less tissue
TEXTURE_HU, TEXTURE_MM = 4.0, 6.0
LOWEST, HIGHEST = -1024, 3071  # what twelve bits hold


def acquire(rng: np.random.Generator, hu: np.ndarray, spacing_mm: float) -> np.ndarray:
    """Noise, blur and rounding over a body (S, H, W) in HU: (S, H, W) int16.

    What is drawn does not depend on the body, and slices are blurred in-plane only: where two bodies have a
    slice in common, their images have.
    """
    texture = TEXTURE_HU * smooth_field(rng, hu.shape, spacing_mm, TEXTURE_MM)
    blurred = ndimage.gaussian_filter(hu, (0, BLUR_MM / spacing_mm, BLUR_MM / spacing_mm))
    blurred += np.where(blurred > -300, texture, 0)
    image = blurred + noise(rng, hu.shape, spacing_mm)
    return np.clip(np.rint(image), LOWEST, HIGHEST).astype(np.int16)


def noise(rng: np.random.Generator, shape: tuple, spacing_mm: float) -> np.ndarray:
    """Correlated Gaussian noise (S, H, W) in HU, strongest along the middle."""
    grain = rng.standard_normal(shape, dtype=np.float32)
    grain = ndimage.gaussian_filter(grain, (0, GRAIN_MM / spacing_mm, GRAIN_MM / spacing_mm))
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape[1:])
    strength = OUTSIDE + (1 - OUTSIDE) * np.exp(-2 * (y[:, None] ** 2 + x**2))
    return grain / grain.std() * strength * np.float32(rng.uniform(*NOISE_HU))


def on_grid(volume: np.ndarray, from_mm: float, shape: tuple, to_mm: float) -> np.ndarray:
    """The body on another grid: a voxel measures the mean of what lies in it."""
    return volume if from_mm == to_mm else regrid(volume, from_mm, shape, to_mm)
