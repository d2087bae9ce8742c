"""Motion ghosts: in some slices the scanner shows a second tumour that is not there.

A patient who moves while a slice is measured breaks the phase encoding, and bright structures come back
elsewhere in that slice: ghosts (Wood & Henkelman, Med. Phys. 12:143, 1985; Zaitsev et al., J. Magn. Reson.
Imaging 42:887, 2015). In a two-dimensional scan neighbouring slices are commonly measured at different times
(interleaved), so the neighbours may be clean.

Ours are made to ask one question: what can a single slice not know? So they are copies of the tumour's own
cross-sections, as strong as tumour, in slices of which no two are neighbours, and labels ignore them. Real
ghosts are mostly fainter, come as a row along the phase-encoding direction, may spoil many slices, and seldom
hit four contrasts alike. All numbers were chosen by eye.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from labkit.phantoms.body import Body

TISSUES = ("oedema", "necrosis", "solid", "enhancing")  # what a ghost copies
COUNT = (8, 14)  # slices with a ghost, both included
MIRRORED = 0.7  # probability
SHIFT_MM = 28  # at most
STRENGTH = (0.7, 1.0)  # part of a voxel that the ghost replaces
BRAIN_CM2 = 40  # slices with less brain have no room for a ghost
SOURCE = 0.4  # only cross-sections of at least this part of the largest are copied
SEEN, SEEN_CM2 = (
    0.5,
    3.0,
)  # of a copy so much must fall beside the tumour and inside the brain, or it moves on
TRIES = 40  # places tried in one slice
FADE_MM = 4.0  # over this width a ghost fades where it meets the tumour or the brain's surface


@dataclass(frozen=True)
class Ghost:
    """One copy: of slice `source`, shown in slice `slice`."""

    slice: int
    source: int
    mirrored: bool  # left and right
    shift_mm: tuple[float, float]  # towards the back, to the patient's left
    strength: float


def haunt(rng: np.random.Generator, body: Body) -> tuple[Body, tuple[Ghost, ...]]:
    """The body as a scanner shows it when the patient moves, and the ghosts, from the lowest slice up.

    The label and all slices without a ghost stay as they are, bit for bit.
    """
    ghosts = choose(rng, body)
    fractions = {name: fraction.copy() for name, fraction in body.fractions.items()}
    detail, diseased = body.detail.copy(), body.diseased.copy()
    for ghost in ghosts:
        s = ghost.slice
        parts = show(ghost, body)
        amount = sum(parts.values())
        for name in fractions:
            fractions[name][s] = fractions[name][s] * (1 - amount) + parts.get(name, 0)
        detail[s] *= 1 - amount
        diseased[s] |= amount > 0.5
    return replace(body, fractions=fractions, detail=detail, diseased=diseased), ghosts


def choose(rng: np.random.Generator, body: Body) -> tuple[Ghost, ...]:
    """Ghosts in slices that hold brain, no two neighbours, from the lowest up."""
    pixel_cm2 = body.spacing_mm**2 / 100
    brain_cm2 = np.array([inside(body, s).sum() for s in range(len(body.label))]) * pixel_cm2
    tumour_cm2 = (body.label > 0).sum((1, 2)) * pixel_cm2
    sources = np.flatnonzero(tumour_cm2 >= SOURCE * tumour_cm2.max())
    wanted = rng.integers(COUNT[0], COUNT[1] + 1)
    ghosts: dict[int, Ghost] = {}
    for s in rng.permutation(np.flatnonzero(brain_cm2 >= BRAIN_CM2)):
        if len(ghosts) < wanted and s - 1 not in ghosts and s + 1 not in ghosts:
            ghost = place(rng, body, int(s), sources)
            if ghost is not None:
                ghosts[ghost.slice] = ghost
    return tuple(ghosts[s] for s in sorted(ghosts))


def place(rng: np.random.Generator, body: Body, s: int, sources: np.ndarray) -> Ghost | None:
    """A ghost in slice s of which enough is seen; None where no place was found."""
    mirrored, room = bool(rng.uniform() < MIRRORED), room_in(body, s)
    for _ in range(TRIES):
        ghost = draw(rng, s, sources, mirrored)
        copy = sum(copied(ghost, body).values())
        bright = np.count_nonzero(ghost.strength * room * copy > 0.5)
        if (room * copy).sum() >= SEEN * copy.sum() and bright * body.spacing_mm**2 >= 100 * SEEN_CM2:
            return ghost
    return None


def draw(rng: np.random.Generator, s: int, sources: np.ndarray, mirrored: bool) -> Ghost:
    """A random cross-section, moved in a random direction, in slice s."""
    angle, distance = rng.uniform(0, 2 * np.pi), SHIFT_MM * np.sqrt(rng.uniform())  # even over the disc
    shift = (float(distance * np.cos(angle)), float(distance * np.sin(angle)))
    return Ghost(s, int(rng.choice(sources)), mirrored, shift, rng.uniform(*STRENGTH))


def show(ghost: Ghost, body: Body) -> dict[str, np.ndarray]:
    """Amount (H, W) of each copied tissue in the ghost's slice: none in the tumour or outside the brain."""
    visible = ghost.strength * room_in(body, ghost.slice)
    return {name: visible * part for name, part in copied(ghost, body).items()}


def copied(ghost: Ghost, body: Body) -> dict[str, np.ndarray]:
    """The fractions (H, W) of the source slice, mirrored and moved by whole voxels."""
    voxels = np.round(np.array(ghost.shift_mm) / body.spacing_mm)
    planes = {name: body.fractions[name][ghost.source] for name in TISSUES}
    if ghost.mirrored:
        planes = {name: plane[:, ::-1] for name, plane in planes.items()}
    return {name: ndimage.shift(plane, voxels, order=0) for name, plane in planes.items()}


def room_in(body: Body, s: int) -> np.ndarray:
    """How much of a ghost slice s can show, (H, W) in [0, 1].

    Nothing in the tumour, nor where one of the neighbours has it: what a ghost shows, no neighbour shows.
    """
    tumour = (body.label[max(s - 1, 0) : s + 2] > 0).any(0)
    away_mm = ndimage.distance_transform_edt(inside(body, s) & ~tumour) * body.spacing_mm
    return np.clip((away_mm - body.spacing_mm) / FADE_MM, 0, 1)


def inside(body: Body, s: int) -> np.ndarray:
    """Mask (H, W) of the brain in slice s."""
    return sum(fraction[s] for fraction in body.fractions.values()) > 0.5
