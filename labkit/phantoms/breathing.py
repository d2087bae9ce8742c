"""Breathing: some slices were taken in another breath-hold, and show the anatomy of another level.

Kidneys move along the body by about one centimetre in quiet breathing (van Sornsen de Koste et al., 2006,
Int. J. Radiat. Oncol. 64:799) and by up to four between deep breaths (Schwartz et al., 1994, Radiother.
Oncol. 32:84).
Where a stack is put together from several breath-holds a slice may therefore show what belongs elsewhere, and
its neighbours, of the other hold, do not.

Ours are made to ask one question: what can a single slice not know? So each shows a level that holds tumour,
where the patient has none; no two are neighbours, and the label stays that of the slice's own level. A real
mistake of this kind moves a block of slices, organs more than spine and ribs, and hides a tumour as often as
it shows one. Numbers without a source were chosen by eye.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

COUNT = (6, 10)  # slices, both included; fewer where there is no room
MOVED_MM = (9, 40)
SOURCE = 0.4  # only levels with at least this part of the largest cross-section of tumour are shown


@dataclass(frozen=True)
class Breath:
    """Slice `slice` shows what lies at `source`."""

    slice: int
    source: int


def breathe(
    rng: np.random.Generator, hu: np.ndarray, tumour: np.ndarray, spacing_mm: float
) -> tuple[np.ndarray, tuple[Breath, ...]]:
    """The body (S, H, W) as the scanner meets it, and what is out of place, lowest first.

    All other slices stay as they are, bit for bit. `tumour` is a mask (S, H, W).
    """
    breaths = choose(rng, tumour, spacing_mm)
    seen = hu.copy()
    for breath in breaths:
        seen[breath.slice] = hu[breath.source]
    return seen, breaths


def choose(rng: np.random.Generator, tumour: np.ndarray, spacing_mm: float) -> tuple[Breath, ...]:
    """Slices that hold no tumour, nor do their neighbours, and a level near enough that does."""
    area = tumour.sum((1, 2))
    sources = np.flatnonzero(area >= max(SOURCE * area.max(), 1))
    without = np.array([not area[max(s - 1, 0) : s + 2].any() for s in range(len(area))])
    wanted = rng.integers(COUNT[0], COUNT[1] + 1)
    chosen: dict[int, Breath] = {}
    for s in rng.permutation(np.flatnonzero(without)).tolist():
        moved_mm = np.abs(sources - s) * spacing_mm
        near = sources[(moved_mm >= MOVED_MM[0]) & (moved_mm <= MOVED_MM[1])]
        if len(near) and len(chosen) < wanted and s - 1 not in chosen and s + 1 not in chosen:
            chosen[s] = Breath(s, int(rng.choice(near)))
    return tuple(chosen[s] for s in sorted(chosen))
