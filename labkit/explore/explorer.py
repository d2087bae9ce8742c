"""What all explorers share: a patient, a slice, three pictures, words, and work done ahead while at rest."""

from __future__ import annotations

import html
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import torch
from torch import nn

from labkit.explore import deltas, page, pictures, plots
from labkit.explore.ahead import Ahead
from labkit.explore.lazy import waiting
from labkit.explore.live import LivePicture
from labkit.explore.shown import Shown, headless
from labkit.metrics import dice_by_region, mean_present
from labkit.scans.case import Case
from labkit.scans.slices import classes_of, to_volume
from labkit.training.quick import CHOICES, at_most

LOOK = {"style": {"description_width": "7em"}, "layout": {"width": "25em"}}
SIDE_PX = 300  # of each of the three pictures
PATIENTS = 3  # of the test split, shown by default


class Explorer(Shown):
    """A choice of networks on some patients: segmentation, truth and errors of one slice.

    A subclass gives `controls` to `_open`, and has `choice()` (hashable: which network), `nearby()` (choices
    worth computing ahead, nearest first), `network(choice, own)` (two that share no memory, for own 0 and 1),
    `words(choice)` and `shown()` (choices of the static picture, by name). Every control works by keyboard,
    and the wheel over the picture moves the slice.
    `context(choice)` is how many neighbouring slices the network is shown at once, the one in sight among
    them. A map of the tokens beside the pictures comes from `see` and is called `map_name`; `map_ends` say
    what 0 and 1 are in it. Controls of `idle()` change nothing now: they are disabled. Without a browser
    (LABKIT_HEADLESS=1) an explorer is one picture with several choices beside each other.
    """

    title = "Segmentations beside each other"  # of the page that `save` writes
    organ = "kidney"  # of the patients that are shown by default: what the networks were trained on
    ahead_at_rest = True  # off while a page is written: nobody waits, and nothing more will come
    map_name = ""
    map_ends = ("0", "1")

    def _open(self, cases: Sequence[Case] | None, controls: Sequence[widgets.Widget]) -> None:
        with waiting("Opening the explorer: patients, networks, the first picture"):
            self._meet(deltas.patients(self.organ, "test", PATIENTS) if cases is None else self._known(cases))
            self._build(controls)

    def _known(self, cases: Sequence[Case]) -> Sequence[Case]:
        """The cases. ValueError: one has more or fewer channels than the networks were trained on."""
        channels, _ = deltas.KNOWN[self.organ]
        for case in cases:
            if len(case.channels) != channels:
                raise ValueError(
                    f"{case.name} has {len(case.channels)} channels; the networks of {type(self).__name__} "
                    f"know a {self.organ} in {channels}. Give such patients, or none for ours."
                )
        return cases

    def _build(self, controls: Sequence[widgets.Widget]) -> None:
        self.ahead = Ahead(self._compute, self._compute_ahead, self._came)
        self.patient = widgets.Dropdown(options=self._names(), description="Patient", **LOOK)
        self.slice = widgets.IntSlider(description="Slice", **LOOK)
        self.image = LivePicture()
        self.said = widgets.HTML(layout={"width": "44em"})
        self.legend = widgets.HTML(self._legend())
        inputs = widgets.VBox([*controls, self.patient, self.slice])
        super().__init__([widgets.HBox([inputs, self.legend]), self.image, self.said])
        self._place_slice()
        self.image.follow(self.slice)
        self.controls = (*controls, self.patient, self.slice)
        self.main = controls[0]  # the one that a page without a kernel can move
        for control in controls:
            control.observe(self._moved, "value")
        self.slice.observe(self._moved, "value")
        self.patient.observe(self._another_patient, "value")
        self._moved()

    def _meet(self, cases: Sequence[Case]) -> None:
        """These are the patients from now on."""
        self.cases = list(cases)
        self.volumes = [to_volume(case) for case in self.cases]
        self.ranges = [pictures.intensity_range(case.image[-1]) for case in self.cases]

    def _names(self) -> list[tuple[str, int]]:
        return [(case.name, i) for i, case in enumerate(self.cases)]

    def _legend(self) -> str:
        names = self.cases[0].label_names
        labels = pictures.legend_html(names, pictures.label_colours(names))
        return labels + pictures.legend_html(pictures.DIFFERENCES, pictures.DIFFERENCE_COLOURS)

    def choice(self) -> Hashable:
        """What the controls say now: the key under which segmentations are kept."""
        raise NotImplementedError

    def nearby(self) -> list[Hashable]:
        """Choices that a next move of a control can lead to, computed ahead."""
        raise NotImplementedError

    def network(self, choice: Hashable, own: int) -> nn.Module:
        """The network of a choice; `own` tells threads apart that compute at the same time."""
        raise NotImplementedError

    def ready(self, choice: Hashable) -> bool:
        """Whether the network of a choice is there, or can be had without torch's global random numbers: only
        then another thread may compute with it, for those numbers belong to the student's cells."""
        return True

    def context(self, choice: Hashable) -> int:
        """Neighbouring slices in a run, if the network of a choice looks at them."""
        return 1

    def idle(self) -> list[widgets.Widget]:
        """Controls of which no value changes what is seen, the others being as they are."""
        return []

    def words(self, choice: Hashable) -> str:
        """The choice in words, for the sentence under the picture."""
        raise NotImplementedError

    def shown(self) -> dict[str, Hashable]:
        """Titles of the panels and the choice that each shows."""
        raise NotImplementedError

    # Segmenting

    def segment(self, choice: Hashable, patient: int, index: int) -> np.ndarray:
        """Label values (H, W) of one slice by one choice."""
        return self.ahead((choice, patient, index))[0]

    def whole(self, choice: Hashable, patient: int) -> np.ndarray | None:
        """Label values (S, H, W) of a patient, once all slices were computed ahead."""
        keys = [(choice, patient, i) for i in range(len(self.cases[patient].label))]
        if all(key in self.ahead.values for key in keys):
            return np.stack([self.ahead.values[key][0] for key in keys])
        return None

    def see(self, choice: Hashable, own: int, x: torch.Tensor) -> tuple[torch.Tensor, np.ndarray | None]:
        """Logits of a slice (1, C, H, W) or run (1, S, C, H, W); a map of tokens (h, w), 0 to 1, or None."""
        return self.network(choice, own)(x), None

    def _compute(self, key: tuple, own: int = 0) -> tuple[np.ndarray, np.ndarray | None]:
        choice, patient, index = key
        image = self.volumes[patient].image
        first, end = run_around(index, self.context(choice), len(image))
        run = image[first:end]  # (S, C, H, W); a single one is a batch of one slice
        with torch.inference_mode():
            logits, tokens = self.see(choice, own, run if len(run) == 1 else run[None])
        values = np.asarray(classes_of(self.cases[patient]), np.uint8)
        return values[logits.flatten(0, -4)[index - first].argmax(0).numpy()], tokens

    def _compute_ahead(self, key: tuple) -> tuple[np.ndarray, np.ndarray | None]:
        return self._compute(key, own=1)

    # Showing

    def picture(self) -> np.ndarray:
        """Segmentation, truth and errors of the slice, as (h, w, 4) uint8."""
        case, index = self.cases[self.patient.value], self.slice.value
        found, truth = self.segment(self.choice(), self.patient.value, index), case.label[index]
        black, white = self.ranges[self.patient.value]
        colours = pictures.label_colours(case.label_names)
        layers = {
            "segmentation": (found, colours),
            "truth": (truth, colours),
            "errors": (pictures.difference(found, truth), pictures.DIFFERENCE_COLOURS),
        }
        look = dict(black=black, white=white, pixel_mm=case.spacing_mm[1:])
        look["px_per_mm"] = pictures.px_scale(case, SIDE_PX)
        row = {
            name: pictures.annotate(
                pictures.slice_image(case.image[-1, index], *of, **look),
                pictures.PLANES["axial"],
                look["px_per_mm"],
            )
            for name, of in layers.items()
        }
        tokens = self.tokens()
        if tokens is not None:
            drawn = pictures.heat(tokens, row["truth"].shape[:2], truth)
            row[self.map_name] = pictures.with_colour_bar(drawn, self.map_ends)
        return pictures.beside(row)

    def tokens(self) -> np.ndarray | None:
        """The map of tokens that belongs to what is in sight."""
        return self.ahead((self.choice(), self.patient.value, self.slice.value))[1]

    def _rule_out(self) -> None:
        """Disable what changes nothing, and only that."""
        idle = self.idle() + [self.patient] * (len(self.cases) == 1) + [self.slice] * (self.slice.max == 0)
        for control in self.controls:
            control.disabled = any(control is one for one in idle)

    def _moved(self, _=None) -> None:
        self._rule_out()
        with self.image.hold_sync():
            self.image.value, self.image.alt = pictures.png(self.picture()), self.here()
        self._say()
        if self.ahead_at_rest and not headless():
            self.ahead.rest(self._wanted())

    def _wanted(self) -> list[tuple]:
        """This slice by every nearby choice, then the slices around it, then the whole patient."""
        choice, patient, index = self.choice(), self.patient.value, self.slice.value
        around = sorted(range(len(self.cases[patient].label)), key=lambda i: abs(i - index))
        near = [(other, patient, index) for other in self.nearby() if self.ready(other)]
        return near + [(choice, patient, i) for i in around]

    def _came(self, key: tuple) -> None:
        choice, patient, _ = key
        if (choice, patient) == (self.choice(), self.patient.value) and self.whole(
            choice, patient
        ) is not None:
            self._say()

    def _say(self) -> None:
        self.said.value = f"<div role='status' style='line-height:1.5'>{html.escape(self.describe())}</div>"

    def here(self) -> str:
        """The slice in sight in words, with its Dice: what the picture is to a screen reader."""
        choice, patient, index = self.choice(), self.patient.value, self.slice.value
        case, found = self.cases[patient], self.segment(choice, patient, index)
        dice = plots.in_words(dice_by_region(found, case.label[index], case.label_names))
        wrong = plots.errors(found, case.label[index], case.spacing_mm[1:])
        return f"{self.words(choice)} Slice {index}: Dice {dice}; {wrong}."

    def describe(self) -> str:
        """The pictures in words, with Dice of the slice and, once it is computed, of the whole patient."""
        choice, patient = self.choice(), self.patient.value
        found, said = self.segment(choice, patient, self.slice.value), self.here()
        case, volume = self.cases[patient], self.whole(choice, patient)
        if volume is not None or self.ahead_at_rest:
            all_of_it = "being computed" if volume is None else plots.scores(case, volume)
            said += f" Whole patient: {all_of_it}."
        return f"{said} {self.more_words(found, volume)}".strip()

    def more_words(self, found: np.ndarray, volume: np.ndarray | None) -> str:
        """What else is to be said of the labels (H, W) in sight, and (S, H, W) once all are there."""
        return ""

    def _another_patient(self, _=None) -> None:
        self._place_slice()
        self._moved()

    def _place_slice(self) -> None:
        self.slice.max = len(self.cases[self.patient.value].label) - 1
        self.slice.value = self.first_slice(self.patient.value)

    def first_slice(self, patient: int) -> int:
        """The slice that a patient is opened at: the one with most label."""
        return pictures.fullest(self.cases[patient].label)

    # Without a kernel, without a browser

    def save(self, path: str | Path) -> Path:
        """Write the explorer as one HTML file that needs no kernel and no network: `labkit.explore.page`."""
        return page.write(self, Path(path))

    def in_still(self) -> dict[str, Hashable]:
        """What the still has of `shown`: all of it, in quick mode a few."""
        shown = self.shown()
        return {name: shown[name] for name in list(shown)[: at_most(len(shown), CHOICES)]}

    def static(self) -> plots.Picture:
        """The choices of `in_still` beside each other on the slice in sight."""
        case, index = self.cases[self.patient.value], self.slice.value
        found = {
            name: self.segment(choice, self.patient.value, index) for name, choice in self.in_still().items()
        }
        dices = {n: dice_by_region(label, case.label[index], case.label_names) for n, label in found.items()}
        alt = f"{case.name}, slice {index}, segmented by {len(found)} networks. {_finding(dices)}"
        told = "; ".join(f"{name}: {plots.in_words(each)}" for name, each in dices.items())
        return plots.show(plots.multiples(case, index, found), f"{alt}Dice of the slice: {told}.")


def _finding(dices: Mapping[str, Mapping[str, float]]) -> str:
    """Which network does best and which worst by its mean Dice, in a sentence; none where all are alike."""
    means = {name: mean_present(list(each.values())) for name, each in dices.items()}
    best, worst = max(means, key=means.get), min(means, key=means.get)
    if not means[best] > means[worst]:
        return ""
    return f"Best by mean Dice: {best} ({means[best]:.2f}), worst: {worst} ({means[worst]:.2f}). "


def run_around(index: int, length: int, slices: int) -> tuple[int, int]:
    """Begin and end of a run around a slice, moved where it would leave the volume, shorter if that is."""
    first = max(0, min(index - length // 2, slices - length))
    return first, min(first + length, slices)
