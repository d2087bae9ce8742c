"""Healthy anatomy: the average of 152 brains, bent into one patient.

White matter, grey matter and T1 are the ICBM152 maps that the package nilearn ships (Fonov et al., NeuroImage
54:313, 2011). Numbers without a source were chosen by eye, so that patients differ and none looks ill.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np
from scipy import ndimage

from labkit.phantoms import synthesis
from labkit.phantoms.body import GROWN_MM, VOLUME_MM
from labkit.phantoms.cache import cached, fingerprint
from labkit.phantoms.synthesis import sample, smooth_field

# What `nilearn.datasets.load_mni152_template` and its like read. They are not asked themselves: with them
# would come scikit-learn and pandas, whose import takes longer than a patient
FILES = {
    name: f"datasets/data/mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz"
    for name, kind in (("t1", "t1"), ("grey", "gm"), ("white", "wm"))
}
# The template: 197 x 233 x 189 voxels of 1 mm, x from the left, y from behind, z from below
EMPTY_SLICES_BELOW = 3  # added, so that the brain lies in the middle
PART = np.s_[: VOLUME_MM[0], 22 : 22 + VOLUME_MM[1], 2 : 2 + VOLUME_MM[2]]  # around the brain
BRAIN_ABOVE = 51  # of 255 in T1, a fifth: the threshold of nilearn's own brain mask
T1_OF = {"white": 0.87, "grey": 0.65, "csf": 0.27}  # brightness of pure tissue, read off the T1 map
MIXED_RIM_MM = 2  # the outermost voxels mix with the background: no detail there

# How patients differ
SIZE = (0.89, 0.97)  # of the template along each axis: all fit into VOLUME_MM
ANGLE_DEGREES, SHEAR = 3, 0.02  # spreads of rotations and shears
WARP_MM = {40.0: 2.5, 18.0: 1.0}  # spread of the displacement at each scale, both in mm
FOLDING, FOLDING_SCALE_MM = 0.5, 7.0  # how much wider or narrower (log of CSF) one sulcus is than the next
AGE_WIDENS = 0.8  # log of CSF, from the youngest to the oldest

# What pushes tissue
DEEP_MM = 20  # CSF further from the surface than this is a ventricle
MASS_EFFECT, MASS_REACH_MM = (0.25, 0.5), 10  # largest push, of the radius of the core
VENTRICLES_MM, AGED_VENTRICLES_MM, VENTRICLES_REACH_MM = (-0.5, 2.0), 2.0, 6  # outward; more by age
HELD_MM = 12  # tissue moves freely from this depth on; at the surface the skull holds it


@dataclass(frozen=True)
class Anatomy:
    """One patient's tissue fractions, each (S, H, W) float32 at GROWN_MM, and the way to the template."""

    position: np.ndarray  # (3, S, H, W), voxels of the template
    mask: np.ndarray  # bool
    white: np.ndarray
    grey: np.ndarray
    csf: np.ndarray
    depth_mm: np.ndarray  # below the brain's surface
    detail: np.ndarray  # what the template's T1 shows beyond the three fractions

    @property
    def template_mm(self) -> np.ndarray:
        """(3, S, H, W): upwards, to the back and to the patient's left from the template's centre."""
        return self.position - _template_centre()

    @property
    def ventricles(self) -> np.ndarray:
        """Where cerebrospinal fluid lies deep inside: (S, H, W) bool."""
        return (self.csf > 0.5) & (self.depth_mm > DEEP_MM)


@lru_cache(maxsize=1)
def template() -> dict[str, np.ndarray]:
    """ICBM152 at 1 mm in our orientation, centred: white, grey, mask, detail, depth_mm; (160, 192, 192)."""
    version = fingerprint(sys.modules[__name__], packages=("numpy", "scipy", "nilearn"))
    stored = cached(f"brain-template-{version}", _read_template)
    white, grey, t1 = (stored[name].astype(np.float32) / 255 for name in ("white", "grey", "t1"))
    depth_mm = stored["quarter_mm_deep"].astype(np.float32) / 4
    csf = np.clip(1 - white - grey, 0, 1)
    expected = T1_OF["white"] * white + T1_OF["grey"] * grey + T1_OF["csf"] * csf
    detail = np.where(depth_mm > MIXED_RIM_MM, t1 - expected, 0)
    return {
        "white": white,
        "grey": grey,
        "mask": (depth_mm > 0).astype(np.float32),
        "detail": detail.astype(np.float32),
        "depth_mm": depth_mm,
    }


def _read_template() -> dict[str, np.ndarray]:
    import nibabel as nib

    maps = {}
    for name, file in FILES.items():
        right_anterior_up = np.asarray(nib.load(files("nilearn") / file).dataobj).astype(np.float32)
        right_anterior_up /= right_anterior_up.max()
        ours = right_anterior_up.transpose(2, 1, 0)[:, ::-1, ::-1]  # z up, y to the back, x to the left
        ours = np.pad(ours, ((EMPTY_SLICES_BELOW, 0), (0, 0), (0, 0)))[PART]
        maps[name] = np.round(ours * 255).astype(np.uint8)
    brain = maps["t1"] > BRAIN_ABOVE
    sides = ndimage.find_objects(brain.astype(np.uint8))[0]
    box = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in sides)  # no way out leads further
    depth_mm = np.zeros(brain.shape)
    depth_mm[box] = ndimage.distance_transform_edt(brain[box])
    maps["quarter_mm_deep"] = np.clip(np.round(depth_mm * 4), 0, 255).astype(np.uint8)
    return maps


def _template_centre() -> np.ndarray:
    return ((np.array(VOLUME_MM, np.float32) - 1) / 2)[:, None, None, None]


def deform(rng: np.random.Generator, age: float) -> Anatomy:
    """The template with one patient's size, rotation, shear, smooth deformation and amount of CSF."""
    shape = tuple(round(extent / GROWN_MM) for extent in VOLUME_MM)
    to_template = np.linalg.inv(synthesis.random_affine(rng, SIZE, ANGLE_DEGREES, SHEAR))
    position = np.einsum("ij,jdhw->idhw", to_template, synthesis.grid_mm(shape, GROWN_MM))
    position += synthesis.smooth_warp(rng, shape, GROWN_MM, WARP_MM)
    position += _template_centre()
    where = np.argwhere(sample(template()["mask"], position) > 0.5)
    middle_mm = ((where.min(0) + where.max(0)) / 2 - (np.array(shape) - 1) / 2) * GROWN_MM
    to_the_centre = (to_template @ middle_mm).astype(np.float32)
    return look_up(position + to_the_centre[:, None, None, None], sulci(rng, shape, age))


def sulci(rng: np.random.Generator, shape: tuple[int, int, int], age: float) -> np.ndarray:
    """How much more CSF mixed voxels hold than in the template, log, (S, H, W)."""
    folding = FOLDING * smooth_field(rng, shape, GROWN_MM, FOLDING_SCALE_MM)
    return folding + AGE_WIDENS * age - AGE_WIDENS / 2


def look_up(position: np.ndarray, widening: np.ndarray) -> Anatomy:
    """Tissue at the template positions (3, S, H, W); widening (S, H, W) > 0 turns mixed voxels to CSF."""
    maps = template()
    mask = sample(maps["mask"], position) > 0.5
    inside = position[:, mask]
    white, grey, detail, depth = (
        sample(maps[name], inside) for name in ("white", "grey", "detail", "depth_mm")
    )
    # An average of 152 brains is blurred: squares sharpen the borders, the widening makes sulci differ.
    parts = np.stack([white, grey, np.clip(1 - white - grey, 0, 1)]) ** 2
    parts[2] *= np.exp(widening[mask])
    parts /= parts.sum(0)
    values = {}
    for name, value in zip(
        ("white", "grey", "csf", "detail", "depth_mm"), (*parts, detail, depth), strict=True
    ):
        values[name] = np.zeros(mask.shape, np.float32)
        values[name][mask] = value
    return Anatomy(position, mask, **values)


def displace(rng: np.random.Generator, healthy: Anatomy, core: np.ndarray, age: float) -> Anatomy:
    """The same patient after the tumour's core has pushed tissue aside and age has widened the ventricles."""
    radius_mm = (core.sum() * GROWN_MM**3 * 3 / (4 * np.pi)) ** (1 / 3)
    mass_effect = rng.uniform(*MASS_EFFECT) * radius_mm
    push = mass_effect * synthesis.pressure_warp(core, GROWN_MM, MASS_REACH_MM)
    low, high = VENTRICLES_MM
    widening = rng.uniform(low, high + AGED_VENTRICLES_MM * age)
    push = push + widening * synthesis.pressure_warp(healthy.ventricles, GROWN_MM, VENTRICLES_REACH_MM)
    held = np.clip(healthy.depth_mm / HELD_MM, 0, 1)
    return look_up(healthy.position - held * push, sulci(rng, core.shape, age))
