"""MedTuningExplorer: Med-Tuning with and without its parts, and how many neighbouring slices it is shown."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets
import numpy as np
from scipy import ndimage

from labkit.explore import deltas
from labkit.explore.explorer import LOOK, Explorer
from labkit.explore.lazy import Networks
from labkit.scans.case import Case
from labkit.training.evaluate import predict
from labkit.tuning import count

SOURCES = {
    "Med-Tuning": "volumes-med_tuning",
    "no Fourier branch": "volumes-med_tuning-no_fourier",
    "no local branches": "volumes-med_tuning-no_local",
    "no interaction": "volumes-med_tuning-no_interaction",
    "LoRA": "volumes-lora",
    "head alone": "volumes-head",
}
SLICE_BY_SLICE = "volumes-lora"  # decides which slice a patient is opened at
CONTEXTS = (1, 2, 4)  # the last one is the length of the runs in training
FALSE_CM2 = 1.0  # smaller pieces are not counted


class MedTuningExplorer(Explorer):
    """What each part of Med-Tuning does for a segmentation, and what the neighbours of a slice do.

    A patient is opened at the slice where LoRA, which sees every slice alone, marks most outside the truth.
    Dice of the whole patient is that of its slices, each read in a run of its own around it.
    """

    title = "Med-Tuning, its parts and its rivals"
    page_name = "med_tuning"
    organ = "brain"

    def __init__(self, cases: Sequence[Case] | None = None, sources: dict[str, str] = SOURCES) -> None:
        self.networks = Networks(deltas.network)
        self.source = widgets.Dropdown(options=sources, description="Network", **LOOK)
        self.shows = widgets.SelectionSlider(
            options=CONTEXTS, value=CONTEXTS[-1], description="Slices shown", **LOOK
        )
        self._open(cases, (self.source, self.shows))

    def choice(self) -> tuple[str, int]:
        return (self.source.value, self.shows.value)

    def nearby(self) -> list[tuple[str, int]]:
        source, context = self.choice()
        others = [(other, context) for _, other in self.source.options.items()]
        return [*((source, length) for length in CONTEXTS), *others]

    def network(self, choice: tuple[str, int], own: int):
        return self.networks[choice[0]][own]

    def ready(self, choice: tuple[str, int]) -> bool:
        return choice[0] in self.networks

    def context(self, choice: tuple[str, int]) -> int:
        return choice[1]

    def first_slice(self, patient: int) -> int:
        """The slice where LoRA marks most outside the truth; without LoRA, the one with most label."""
        if SLICE_BY_SLICE not in self.source.options.values():
            return super().first_slice(patient)
        marked = predict(self.networks[SLICE_BY_SLICE][0], self.volumes[patient]) > 0
        return int((marked & (self.cases[patient].label == 0)).sum((1, 2)).argmax())

    def words(self, choice: tuple[str, int]) -> str:
        source, context = choice
        name = {value: text for text, value in self.source.options.items()}[source]
        tuned = count(self.networks[source][0]).tuned
        seen = "sees this slice alone" if context == 1 else f"is shown {context} neighbouring slices"
        return f"{name}, {tuned:,} numbers tuned, {seen}."

    def more_words(self, found: np.ndarray, volume: np.ndarray | None) -> str:
        case, index = self.cases[self.patient.value], self.slice.value
        here = false_components(found, case, index)
        said = f"False pieces of at least {FALSE_CM2:g} cm², touching no tumour: {here} in this slice"
        if volume is None:
            return f"{said}."
        all_of_it = sum(false_components(label, case, i) for i, label in enumerate(volume))
        return f"{said}, {all_of_it} in all slices of the patient."

    def shown(self) -> dict[str, tuple[str, int]]:
        networks, chosen = dict(self.source.options), self.source.label
        source = networks.pop(chosen)
        lengths = {f"{chosen}, {n} slice{'s' * (n > 1)}": (source, n) for n in CONTEXTS}
        return lengths | {name: (other, CONTEXTS[-1]) for name, other in networks.items()}


def false_components(found: np.ndarray, case: Case, index: int) -> int:
    """How many pieces of the labels (H, W) found in slice `index` are large and touch no tumour.

    Tumour counts where this slice or the ones beside it have it. Voxels that meet at a corner are one piece.
    """
    pieces, n = ndimage.label(found > 0, np.ones((3, 3)))
    sizes_cm2 = np.bincount(pieces.ravel(), minlength=n + 1) * np.prod(case.spacing_mm[1:]) / 100
    tumour = (case.label[max(index - 1, 0) : index + 2] > 0).any(0)
    large = 1 + np.flatnonzero(sizes_cm2[1:] >= FALSE_CM2)
    return len(np.setdiff1d(large, pieces[tumour]))
