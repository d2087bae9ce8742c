"""Digital patients with a glioma in four MRI contrasts: synthetic, made on the spot, no real patient.

Real average anatomy (the ICBM152 maps that the package nilearn ships; Fonov et al., NeuroImage 54:313, 2011)
is deformed per patient, a tumour is grown in its white matter and pushes it aside, and signal equations turn
tissue into T1, T1ce, T2 and FLAIR (see mri_signal.py). The labels are those of BraTS 2019 and 2020: 1
necrotic and non-enhancing core, 2 oedema, 4 enhancing tumour. Not labelled, but there to be mistaken for
tumour: veins, which take up contrast agent and are dots in one slice but tubes across slices, and
white-matter hyperintensities.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from labkit.data import mri_signal, synthesis
from labkit.data.cache import cached, fingerprint
from labkit.data.case import Case
from labkit.data.mri_signal import CHANNELS, TISSUES, Tissue, four_contrasts
from labkit.data.synthesis import largest, sample, smooth_field, spread

VOLUME_MM = (160, 192, 192)  # of S, H, W
LABEL_NAMES = {1: "necrotic and non-enhancing core", 2: "oedema", 4: "enhancing tumour"}
SPLITS = {"train": tuple(range(40)), "validation": tuple(range(40, 50)), "test": tuple(range(50, 70))}


def split(name: str) -> tuple[int, ...]:
    """Seeds of the fixed patients of one split: 40 in "train", 10 in "validation", 20 in "test"."""
    if name not in SPLITS:
        raise ValueError(f"there is no split {name!r}; choose one of {', '.join(SPLITS)}")
    return SPLITS[name]


def brain_patients(name: str, n: int | None = None, spacing_mm: float = 2.0) -> list[Case]:
    """The first n synthetic patients (default: all) of one split."""
    return [brain_patient(seed, spacing_mm) for seed in split(name)[:n]]


def brain_patient(seed: int, spacing_mm: float = 2.0) -> Case:
    """One synthetic patient with a glioma; the same seed gives the same bits, from the cache or made again.

    At 2 mm the image is (4, 80, 96, 96) float32 in arbitrary scanner units, 0 outside the brain, and the
    label (80, 96, 96) uint8. Another spacing (1 to 4 mm) samples a very similar patient on another grid.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(
            f"a patient's seed is a whole number from 0 upwards, not {seed!r}; for example brain_patient(7)"
        )
    if not 1 <= spacing_mm <= 4:
        raise ValueError(f"spacing_mm must lie between 1 and 4, not {spacing_mm!r}; the labs use 2")
    arrays = cached(
        f"brain-{_version()}/{int(seed):04d}-{spacing_mm:g}mm",
        lambda: dict(zip(("image", "label"), make_patient(int(seed), float(spacing_mm)), strict=True)),
    )
    return Case(
        name=f"brain-{int(seed):04d} (synthetic)",
        image=arrays["image"].astype(np.float32),
        label=arrays["label"],
        spacing_mm=(float(spacing_mm),) * 3,
        channels=CHANNELS,
        label_names=dict(LABEL_NAMES),
        synthetic=True,
    )


@lru_cache(maxsize=1)
def _version() -> str:
    return fingerprint(sys.modules[__name__], mri_signal, synthesis, packages=("numpy", "scipy", "nilearn"))


@dataclass(frozen=True)
class Anatomy:
    """One patient's tissue fractions, each (D, H, W) float32, and the way back to the template."""

    spacing_mm: float
    position: np.ndarray  # (3, D, H, W), voxels of the template
    mask: np.ndarray  # bool
    white: np.ndarray
    grey: np.ndarray
    csf: np.ndarray
    depth_mm: np.ndarray  # below the brain's surface
    detail: np.ndarray  # what the template's T1 shows beyond the three fractions


@dataclass(frozen=True)
class Tumour:
    """A grown glioma: masks (D, H, W) and how dense its oedema is."""

    core: np.ndarray
    enhancing: np.ndarray
    whole: np.ndarray
    oedema: np.ndarray  # float32 in [0, 1]


def make_patient(seed: int, spacing_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Image (4, D, H, W) uint16 and label (D, H, W) uint8 of one synthetic patient, without the cache."""
    fractions, detail, label = make_tissue(seed, spacing_mm)
    scanner = np.random.default_rng([seed, 1])
    return acquire(scanner, fractions, detail, label > 0, spacing_mm), label


def make_tissue(seed: int, spacing_mm: float) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Fractions per name in TISSUES (in sum 1), detail of healthy tissue, label; each (D, H, W)."""
    body, growth, distractors = np.random.default_rng([seed, 0]).spawn(3)
    age = body.uniform()
    healthy = deform(body, spacing_mm, age)
    core = grow_core(growth, healthy)
    anatomy = displace(growth, healthy, core, age)
    tumour = grow_rest(growth, anatomy, core)

    label = np.where(tumour.whole, 2, 0).astype(np.uint8)
    label[tumour.core] = 1
    label[tumour.enhancing] = 4

    fractions = {"white": anatomy.white, "grey": anatomy.grey, "csf": anatomy.csf}
    cover(fractions, "lesion", hyperintensities(distractors, anatomy, age))
    cover(fractions, "oedema", tumour.oedema)
    for name, mask in core_tissues(growth, tumour, spacing_mm).items():
        cover(
            fractions, name, ndimage.gaussian_filter(mask.astype(np.float32), 0.9 / spacing_mm) * anatomy.mask
        )
    cover(fractions, "blood", veins(distractors, anatomy, tumour))
    return fractions, anatomy.detail * (label == 0), label


def cover(fractions: dict[str, np.ndarray], name: str, amount: np.ndarray) -> None:
    """Replace `amount` (D, H, W, 0 to 1) of whatever a voxel holds by one more tissue."""
    for other in fractions:
        fractions[other] = fractions[other] * (1 - amount)
    fractions[name] = fractions.get(name, 0) + amount


# Anatomy


@lru_cache(maxsize=1)
def template() -> dict[str, np.ndarray]:
    """ICBM152 at 1 mm in our orientation, centred: white, grey, mask, detail, depth_mm; (160, 192, 192)."""
    stored = cached(f"brain-{_version()}/template", _read_template)
    white, grey, t1 = (stored[name].astype(np.float32) / 255 for name in ("white", "grey", "t1"))
    depth_mm = stored["quarter_mm_deep"].astype(np.float32) / 4
    expected = 0.87 * white + 0.65 * grey + 0.27 * np.clip(1 - white - grey, 0, 1)
    detail = np.where(depth_mm > 2, t1 - expected, 0)  # the outermost voxels mix with the background
    return {
        "white": white,
        "grey": grey,
        "mask": (depth_mm > 0).astype(np.float32),
        "detail": detail.astype(np.float32),
        "depth_mm": depth_mm,
    }


def _read_template() -> dict[str, np.ndarray]:
    from nilearn import datasets

    loaders = {
        "t1": datasets.load_mni152_template,
        "grey": datasets.load_mni152_gm_template,
        "white": datasets.load_mni152_wm_template,
    }
    maps = {}
    for name, load in loaders.items():
        right_anterior_up = np.asarray(load(resolution=1).dataobj, dtype=np.float32)
        ours = right_anterior_up.transpose(2, 1, 0)[
            :, ::-1, ::-1
        ]  # (z up, y from anterior, x from the patient's right)
        ours = np.pad(ours, ((3, 0), (0, 0), (0, 0)))[:160, 22:214, 2:194]
        maps[name] = np.round(ours * 255).astype(np.uint8)
    depth_mm = ndimage.distance_transform_edt(maps["t1"] > 51)  # above a fifth: nilearn's own brain mask
    maps["quarter_mm_deep"] = np.clip(np.round(depth_mm * 4), 0, 255).astype(np.uint8)
    return maps


def deform(rng: np.random.Generator, spacing_mm: float, age: float) -> Anatomy:
    """The template with one patient's size, rotation, shear, smooth deformation and amount of CSF."""
    shape = tuple(round(extent / spacing_mm) for extent in VOLUME_MM)
    patient_to_template = np.linalg.inv(
        synthesis.random_affine(rng, (0.89, 0.97), angle_degrees=3, shear=0.02)
    )
    grid = synthesis.grid_mm(shape, spacing_mm)
    position = np.einsum("ij,jdhw->idhw", patient_to_template, grid)
    position += synthesis.smooth_warp(rng, shape, spacing_mm, {40.0: 2.5, 18.0: 1.0})
    position += ((np.array(VOLUME_MM, np.float32) - 1) / 2)[:, None, None, None]
    where = np.argwhere(sample(template()["mask"], position) > 0.5)
    middle_mm = ((where.min(0) + where.max(0)) / 2 - (np.array(shape) - 1) / 2) * spacing_mm
    position += (patient_to_template @ middle_mm).astype(np.float32)[
        :, None, None, None
    ]  # brings the brain to the centre
    folding = 0.5 * smooth_field(rng, shape, spacing_mm, 7.0)
    return look_up(position, spacing_mm, folding + 0.8 * age - 0.4)


def look_up(position: np.ndarray, spacing_mm: float, widening: np.ndarray) -> Anatomy:
    """Tissue at the template positions (3, D, H, W); widening (D, H, W) > 0 turns mixed voxels to CSF."""
    maps = template()
    mask = sample(maps["mask"], position) > 0.5
    values = {
        name: np.zeros(mask.shape, np.float32) for name in ("white", "grey", "csf", "detail", "depth_mm")
    }
    inside = position[:, mask]
    white, grey, detail, depth = (
        sample(maps[name], inside) for name in ("white", "grey", "detail", "depth_mm")
    )
    # An average of 152 brains is blurred: squares sharpen the borders, the widening makes sulci differ.
    parts = np.stack([white, grey, np.clip(1 - white - grey, 0, 1)]) ** 2
    parts[2] *= np.exp(widening[mask])
    parts /= parts.sum(0)
    for name, value in zip(values, (*parts, detail, depth), strict=True):
        values[name][mask] = value
    return Anatomy(spacing_mm, position, mask, **values)


def displace(rng: np.random.Generator, healthy: Anatomy, core: np.ndarray, age: float) -> Anatomy:
    """The same patient after the tumour's core has pushed tissue aside and age has widened the ventricles."""
    h = healthy.spacing_mm
    radius_mm = (core.sum() * h**3 * 3 / (4 * np.pi)) ** (1 / 3)
    mass_effect = rng.uniform(0.25, 0.5) * radius_mm * synthesis.pressure_warp(core, h, reach_mm=10)
    ventricles = (healthy.csf > 0.5) & (healthy.depth_mm > 20)
    widening = rng.uniform(-0.5, 2.0 + 2.0 * age) * synthesis.pressure_warp(ventricles, h, reach_mm=6)
    held = np.clip(healthy.depth_mm / 12, 0, 1)  # the skull does not move
    folding = 0.5 * smooth_field(rng, core.shape, h, 7.0)
    return look_up(healthy.position - held * (mass_effect + widening), h, folding + 0.8 * age - 0.4)


# Tumour


def grow_core(rng: np.random.Generator, anatomy: Anatomy) -> np.ndarray:
    """Mask of the tumour core: one focus in the white matter, in some patients two or three."""
    h = anatomy.spacing_mm
    roughness = [np.exp(0.7 * smooth_field(rng, anatomy.mask.shape, h, 11.0)) for _ in range(3)]
    volume_mm3 = 1000 * np.exp(rng.uniform(np.log(9), np.log(65)))
    foci = rng.choice([1, 2, 3], p=[0.78, 0.16, 0.06])
    z, y, x = anatomy.position - ((np.array(VOLUME_MM) - 1) / 2)[:, None, None, None]
    cerebrum = (z > 12) | ((z > -12) & (y < 20) & (np.abs(x) > 24))
    soil = np.argwhere((anatomy.white > 0.8) & cerebrum & (np.abs(x) > 12) & (anatomy.depth_mm > 12))
    first = soil[rng.integers(len(soil))]
    seeds = [first]
    for _ in range(foci - 1):
        away_mm = np.linalg.norm((soil - first) * h, axis=1)
        near = soil[(away_mm > 28) & (away_mm < 45)]
        if len(near):
            seeds.append(near[rng.integers(len(near))])
    box = box_around(first, anatomy, half_mm=56)
    start = np.zeros(anatomy.mask.shape, np.float32)
    centre = (np.array(start.shape) - 1) / 2
    for i, seed in enumerate(seeds):
        ball = np.zeros_like(start)
        synthesis.paint_balls(ball, (seed - centre)[None] * h, np.array([1.5 * h]), h)
        start = np.maximum(start, ball * (1.0 if i == 0 else rng.uniform(0.05, 0.5)))
    ease = (anatomy.white + 0.5 * anatomy.grey) * wall(anatomy)
    mobility = np.stack([np.clip(0.5 * ease * rough, 0, 1)[box] for rough in roughness])
    history = spread(mobility, start[box], h, volume_mm3)
    core = np.zeros(anatomy.mask.shape, bool)
    core[box] = ndimage.binary_fill_holes(
        largest(ndimage.gaussian_filter(history, 1.2 / h), round(volume_mm3 / h**3))
    )
    return core & anatomy.mask


def grow_rest(rng: np.random.Generator, anatomy: Anatomy, core: np.ndarray) -> Tumour:
    """Oedema along the white matter around the core, and the enhancing part of the core."""
    h = anatomy.spacing_mm
    middle = np.round(np.argwhere(core).mean(0)).astype(int)
    box = box_around(middle, anatomy, half_mm=64)
    roughness = [np.exp(0.6 * smooth_field(rng, core.shape, h, 14.0)) for _ in range(3)]
    ease = (anatomy.white**2 + 0.06 * anatomy.grey) * wall(anatomy)
    mobility = np.stack([np.clip(0.6 * ease * rough, 0, 1)[box] for rough in roughness])
    core_mm3 = core.sum() * h**3
    volume_mm3 = max(core_mm3 * np.exp(rng.uniform(np.log(1.8), np.log(5.0))), core_mm3 + 15_000)
    history = spread(mobility, core[box], h, min(volume_mm3, 190_000))
    history = ndimage.gaussian_filter(history, 0.8 / h) * (anatomy.csf[box] < 0.5) * anatomy.mask[box]
    reached = largest(history, round(min(volume_mm3, 190_000) / h**3))
    whole, oedema = core.copy(), np.zeros(core.shape, np.float32)
    whole[box] |= reached
    whole = parts_touching(whole, core)
    inward_mm = ndimage.distance_transform_edt(whole[box]) * h
    patchy = 1 + 0.25 * smooth_field(rng, core.shape, h, 9.0)[box]
    oedema[box] = np.clip(patchy * (0.5 + 0.5 * np.clip(inward_mm / 10, 0, 1)), 0.25, 1) * whole[box]
    return Tumour(
        core, enhancing_rim(rng, core, h), whole, ndimage.gaussian_filter(oedema, 0.7 / h) * anatomy.mask
    )


def parts_touching(whole: np.ndarray, core: np.ndarray) -> np.ndarray:
    """Only those connected parts of whole that touch the core."""
    parts, _ = ndimage.label(whole)
    return np.isin(parts, np.unique(parts[core])) & whole


def enhancing_rim(rng: np.random.Generator, core: np.ndarray, spacing_mm: float) -> np.ndarray:
    """The core's enhancing shell: uneven, broken in places, solid in small foci; absent in one of seven."""
    depth_mm = ndimage.distance_transform_edt(core) * spacing_mm
    uneven = smooth_field(rng, core.shape, spacing_mm, 13.0)
    thickness_mm = rng.uniform(3.0, 6.5) * (1 + 0.55 * uneven)
    enhances = rng.uniform() > 1 / 7
    return core & (depth_mm <= thickness_mm) & enhances


def core_tissues(rng: np.random.Generator, tumour: Tumour, spacing_mm: float) -> dict[str, np.ndarray]:
    """Masks of the core's tissues: solid tumour without enhancement, necrosis, enhancing tumour."""
    rest = tumour.core & ~tumour.enhancing
    necrotic = smooth_field(rng, rest.shape, spacing_mm, 16.0) > (-0.9 if tumour.enhancing.any() else 0.9)
    return {"solid": rest & ~necrotic, "necrosis": rest & necrotic, "enhancing": tumour.enhancing}


def wall(anatomy: Anatomy) -> np.ndarray:
    """How freely cells pass, (D, H, W) in [0, 1]: not through CSF; over the midline in white matter only."""
    x_mm = anatomy.position[2] - (VOLUME_MM[2] - 1) / 2
    falx = (np.abs(x_mm) < 2.5) & (anatomy.white < 0.6)
    return np.where(falx, 0.02, (1 - anatomy.csf) ** 2 * anatomy.mask).astype(np.float32)


def box_around(voxel: np.ndarray, anatomy: Anatomy, half_mm: float) -> tuple[slice, ...]:
    """Slices of the part of the grid within half_mm of a voxel."""
    half = round(half_mm / anatomy.spacing_mm)
    return tuple(
        slice(max(v - half, 0), min(v + half, n))
        for v, n in zip(voxel.tolist(), anatomy.mask.shape, strict=True)
    )


# What can be mistaken for tumour


def hyperintensities(rng: np.random.Generator, anatomy: Anatomy, age: float) -> np.ndarray:
    """Fraction (D, H, W) of white-matter lesion: caps along the ventricles and spots, more with age."""
    h, shape = anatomy.spacing_mm, anatomy.mask.shape
    ventricles = (anatomy.csf > 0.5) & (anatomy.depth_mm > 20)
    near = ndimage.gaussian_filter(ventricles.astype(np.float32), 4 / h)
    caps = np.clip(6 * near * (age + 0.35 * smooth_field(rng, shape, h, 9.0)) - 0.3, 0, 1)
    spots = np.zeros(shape, np.float32)
    white = np.argwhere((anatomy.white > 0.85) & (anatomy.depth_mm > 10))
    count = rng.poisson(5 + 20 * age)
    centres = (white[rng.integers(len(white), size=count)] - (np.array(shape) - 1) / 2) * h
    clusters = np.concatenate(
        [centres + rng.normal(0, 1.5, centres.shape) for _ in range(3)]
    )  # three balls: no sphere
    synthesis.paint_balls(spots, clusters, rng.uniform(1.2, 3.0, len(clusters)), h)
    return np.clip(np.maximum(caps, 0.85 * spots), 0, 0.9) * anatomy.white


def veins(rng: np.random.Generator, anatomy: Anatomy, tumour: Tumour) -> np.ndarray:
    """Fraction (D, H, W) of blood: sagittal sinus, veins that cross slices, some beside the tumour."""
    h, shape = anatomy.spacing_mm, anatomy.mask.shape
    centre = (np.array(shape) - 1) / 2
    blood = np.zeros(shape, np.float32)

    def paint(path_mm: np.ndarray, radius_mm: float) -> None:
        taper = np.linspace(1, rng.uniform(0.6, 1), len(path_mm))
        synthesis.paint_balls(blood, path_mm, radius_mm * taper, h)

    paint(sagittal_sinus(anatomy), rng.uniform(2.0, 3.0))
    cortical = np.argwhere(
        (anatomy.depth_mm > 3) & (anatomy.depth_mm < 12) & (anatomy.csf + anatomy.grey > 0.6)
    )
    deep = np.argwhere((anatomy.depth_mm > 15) & anatomy.mask)
    beside = np.argwhere(
        tumour.whole & ~ndimage.binary_dilation(tumour.core, iterations=max(round(4 / h), 1))
    )
    for places, count in (
        (cortical, rng.integers(8, 15)),
        (deep, rng.integers(5, 10)),
        (beside, rng.integers(2, 5)),
    ):
        for _ in range(count if len(places) else 0):
            start = (places[rng.integers(len(places))] - centre) * h
            up = np.array([1.0, *rng.normal(0, 0.35, 2)])
            length, radius = rng.uniform(15, 35), rng.uniform(1.3, 2.6)
            paint(synthesis.wandering_path(rng, start, up, length), radius)
            paint(synthesis.wandering_path(rng, start, -up, length), radius)
    return blood * anatomy.mask * ~tumour.core


def sagittal_sinus(anatomy: Anatomy) -> np.ndarray:
    """Points (N, 3) in mm along the upper midline of the brain, from the forehead to the back of the head."""
    h, shape = anatomy.spacing_mm, anatomy.mask.shape
    middle = np.abs(anatomy.position[2] - (VOLUME_MM[2] - 1) / 2) < 2.5
    plane = anatomy.mask & middle
    rows = np.flatnonzero(plane.any((0, 2)))
    top = [np.argwhere(plane[:, row]).max(0) for row in rows]
    path = np.array([[z - 1.5 / h, row, x] for row, (z, x) in zip(rows, top, strict=True)], float)
    path = ndimage.gaussian_filter1d(path, 5 / h, axis=0, mode="nearest")
    dense = np.linspace(0, len(path) - 1, round(len(path) * h))
    path = np.stack([np.interp(dense, np.arange(len(path)), column) for column in path.T], 1)
    return (path - (np.array(shape) - 1) / 2) * h


# Scanner


def acquire(
    rng: np.random.Generator,
    fractions: dict[str, np.ndarray],
    detail: np.ndarray,
    sick: np.ndarray,
    spacing_mm: float,
) -> np.ndarray:
    """Four contrasts (4, D, H, W) uint16 of the tissue, 0 outside the brain and at least 1 inside."""
    total = sum(fractions.values())
    brain = total > 0.5
    share = {name: fraction[brain] / total[brain] for name, fraction in fractions.items()}
    tissue = {name: jittered(rng, TISSUES[name]) for name in TISSUES}
    coarse, fine, uptake = (
        smooth_field(rng, brain.shape, spacing_mm, scale)[brain] for scale in (9.0, 4.0, 6.0)
    )
    uneven = np.where(sick[brain], 0.10 * coarse + 0.08 * fine, 0.06 * coarse + 0.05 * fine)
    texture = np.exp(
        uneven + 1.5 * detail[brain]
    )  # the template's nuclei differ in R1 and, by their iron, in R2

    # Water inside tissue exchanges, so rates are averaged; CSF is apart, so signals are.
    fluid = share.pop("csf")
    solid = np.maximum(1 - fluid, 1e-6)
    pd, r1, r2, agent = (
        sum(part * value(tissue[name]) for name, part in share.items()) / solid
        for value in (lambda t: t.pd, lambda t: 1 / t.t1_ms, lambda t: 1 / t.t2_ms, lambda t: t.agent)
    )
    signal = four_contrasts(pd, r1 * texture, r2 * texture, agent * np.exp(0.25 * uptake))
    csf = tissue["csf"]
    signal = solid * signal + fluid * four_contrasts(csf.pd, 1 / csf.t1_ms, 1 / csf.t2_ms, csf.agent)[:, None]

    image = np.zeros((4, *brain.shape), np.uint16)
    for channel, values in enumerate(signal):
        shading = synthesis.bias_field(rng, brain.shape, spacing_mm, 0.09)[brain]
        values = values * shading / values.mean()
        values = synthesis.rician(rng, values.astype(np.float32), noise=rng.uniform(0.04, 0.07))
        gain = 400 * np.exp(rng.normal(0, 0.25))
        image[channel][brain] = np.clip(np.round(gain * values), 1, 65535)
    return image


def jittered(rng: np.random.Generator, tissue: Tissue) -> Tissue:
    """The tissue as one patient has it: relaxation times and uptake scattered around the table's values."""
    t1, t2, agent = np.exp(rng.normal(0, (tissue.varies, tissue.varies, 0.15)))
    return Tissue(tissue.pd, tissue.t1_ms * t1, tissue.t2_ms * t2, tissue.agent * agent, 0.0)
