"""DynamicExplorer: what a price of computing makes of a patient: slices skipped, cropped, or read whole."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ipywidgets as widgets
import numpy as np
import torch
from torch import nn

from labkit.efficient.meddanet import CROP, SKIP, WHOLE, MedDANet
from labkit.efficient.meddanet_training import SLICES, read
from labkit.explore import pictures, plots
from labkit.explore.explorer import LOOK, Explorer
from labkit.explore.live import LivePicture
from labkit.scans.case import Case

NAMES = {SKIP: "skipped", CROP: "cropped", WHOLE: "whole"}
COLOURS = {SKIP: (120, 120, 120), CROP: pictures.ORANGE, WHOLE: pictures.BLUE}
HEIGHTS = {SKIP: 0.15, CROP: 0.55, WHOLE: 1.0}  # of a bar, so that colour is not all there is


@dataclass(frozen=True)
class Plan:
    """What is decided for the S slices of a patient."""

    choices: np.ndarray  # (S,)
    costs: np.ndarray  # (S,) shares of a whole slice

    def __str__(self) -> str:
        counts = ", ".join(f"{int((self.choices == k).sum())} {name}" for k, name in NAMES.items())
        return f"{counts}, cost {self.costs.mean():.0%} of reading all of it"


@torch.inference_mode()
def plan(model: MedDANet, decision: nn.Module, image: torch.Tensor) -> Plan:
    """Decide for slices (S, 4, n, n) without segmenting them; costs are those of full precision."""
    choices = torch.cat([decision(x).argmax(1) for x in image.split(SLICES)]).numpy()
    crop, whole = (
        (sum(stages) + other) / model.full for stages, other in (model.crop_macs, model.whole_macs)
    )
    each = np.array([0, crop + model.policy_cost[1], whole]) + model.policy_cost[0]
    return Plan(choices, each[choices])


def strip(choices: np.ndarray, truth: np.ndarray, now: int | None = None, step: int = 8) -> np.ndarray:
    """A bar for each slice, low skipped, middle cropped, high whole, (h, w, 3) uint8; a black line below the
    slices with a tumour in `truth` (S, H, W), and a frame around slice `now`."""
    height = 60
    drawn = np.full((height + 12, step * len(choices), 3), 255, np.uint8)
    for i, choice in enumerate(choices):
        at = slice(i * step + 1, (i + 1) * step - 1)
        drawn[height - round(HEIGHTS[int(choice)] * (height - 4)) : height, at] = COLOURS[int(choice)]
        if truth[i].any():
            drawn[height + 4 : height + 8, i * step : (i + 1) * step] = 0
        if now == i:
            drawn[:, [i * step, (i + 1) * step - 1]] = 0
            drawn[[0, -1], i * step : (i + 1) * step] = 0
    return drawn


class DynamicExplorer(Explorer):
    """Decision networks by the price that they were trained for, on the same two ways of looking.

    `decisions` are those of `meddanet_training.train_decision`. The map is yellow where a slice is computed.
    """

    title = "Slices that are skipped, cut or seen whole"
    organ = "brain"
    map_name = "computed"
    map_ends = ("no", "yes")

    def __init__(
        self, model: MedDANet, decisions: Mapping[float, nn.Module], cases: Sequence[Case] | None = None
    ) -> None:
        self.networks = [copy.deepcopy(model).eval() for _ in range(2)]
        self.decisions = [copy.deepcopy(dict(sorted(decisions.items()))) for _ in range(2)]
        self.plans: dict[tuple[float, int], Plan] = {}
        options = [(f"{price:g}", price) for price in self.decisions[0]]
        self.price = widgets.SelectionSlider(options=options, description="Price", **LOOK)
        self.strip = LivePicture()
        self._open(cases, (self.price,))
        self.children = [*self.children[:2], self.strip, *self.children[2:]]

    def choice(self) -> float:
        return self.price.value

    def nearby(self) -> list[float]:
        return sorted(self.decisions[0], key=lambda price: abs(price - self.price.value))

    def network(self, choice: float, own: int) -> MedDANet:
        model = self.networks[own]
        model.decision = self.decisions[own][choice]
        return model

    def plan(self, choice: float, patient: int) -> Plan:
        if (choice, patient) not in self.plans:
            image = self.volumes[patient].image
            self.plans[choice, patient] = plan(self.networks[0], self.decisions[0][choice], image)
        return self.plans[choice, patient]

    def see(self, choice: float, own: int, x: torch.Tensor) -> tuple[torch.Tensor, np.ndarray]:
        model = self.network(choice, own)
        y, chosen, _ = model(x, adaptive=False)
        computed = np.zeros((model.n, model.n), np.float32)
        if chosen[0] == WHOLE:
            computed[:] = 1
        elif chosen[0] == CROP:
            row, column = (model.position(x)[0].sigmoid() * (model.n - model.m)).round().int().tolist()
            computed[row : row + model.m, column : column + model.m] = 1
        return y, computed

    def _moved(self, _=None) -> None:
        super()._moved()
        patient = self.patient.value
        now = self.plan(self.choice(), patient)
        drawn = strip(now.choices, self.cases[patient].label, self.slice.value)
        name = "slices from below: low skipped, middle cropped, high whole; black: tumour"
        self.strip.value = pictures.png(pictures.beside({name: drawn}))
        self.strip.alt = f"{name}. {now}."

    def words(self, choice: float) -> str:
        now = self.plan(choice, self.patient.value)
        here = NAMES[int(now.choices[self.slice.value])]
        return f"Price {choice:g}: of {len(now.choices)} slices {now}. This one is {here}."

    def shown(self) -> dict[str, float]:
        return {f"price {price:g}": price for price in self.decisions[0]}

    def static(self) -> plots.Picture:
        """A strip of the patient for each price, with its cost and its Dice."""
        from matplotlib.figure import Figure

        patient = self.patient.value
        case, told = self.cases[patient], []
        figure = Figure(figsize=(9, 0.6 + 1.1 * len(self.in_still())), layout="constrained")
        axes = figure.subplots(len(self.in_still()), 1, squeeze=False)[:, 0]
        for axis, (name, choice) in zip(axes, self.in_still().items(), strict=True):
            found = read(self.network(choice, own=0), self.volumes[patient]).labels
            told.append(f"{name}: {self.plan(choice, patient)}; Dice {plots.scores(case, found)}")
            axis.imshow(strip(self.plan(choice, patient).choices, case.label), aspect="auto")
            axis.set_axis_off()
            axis.set_title(told[-1], fontsize=9, loc="left")
        figure.suptitle(
            f"{case.name}: low grey skipped, middle orange cropped, high blue whole; black: tumour"
        )
        return plots.show(
            figure, f"The slices of {case.name} by what is done with each. " + "; ".join(told) + "."
        )
