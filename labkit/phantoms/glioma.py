"""A glioma, grown: a core in the white matter, oedema along its tracts, an enhancing rim, necrosis.

Growth is Fisher's equation (see synthesis.spread): diffusion that is faster in white matter than in grey
(Swanson et al., Cell Proliferation 33:317, 2000), and none through fluid. Numbers without a source were set
by eye or by the resulting volumes: whole tumours of 20 to 200 ml.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from labkit.phantoms import synthesis
from labkit.phantoms.body import GROWN_MM
from labkit.phantoms.healthy_brain import Anatomy
from labkit.phantoms.synthesis import largest, smooth_field, spread

# Where it starts: in the white matter of the cerebrum
SOIL_WHITE, SOIL_DEPTH_MM, SOIL_OFF_MIDLINE_MM = 0.8, 12, 12
CEREBRUM_ABOVE_MM = 12  # from the template's centre; all of it is cerebrum here
TEMPORAL_ABOVE_MM, TEMPORAL_BEFORE_MM, TEMPORAL_BESIDE_MM = -12, 20, 24  # lower down, only the temporal lobes

# The core
CORE_ML = (9, 65)  # log-uniform
FOCI = {1: 0.78, 2: 0.16, 3: 0.06}  # probability of so many
FOCI_APART_MM = (28, 45)
LATER_FOCI = (0.05, 0.5)  # cells at their start, of the first's: the fewer, the smaller they stay
START_RADIUS_MM = 1.5 * GROWN_MM
CORE_HALF_BOX_MM = 56  # growth is computed in this box only
CORE_MOBILITY, CORE_EASE_IN_GREY = 0.5, 0.5  # of the fastest diffusion; of that in white matter
CORE_ROUGHNESS, CORE_ROUGHNESS_MM = 0.7, 11.0  # log of mobility, and over what distance it varies
CORE_SMOOTHED_MM = 1.2

# The oedema
WHOLE_OF_CORE = (1.8, 5.0)  # volume of the whole tumour by that of its core, log-uniform
OEDEMA_AT_LEAST_ML, WHOLE_AT_MOST_ML = 15, 190
OEDEMA_HALF_BOX_MM = 64
OEDEMA_MOBILITY, OEDEMA_EASE_IN_GREY = 0.6, 0.06  # it spares the cortex
OEDEMA_ROUGHNESS, OEDEMA_ROUGHNESS_MM = 0.6, 14.0
OEDEMA_SMOOTHED_MM = 0.8
EDGE_DENSITY, FULL_DENSITY_MM = 0.5, 10  # at the outer border; this far inside it is full
PATCHINESS, PATCHINESS_MM, LEAST_DENSITY = 0.25, 9.0, 0.25
DENSITY_BLURRED_MM = 0.7

# Walls
FALX_HALF_MM, FALX_WHITE, FALX_LEAK = 2.5, 0.6, 0.02  # the midline, but where white matter crosses it

# Inside the core
RIM_MM, RIM_UNEVEN, RIM_UNEVEN_MM = (3.0, 6.5), 0.55, 13.0
SILENT = 1 / 7  # share of patients without enhancement
NECROSIS_MM = 16.0  # scale of the field whose upper part is necrotic:
NECROTIC_ABOVE = {"enhancing": -0.9, "silent": 0.9}  # 82 % and 18 % of the rest of the core
TISSUE_BLURRED_MM = 0.9  # no sharp edge between tissues


@dataclass(frozen=True)
class Tumour:
    """A grown glioma: masks (S, H, W) and how dense its oedema is."""

    core: np.ndarray
    enhancing: np.ndarray
    whole: np.ndarray
    oedema: np.ndarray  # float32 in [0, 1]


def label_of(tumour: Tumour) -> np.ndarray:
    """BraTS labels (S, H, W) uint8: 1 necrotic and non-enhancing core, 2 oedema, 4 enhancing tumour."""
    label = np.where(tumour.whole, 2, 0).astype(np.uint8)
    label[tumour.core] = 1
    label[tumour.enhancing] = 4
    return label


def grow_core(rng: np.random.Generator, anatomy: Anatomy) -> np.ndarray:
    """Mask of the tumour core: one focus in the white matter, in some patients two or three."""
    roughness = rough(rng, anatomy, CORE_ROUGHNESS, CORE_ROUGHNESS_MM)
    volume_mm3 = 1000 * np.exp(rng.uniform(*np.log(CORE_ML)))
    foci = rng.choice(list(FOCI), p=list(FOCI.values()))
    soil = np.argwhere(can_start(anatomy))
    first = soil[rng.integers(len(soil))]
    seeds = [first]
    for _ in range(foci - 1):
        away_mm = np.linalg.norm((soil - first) * GROWN_MM, axis=1)
        near = soil[(away_mm > FOCI_APART_MM[0]) & (away_mm < FOCI_APART_MM[1])]
        if len(near):
            seeds.append(near[rng.integers(len(near))])
    box = box_around(first, anatomy, CORE_HALF_BOX_MM)
    start = np.zeros(anatomy.mask.shape, np.float32)
    centre = (np.array(start.shape) - 1) / 2
    for i, seed in enumerate(seeds):
        ball = np.zeros_like(start)
        synthesis.paint_balls(ball, (seed - centre)[None] * GROWN_MM, np.array([START_RADIUS_MM]), GROWN_MM)
        start = np.maximum(start, ball * (1.0 if i == 0 else rng.uniform(*LATER_FOCI)))
    ease = (anatomy.white + CORE_EASE_IN_GREY * anatomy.grey) * wall(anatomy)
    mobility = np.stack([np.clip(CORE_MOBILITY * ease * factor, 0, 1)[box] for factor in roughness])
    history = spread(mobility, start[box], GROWN_MM, volume_mm3)
    history = ndimage.gaussian_filter(history, CORE_SMOOTHED_MM / GROWN_MM)
    core = np.zeros(anatomy.mask.shape, bool)
    core[box] = ndimage.binary_fill_holes(largest(history, round(volume_mm3 / GROWN_MM**3)))
    return core & anatomy.mask


def can_start(anatomy: Anatomy) -> np.ndarray:
    """Where a focus may start, bool (S, H, W)."""
    z, y, x = anatomy.template_mm
    beside = np.abs(x)
    temporal = (z > TEMPORAL_ABOVE_MM) & (y < TEMPORAL_BEFORE_MM) & (beside > TEMPORAL_BESIDE_MM)
    cerebrum = (z > CEREBRUM_ABOVE_MM) | temporal
    deep_white = (anatomy.white > SOIL_WHITE) & (anatomy.depth_mm > SOIL_DEPTH_MM)
    return deep_white & cerebrum & (beside > SOIL_OFF_MIDLINE_MM)


def rough(rng: np.random.Generator, anatomy: Anatomy, amount: float, scale_mm: float) -> list[np.ndarray]:
    """Random factors of the mobility along each axis, so that no tumour is a ball."""
    shape = anatomy.mask.shape
    return [np.exp(amount * smooth_field(rng, shape, GROWN_MM, scale_mm)) for _ in range(3)]


def grow_rest(rng: np.random.Generator, anatomy: Anatomy, core: np.ndarray) -> Tumour:
    """Oedema along the white matter around the core, and the enhancing part of the core."""
    middle = np.round(np.argwhere(core).mean(0)).astype(int)
    box = box_around(middle, anatomy, OEDEMA_HALF_BOX_MM)
    roughness = rough(rng, anatomy, OEDEMA_ROUGHNESS, OEDEMA_ROUGHNESS_MM)
    ease = (anatomy.white**2 + OEDEMA_EASE_IN_GREY * anatomy.grey) * wall(anatomy)
    mobility = np.stack([np.clip(OEDEMA_MOBILITY * ease * factor, 0, 1)[box] for factor in roughness])
    core_mm3 = core.sum() * GROWN_MM**3
    volume_mm3 = core_mm3 * np.exp(rng.uniform(*np.log(WHOLE_OF_CORE)))
    volume_mm3 = min(max(volume_mm3, core_mm3 + 1000 * OEDEMA_AT_LEAST_ML), 1000 * WHOLE_AT_MOST_ML)
    history = spread(mobility, core[box], GROWN_MM, volume_mm3)
    history = ndimage.gaussian_filter(history, OEDEMA_SMOOTHED_MM / GROWN_MM)
    history = history * (anatomy.csf[box] < 0.5) * anatomy.mask[box]
    whole = core.copy()
    whole[box] |= largest(history, round(volume_mm3 / GROWN_MM**3))
    whole = parts_touching(whole, core)
    oedema = np.zeros(core.shape, np.float32)
    inward_mm = ndimage.distance_transform_edt(whole[box]) * GROWN_MM
    density = EDGE_DENSITY + (1 - EDGE_DENSITY) * np.clip(inward_mm / FULL_DENSITY_MM, 0, 1)
    patchy = 1 + PATCHINESS * smooth_field(rng, core.shape, GROWN_MM, PATCHINESS_MM)[box]
    oedema[box] = np.clip(patchy * density, LEAST_DENSITY, 1) * whole[box]
    oedema = ndimage.gaussian_filter(oedema, DENSITY_BLURRED_MM / GROWN_MM) * anatomy.mask
    return Tumour(core, enhancing_rim(rng, core), whole, oedema)


def parts_touching(whole: np.ndarray, core: np.ndarray) -> np.ndarray:
    """Only those connected parts of whole that touch the core."""
    parts, _ = ndimage.label(whole)
    return np.isin(parts, np.unique(parts[core])) & whole


def enhancing_rim(rng: np.random.Generator, core: np.ndarray) -> np.ndarray:
    """The core's enhancing shell: uneven, broken in places, solid in small foci; absent in one of seven."""
    depth_mm = ndimage.distance_transform_edt(core) * GROWN_MM
    uneven = smooth_field(rng, core.shape, GROWN_MM, RIM_UNEVEN_MM)
    thickness_mm = rng.uniform(*RIM_MM) * (1 + RIM_UNEVEN * uneven)
    enhances = rng.uniform() > SILENT
    return core & (depth_mm <= thickness_mm) & enhances


def core_tissues(rng: np.random.Generator, tumour: Tumour, anatomy: Anatomy) -> dict[str, np.ndarray]:
    """Amounts of the core's tissues: solid tumour without enhancement, necrosis, enhancing tumour."""
    rest = tumour.core & ~tumour.enhancing
    above = NECROTIC_ABOVE["enhancing" if tumour.enhancing.any() else "silent"]
    necrotic = smooth_field(rng, rest.shape, GROWN_MM, NECROSIS_MM) > above
    masks = {"solid": rest & ~necrotic, "necrosis": rest & necrotic, "enhancing": tumour.enhancing}
    sigma = TISSUE_BLURRED_MM / GROWN_MM
    return {
        name: ndimage.gaussian_filter(mask.astype(np.float32), sigma) * anatomy.mask
        for name, mask in masks.items()
    }


def wall(anatomy: Anatomy) -> np.ndarray:
    """How freely cells pass, (S, H, W) in [0, 1]: not through CSF; over the midline in white matter only."""
    falx = (np.abs(anatomy.template_mm[2]) < FALX_HALF_MM) & (anatomy.white < FALX_WHITE)
    return np.where(falx, FALX_LEAK, (1 - anatomy.csf) ** 2 * anatomy.mask).astype(np.float32)


def box_around(voxel: np.ndarray, anatomy: Anatomy, half_mm: float) -> tuple[slice, ...]:
    """Slices of the part of the grid within half_mm of a voxel."""
    half = round(half_mm / GROWN_MM)
    return tuple(
        slice(max(v - half, 0), min(v + half, n))
        for v, n in zip(voxel.tolist(), anatomy.mask.shape, strict=True)
    )
