"""Digital patients with a glioma in four MRI contrasts: synthetic, made on the spot, no real patient.

Average anatomy is bent into one patient (healthy_brain.py), a tumour is grown in its white matter and pushes
it aside (glioma.py), things that can be mistaken for tumour are added (lookalikes.py), and a scanner turns
tissue into T1, T1ce, T2 and FLAIR (scanner.py, mri_signal.py) while the patient does not lie still
(ghosts.py). The labels are those of BraTS 2019 and 2020: 1 necrotic and non-enhancing core, 2 oedema, 4
enhancing tumour. Veins, white-matter hyperintensities and ghosts are not labelled.
"""

from __future__ import annotations

import sys
from functools import lru_cache

import numpy as np
from tqdm.auto import tqdm

from labkit.phantoms import body, ghosts, glioma, healthy_brain, lookalikes, mri_signal, scanner, synthesis
from labkit.phantoms.body import GROWN_MM, Body, cover, on_grid
from labkit.phantoms.cache import cached, fingerprint
from labkit.scans.case import BRATS_CHANNELS, BRATS_LABELS, Case

SPLITS = {"train": tuple(range(40)), "validation": tuple(range(40, 50)), "test": tuple(range(50, 70))}


def split(name: str) -> tuple[int, ...]:
    """Seeds of the fixed patients of one split: 40 in "train", 10 in "validation", 20 in "test"."""
    if name not in SPLITS:
        raise ValueError(f"there is no split {name!r}; choose one of {', '.join(SPLITS)}")
    return SPLITS[name]


def brain_patients(
    name: str, n: int | None = None, spacing_mm: float = 2.0, ghosts: bool = True
) -> list[Case]:
    """The first n synthetic patients (default: all) of one split; see `brain_patient`."""
    seeds = split(name)
    if n is not None and not 1 <= n <= len(seeds):
        raise ValueError(f"{name} has {len(seeds)} patients, not {n}; ask for 1 to {len(seeds)}")
    bar = tqdm(seeds[:n], desc="patients", unit="patient", leave=False, delay=1)  # not for cached ones
    return [brain_patient(seed, spacing_mm, ghosts) for seed in bar]


def brain_patient(seed: int, spacing_mm: float = 2.0, ghosts: bool = True) -> Case:
    """One synthetic patient with a glioma; the same seed gives the same bits, from the cache or made again.

    At 2 mm the image is (4, 80, 96, 96) float32 in arbitrary scanner units, 0 outside the brain, and the
    label (80, 96, 96) uint8. Another spacing (1 to 4 mm) is another scan of the same patient: same anatomy
    and tumour, other noise and gain, and motion in other slices. `ghosts=False` is the same scan of a patient
    who lay still: the same label, and the same image but in `ghost_slices`. ValueError: a seed or spacing
    that cannot be.
    """
    arrays = _scan(seed, spacing_mm, ghosts)
    return Case(
        name=f"brain-{int(seed):04d} (synthetic)",
        image=arrays["image"].astype(np.float32),
        label=arrays["label"],
        spacing_mm=(float(spacing_mm),) * 3,
        channels=BRATS_CHANNELS,
        label_names=dict(BRATS_LABELS),
        synthetic=True,
    )


def ghost_slices(seed: int, spacing_mm: float = 2.0) -> tuple[int, ...]:
    """The slices in which `brain_patient(seed, spacing_mm)` shows a motion ghost, lowest first."""
    return tuple(_scan(seed, spacing_mm, moving=True)["ghosts"].tolist())


def _scan(seed: int, spacing_mm: float, moving: bool) -> dict[str, np.ndarray]:
    """What `make_patient` returns, from the cache."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(
            f"a patient's seed is a whole number from 0 upwards, not {seed!r}; for example brain_patient(7)"
        )
    if not 1 <= spacing_mm <= 4:
        raise ValueError(f"spacing_mm must lie between 1 and 4, not {spacing_mm!r}; the labs use 2")
    name = f"brain-{_version()}/{int(seed):04d}-{spacing_mm:g}mm-{'moving' if moving else 'still'}"
    return cached(name, lambda: make_patient(int(seed), float(spacing_mm), moving))


@lru_cache(maxsize=1)
def _version() -> str:
    makers = (body, ghosts, glioma, healthy_brain, lookalikes, mri_signal, scanner, synthesis)
    return fingerprint(sys.modules[__name__], *makers, packages=("numpy", "scipy", "nilearn"))


def make_patient(seed: int, spacing_mm: float, moving: bool) -> dict[str, np.ndarray]:
    """Without the cache: image (4, S, H, W) uint16, label (S, H, W) uint8, and the slices of the ghosts."""
    still = on_grid(make_body(seed), spacing_mm)
    seen, shown = ghosts.haunt(np.random.default_rng([seed, 2]), still) if moving else (None, ())
    image = scanner.acquire(np.random.default_rng([seed, 1]), still, seen)
    return {"image": image, "label": still.label, "ghosts": np.array([g.slice for g in shown], np.int16)}


def make_body(seed: int) -> Body:
    """One patient as grown, at GROWN_MM."""
    frame, growth, other = np.random.default_rng([seed, 0]).spawn(3)
    age = frame.uniform()
    healthy = healthy_brain.deform(frame, age)
    core = glioma.grow_core(growth, healthy)
    anatomy = healthy_brain.displace(growth, healthy, core, age)
    tumour = glioma.grow_rest(growth, anatomy, core)

    fractions = {"white": anatomy.white, "grey": anatomy.grey, "csf": anatomy.csf}
    cover(fractions, "lesion", lookalikes.hyperintensities(other, anatomy, age))
    cover(fractions, "oedema", tumour.oedema)
    for name, amount in glioma.core_tissues(growth, tumour, anatomy).items():
        cover(fractions, name, amount)
    cover(fractions, "blood", lookalikes.veins(other, anatomy, tumour))

    label = glioma.label_of(tumour)
    return Body(GROWN_MM, fractions, anatomy.detail * (label == 0), label > 0, label)
