"""Digital patients with a tumour of the kidney in contrast-enhanced CT: synthetic, no real patient.

A trunk is drawn from soft-edged shapes (torso.py) and filled with organs (viscera.py), two kidneys (renal.py)
and one or two tumours (renal_mass.py); all of it is bent by one smooth random field, blurred and made noisy
as in a CT scanner (ct_scanner.py, hounsfield.py) while the patient breathes (breathing.py). The labels are
those of KiTS19: 1 kidney, cysts included, 2 tumour. It scores 1 and 2 together as kidney, and 2 as tumour.

What a textbook would show and this does not: lungs, diaphragm and pelvis (the field of view ends before),
adrenals, ureters, the mesenteric tree, the fasciae around the kidney, a table, arms, implants, streaks behind
bone. Liver and bowel are blobs and tubes without segments or folds, and loops may cross each other. The renal
sinus is not labelled. Tumours do not grow into veins, and muscles and bone stop them. The field of view is
288 mm wide: the flanks of broad patients are cut off.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from tqdm.auto import tqdm

from labkit.phantoms import breathing, ct_scanner, renal, renal_mass, shapes, synthesis, torso, viscera
from labkit.phantoms.cache import cached, fingerprint
from labkit.scans import hounsfield
from labkit.scans.case import Case
from labkit.scans.hounsfield import WINDOW_HU

LABEL_NAMES = {1: "kidney", 2: "tumour"}
SPLITS = {"train": tuple(range(40)), "validation": tuple(range(40, 50)), "test": tuple(range(50, 70))}
VOLUME_MM = (192, 288, 288)  # of S, H, W, on every grid
DRAWN_MM = 3.0  # patients are drawn on this grid only, and scanned on any
WARP_MM = {55.0: 4.0, 24.0: 1.6}  # spread of the displacement at each scale, both in mm


def split(name: str) -> tuple[int, ...]:
    """Seeds of the fixed patients of one split: 40 in "train", 10 in "validation", 20 in "test"."""
    if name not in SPLITS:
        raise ValueError(f"there is no split {name!r}; choose one of {', '.join(SPLITS)}")
    return SPLITS[name]


def kidney_patients(
    name: str,
    n: int | None = None,
    spacing_mm: float = 3.0,
    breathing: bool = True,
    window_hu: tuple[float, float] | None = WINDOW_HU,
) -> list[Case]:
    """The first n synthetic patients (default: all) of one split; see `kidney_patient`."""
    seeds = split(name)
    if n is not None and not 1 <= n <= len(seeds):
        raise ValueError(f"{name} has {len(seeds)} patients, not {n}; ask for 1 to {len(seeds)}")
    bar = tqdm(seeds[:n], desc="patients", unit="patient", leave=False, delay=1)  # not for cached ones
    return [kidney_patient(seed, spacing_mm, breathing, window_hu) for seed in bar]


def kidney_patient(
    seed: int,
    spacing_mm: float = 3.0,
    breathing: bool = True,
    window_hu: tuple[float, float] | None = WINDOW_HU,
) -> Case:
    """One synthetic patient with a tumour; the same seed gives the same bits, from the cache or made again.

    At 3 mm the image is (1, 64, 96, 96) float32 in HU, cut off at the ends of `window_hu` (None: not at all),
    and the label (64, 96, 96) uint8. Another spacing (1.5 to 6 mm) is another scan of the same patient: same
    anatomy and tumour, other noise, and breathing in other slices. `breathing=False` is the same scan in one
    breath-hold: the same label, and the same image but in `breathing_slices`. ValueError: a seed, spacing or
    window that cannot be.
    """
    arrays = _scan(seed, spacing_mm, breathing)
    return Case(
        name=f"kidney-{int(seed):04d} (synthetic)",
        image=hounsfield.window(arrays["image"].astype(np.float32)[None], window_hu),
        label=arrays["label"],
        spacing_mm=(float(spacing_mm),) * 3,
        channels=("CT",),
        label_names=dict(LABEL_NAMES),
        synthetic=True,
        window_hu=window_hu,
    )


def breathing_slices(seed: int, spacing_mm: float = 3.0) -> tuple[int, ...]:
    """The slices of `kidney_patient(seed, spacing_mm)` that show another level, lowest first."""
    return tuple(_scan(seed, spacing_mm, breathes=True)["breaths"].tolist())


def _scan(seed: int, spacing_mm: float, breathes: bool) -> dict[str, np.ndarray]:
    """What `make_patient` returns, from the cache."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(
            f"a patient's seed is a whole number from 0 upwards, not {seed!r}; for example kidney_patient(7)"
        )
    if not 1.5 <= spacing_mm <= 6:
        raise ValueError(f"spacing_mm must lie between 1.5 and 6, not {spacing_mm!r}; the labs use 3")
    name = f"kidney-{_version()}/{int(seed):04d}-{spacing_mm:g}mm-{'breathing' if breathes else 'still'}"
    return cached(name, lambda: make_patient(int(seed), float(spacing_mm), breathes))


@lru_cache(maxsize=1)
def _version() -> str:
    makers = (breathing, ct_scanner, hounsfield, renal, renal_mass, shapes, synthesis, torso, viscera)
    return fingerprint(sys.modules[__name__], *makers)


def make_patient(seed: int, spacing_mm: float, breathes: bool) -> dict[str, np.ndarray]:
    """Without the cache: image (S, H, W) int16 in HU, label (S, H, W) uint8, and the slices out of place."""
    body = body_of(seed)
    shape = tuple(round(extent / spacing_mm) for extent in VOLUME_MM)
    hu, kidney, tumour = (
        ct_scanner.on_grid(volume, DRAWN_MM, shape, spacing_mm)
        for volume in (body.hu, body.kidney, body.tumour)
    )
    label = np.where(kidney + tumour > 0.5, np.where(tumour >= kidney, 2, 1), 0).astype(np.uint8)
    shown = ()
    if breathes:
        hu, shown = breathing.breathe(np.random.default_rng([seed, 2]), hu, label == 2, spacing_mm)
    image = ct_scanner.acquire(np.random.default_rng([seed, 1]), hu, spacing_mm)
    return {"image": image, "label": label, "breaths": np.array([b.slice for b in shown], np.int16)}


@dataclass(frozen=True)
class Body:
    """One patient as drawn at DRAWN_MM, each (S, H, W) float32."""

    hu: np.ndarray  # without blur and noise
    kidney: np.ndarray  # amount of kidney, cysts included, that is no tumour
    tumour: np.ndarray  # amount


@lru_cache(maxsize=2)  # drawing takes nearly all of a scan's time, and one who is scanned twice is drawn once
def body_of(seed: int) -> Body:
    """What `make_body` returns, kept for the next scan of the same patient; not to be changed."""
    return make_body(seed)


def make_body(seed: int) -> Body:
    """One patient as drawn."""
    frame, filling, organ, growth = np.random.default_rng([seed, 0]).spawn(4)
    shape = tuple(round(extent / DRAWN_MM) for extent in VOLUME_MM)
    mm = synthesis.grid_mm(shape, DRAWN_MM)
    mm = mm + synthesis.smooth_warp(frame, shape, DRAWN_MM, WARP_MM)
    hu_of = hounsfield.measured(frame)
    trunk = torso.build(frame, mm, DRAWN_MM, hu_of)
    hu = viscera.paint(filling, trunk, mm, DRAWN_MM, hu_of)
    kidneys = renal.build(organ, hu, trunk, mm, DRAWN_MM, hu_of)
    tumour = renal_mass.grow(growth, hu, kidneys, trunk, DRAWN_MM, hu_of)
    tissue = np.maximum(*(kidney.tissue for kidney in kidneys))
    return Body(hu, (tissue * (1 - tumour)).astype(np.float32), tumour.astype(np.float32))
