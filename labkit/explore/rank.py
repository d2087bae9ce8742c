"""RankExplorer: a slider over the rank of an update, and the segmentation that this much of it gives."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import torch

from labkit.explore import deltas, pictures
from labkit.explore.explorer import LOOK, Explorer
from labkit.explore.lazy import Networks
from labkit.explore.live import LivePicture
from labkit.explore.retrain import Retrain
from labkit.networks.anatomy import LINEARS
from labkit.scans.case import Case
from labkit.updates.low_rank import Factors, Ranked, Update, spectrum

SOURCES = {
    "DyLoRA: trained in order": "rank-dylora",
    "LoRA in its own order": "rank-lora",
    "LoRA ordered by SVD": "rank-lora-svd",
    "full tuning cut by SVD": "rank-full",
}
LAYERS = {
    "all six": tuple(LINEARS),
    "attention: q, k, v, o": ("q", "k", "v", "o"),
    "q and v": ("q", "v"),
    "MLP: fc1, fc2": ("fc1", "fc2"),
}


class RankExplorer(Explorer):
    """How much of an update a segmentation needs: its rank, its origin, and which layers have it.

    Rank 0 is the pretrained network with the head that was trained beside the update; "probe" is the same
    network with a head that was trained for it alone.
    """

    title = "What rank does to a segmentation"
    page_name = "rank"

    def __init__(self, cases: Sequence[Case] | None = None, sources: dict[str, str] = SOURCES) -> None:
        self.updates: dict[str, Update] = {}  # read when first looked at
        self.probe = Networks(deltas.network)
        self.now: list[tuple | None] = [None, None]  # how each of the two networks stands
        self.rank = widgets.IntSlider(value=1, max=16, description="Rank", **LOOK)
        self.source = widgets.Dropdown(options=sources, description="Update", **LOOK)
        self.layers = widgets.Dropdown(options=list(LAYERS), description="Layers", **LOOK)
        self.compare = widgets.Checkbox(description="linear probe instead", indent=True, **LOOK)
        self.spectrum = LivePicture()
        first = Ranked(deltas.start(), self.update)
        self.networks = [
            first,
            copy.deepcopy(first, {id(first.base): first.base, id(self.update): self.update}),
        ]
        self._limit()
        self.source.observe(self._limit, "value")
        self._open(cases, (self.rank, self.source, self.layers, self.compare))
        self.retrain = Retrain(lambda: self.source.value.removesuffix("-svd"), self.replace)
        self.children = [*self.children, self.spectrum, self.retrain]
        for control in (self.rank, self.source, self.layers):
            control.observe(self._draw_spectrum, "value")
        self._draw_spectrum()

    @property
    def update(self) -> Update:
        """That of the chosen source."""
        name = self.source.value
        if name not in self.updates:
            self.updates[name] = deltas.update(name)
        return self.updates[name]

    def _limit(self, _=None) -> None:
        self.rank.max = self.update.rank

    def replace(self, name: str, path: Path) -> None:
        """Show the update of a new training in place of the one that the kit carries."""
        self.ahead.stop()
        for source in self.source.options.values():
            if source.removesuffix("-svd") == name:
                self.updates[source] = deltas.update(source, path)
        self.now = [None, None]
        self.ahead.values.clear()
        self._spectrum_of = None
        self._draw_spectrum()
        self._moved()

    def let_go(self) -> None:
        if hasattr(self, "retrain"):  # not where it was interrupted while it opened
            self.retrain.stop()
        super().let_go()

    def choice(self) -> tuple:
        if self.compare.value:
            return ("probe", 0, "")
        return (self.source.value, self.rank.value, self.layers.value)

    def nearby(self) -> list[tuple]:
        source, rank, layers = self.source.value, self.rank.value, self.layers.value
        ranks = sorted(range(self.rank.max + 1), key=lambda r: abs(r - rank))
        return [(source, r, layers) for r in ranks]

    def idle(self) -> list[widgets.Widget]:
        return [self.rank, self.source, self.layers] if self.compare.value else []

    def network(self, choice: tuple, own: int):
        source, rank, layers = choice
        if source == "probe":
            return self.probe["probe"][own]
        ranked = self.networks[own]
        if self.now[own] != choice:
            self._begin(ranked, self.updates[source])
            ranked.at(rank, LAYERS[layers])
            self.now[own] = choice
        return ranked.model

    @staticmethod
    @torch.no_grad()
    def _begin(ranked: Ranked, update: Update) -> None:
        """Make a network that of another update: what the last one changed is pretrained again."""
        if ranked.update is not update:
            for name, p in ranked.model.named_parameters():
                p.copy_(ranked.base[name])
            ranked.update = update

    def parts(self) -> list[Factors]:
        """The factors of the chosen source in the chosen layers."""
        chosen = LAYERS[self.layers.value]
        found = self.update.factors
        return [one for name, one in found.items() if name.split(".")[1] in chosen]

    def singular_values(self) -> np.ndarray:
        """Of the update's matrices, largest first, as the root of the mean of their squares: (R,)."""
        each = np.stack([spectrum(one).numpy() for one in self.parts()])
        return np.sqrt((each**2).mean(0))

    def words(self, choice: tuple) -> str:
        source, rank, layers = choice
        if source == "probe":
            return "Linear probe: the pretrained network, and a head trained for it."
        numbers = sum(rank * (one.A.shape[1] + one.B.shape[0]) for one in self.parts())
        name = {value: text for text, value in self.source.options.items()}[source]
        return f"Rank {rank} of {self.rank.max}, {name}, {layers}: {numbers:,} numbers in the update."

    def shown(self) -> dict[str, tuple]:
        ranks = [r for r in (0, 1, 2, 4, 8, 16) if r <= self.rank.max]
        source, layers = self.source.value, self.layers.value
        return {"linear probe": ("probe", 0, "")} | {f"rank {r}": (source, r, layers) for r in ranks}

    def _draw_spectrum(self, _=None) -> None:
        key, rank = (self.source.value, self.layers.value), self.rank.value
        if getattr(self, "_spectrum_of", None) != key:
            self._spectrum_of, self._values, self._drawn = key, self.singular_values(), {}
        name = "singular values of the whole update; as many as the rank are filled"
        if rank not in self._drawn:
            self._drawn[rank] = pictures.png(pictures.beside({name: pictures.bars(self._values, rank)}))
        self.spectrum.value = self._drawn[rank]
        largest, last = self._values[0], self._values[-1]
        self.spectrum.alt = f"{name}: {rank} of {len(self._values)}, {largest:.3g} to {last:.3g}"
