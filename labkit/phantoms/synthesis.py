"""Pieces of a digital patient that know no organ: random fields, warps, growth, tubes, scanner artefacts.

All take a numpy Generator and work in millimetres, so that a seed gives the same patient on a fine and on a
coarse grid. Nothing here depends on the number of threads: the same seed gives the same bits.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

Shape = tuple[int, int, int]


def grid_mm(shape: Shape, spacing_mm: float) -> np.ndarray:
    """Positions of the voxel centres in mm from the centre of the volume, (3, D, H, W) float32."""
    axes = [(np.arange(n, dtype=np.float32) - (n - 1) / 2) * np.float32(spacing_mm) for n in shape]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def smooth_field(rng: np.random.Generator, shape: Shape, spacing_mm: float, scale_mm: float) -> np.ndarray:
    """Random field (D, H, W) float32 of zero mean and unit variance that varies over about scale_mm.

    A cubic B-spline with white-noise coefficients on a lattice of step scale_mm.
    """
    weights = [_spline_weights(n * spacing_mm, n, scale_mm) for n in shape]
    field = rng.standard_normal([w.shape[1] for w in weights], dtype=np.float32)
    for w in weights:  # each pass contracts the first axis and appends its fine version as the last
        field = np.einsum("ijk,ni->jkn", field, w)
    return np.ascontiguousarray(field) / np.float32(
        0.479**1.5
    )  # 0.479: mean of sum_i B_i(x)^2 in one dimension


def _spline_weights(extent_mm: float, n: int, scale_mm: float) -> np.ndarray:
    """Cubic B-spline weights (n, lattice points) of n voxel centres along an axis of extent_mm."""
    position = (np.arange(n) + 0.5) * extent_mm / n / scale_mm + 1
    lattice = np.arange(int(np.ceil(extent_mm / scale_mm)) + 3)
    distance = np.abs(position[:, None] - lattice)
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


def random_affine(
    rng: np.random.Generator, size: tuple[float, float], angle_degrees: float, shear: float
) -> np.ndarray:
    """Random 3 x 3 matrix: sizes from size[0] to size[1], rotations and shears of these spreads."""
    matrix = np.diag(rng.uniform(*size, 3))
    matrix += np.triu(rng.normal(0, shear, (3, 3)), 1)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        angle = np.deg2rad(rng.normal(0, angle_degrees))
        turn = np.eye(3)
        turn[[i, j], [i, j]] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix.astype(np.float32)


def smooth_warp(
    rng: np.random.Generator, shape: Shape, spacing_mm: float, spread_mm: dict[float, float]
) -> np.ndarray:
    """Smooth random displacement in mm, (3, D, H, W): one field per scale_mm: spread_mm, summed."""
    return np.stack(
        [
            sum(spread * smooth_field(rng, shape, spacing_mm, scale) for scale, spread in spread_mm.items())
            for _ in range(3)
        ]
    )


def pressure_warp(source: np.ndarray, spacing_mm: float, reach_mm: float) -> np.ndarray:
    """Displacement (3, D, H, W) away from a mass, longest vector 1: downhill on the blurred source."""
    blurred = ndimage.gaussian_filter(source.astype(np.float32), reach_mm / spacing_mm, truncate=3)
    push = -np.stack(np.gradient(blurred))
    return push / max(float(np.sqrt((push**2).sum(0).max())), 1e-12)


def sample(volume: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Values of volume at position (3, N) in voxels, linear, 0 outside."""
    return ndimage.map_coordinates(volume, position, output=np.float32, order=1, mode="constant")


def spread(mobility: np.ndarray, start: np.ndarray, spacing_mm: float, volume_mm3: float) -> np.ndarray:
    """How early an invading population reached each voxel, (D, H, W): the largest values came first.

    Fisher's equation du/dt = div(D grad u) + rho u (1 - u), which models glioma growth (Swanson et al., Cell
    Proliferation 33:317, 2000; Clatz et al., IEEE Trans. Med. Imaging 24:1334, 2005), integrated over time
    until u > 1/2 in volume_mm3 (or nothing moves any more). mobility (3, D, H, W) in [0, 1] is D along each
    axis, relative; 0 is a wall.
    """
    step = 0.14  # D dt / h^2; an explicit scheme in 3-D is stable below 1/6
    rate = step * (spacing_mm / 3.0) ** 2  # rho dt; the front is sqrt(D / rho) = 3 mm wide
    faces = [step * np.minimum(*_neighbours(mobility[axis], axis)) for axis in range(3)]
    birth = rate * mobility.max(0)
    u = start.astype(np.float32)
    change, history = np.empty_like(u), np.zeros_like(u)
    flows = [
        (face, *_neighbours(u, axis), *_neighbours(change, axis)) for axis, face in enumerate(faces)
    ]  # views
    for count in range(int(1500 / spacing_mm)):
        change[:] = birth * u * (1 - u)
        for face, low, high, into_low, into_high in flows:
            flux = face * (high - low)
            into_low += flux
            into_high -= flux
        u += change
        history += u
        if count % 8 == 0 and (u > 0.5).sum() * spacing_mm**3 > volume_mm3:
            break
    return history


def _neighbours(a: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Views of a: all but the last, and all but the first, along one axis."""
    a = np.moveaxis(a, axis, 0)
    return np.moveaxis(a[:-1], 0, axis), np.moveaxis(a[1:], 0, axis)


def largest(values: np.ndarray, count: int) -> np.ndarray:
    """Mask of the `count` largest positive values."""
    count = min(max(count, 1), values.size)
    threshold = np.partition(values, -count, axis=None)[-count]
    return (values >= threshold) & (values > 0)


def wandering_path(
    rng: np.random.Generator, start_mm: np.ndarray, direction: np.ndarray, length_mm: float
) -> np.ndarray:
    """Points (N, 3) in mm every millimetre along a smooth random curve."""
    points, bend = [np.asarray(start_mm, float)], np.zeros(3)
    for _ in range(int(length_mm)):
        bend = 0.85 * bend + rng.normal(0, 0.12, 3)
        heading = direction + bend
        points.append(points[-1] + heading / np.linalg.norm(heading))
    return np.array(points)


def paint_balls(volume: np.ndarray, points_mm: np.ndarray, radius_mm: np.ndarray, spacing_mm: float) -> None:
    """Raise volume (D, H, W) of numbers from 0 in place to 1 inside soft-edged balls; along a path they make
    a tube."""
    points = points_mm / spacing_mm + (np.array(volume.shape) - 1) / 2
    radii = np.asarray(radius_mm)[:, None] / spacing_mm
    lowest = np.maximum(np.ceil(points - radii - 1).astype(int), 0)
    highest = np.minimum(np.floor(points + radii + 1).astype(int) + 1, volume.shape)
    for point, (radius,), low, high in zip(points, radii, lowest, highest, strict=True):
        if (low >= high).any():
            continue
        z, y, x = ((np.arange(a, b) - p) ** 2 for a, b, p in zip(low, high, point, strict=True))
        inward = z[:, None, None] + y[:, None] + x
        np.sqrt(inward, out=inward)
        np.subtract(radius + 0.5, inward, out=inward)
        box = volume[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
        np.maximum(box, np.minimum(inward, 1).astype(volume.dtype), out=box)


def bias_field(rng: np.random.Generator, shape: Shape, spacing_mm: float, spread: float) -> np.ndarray:
    """Smooth multiplicative shading of a receive coil, (D, H, W), around 1."""
    return np.exp(np.float32(spread) * smooth_field(rng, shape, spacing_mm, 80.0))


def rician(rng: np.random.Generator, signal: np.ndarray, noise: float) -> np.ndarray:
    """Magnitude of a complex signal with noise in both parts (Gudbjartsson & Patz, MRM 34:910, 1995)."""
    real = signal + np.float32(noise) * rng.standard_normal(signal.shape, dtype=np.float32)
    imaginary = np.float32(noise) * rng.standard_normal(signal.shape, dtype=np.float32)
    return np.sqrt(real**2 + imaginary**2)


def regrid(volume: np.ndarray, from_mm: float, shape: Shape, to_mm: float) -> np.ndarray:
    """The volume on another grid with the same centre: linear, blurred before where that is coarser."""
    step = to_mm / from_mm
    sigma = max(step - 1, 0) / 2  # a coarse voxel averages the fine ones in it
    blurred = ndimage.gaussian_filter(volume, sigma) if sigma else volume
    offset = [(n - 1) / 2 - step * (m - 1) / 2 for n, m in zip(volume.shape, shape, strict=True)]
    return ndimage.affine_transform(blurred, [step] * 3, offset, shape, order=1)
