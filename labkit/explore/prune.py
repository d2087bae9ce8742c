"""PruneExplorer: how much of a network can be removed, in which way, and which costs that changes."""

from __future__ import annotations

import html
import time
from collections.abc import Mapping, Sequence

import ipywidgets as widgets
import torch
from torch import nn

from labkit.efficient import prune
from labkit.efficient.counting import matrices
from labkit.explore import deltas, plots
from labkit.explore.explorer import LOOK, Explorer
from labkit.explore.lazy import twin
from labkit.scans.case import Case
from labkit.training.quick import REPEATS, at_most
from labkit.tuning import merge, numel

WAYS = {
    "smallest weights of all": "global",
    "smallest weights of each layer": "layer",
    "weakest units of each MLP": "units",
}
SHARES = (0, 25, 50, 60, 70, 80, 90)  # per cent
MB = 1e6


def merged(delta: str) -> nn.Module:
    """A trained network of the kit as one: its LoRA added to the matrices it belongs to."""
    with torch.random.fork_rng(devices=[]):  # a plain layer, made for its merged matrix, draws one first
        model = merge(deltas.network(delta)).eval()
    model.merged_from = []  # W0, which takes as much memory again and is of use to `unmerge` alone
    return model


@torch.inference_mode()
def milliseconds(model: nn.Module, x: torch.Tensor, repeats: int = 5) -> float:
    """The fastest of some forward passes, the first among them: whatever else runs can only add to it."""
    seconds = []
    for _ in range(at_most(1 + repeats, REPEATS)):
        start = time.perf_counter()
        model(x)
        seconds.append(time.perf_counter() - start)
    return 1000 * min(seconds)


def gauges(rows: Mapping[str, tuple[float, float, str]]) -> str:
    """HTML of labelled bars: {name: (value, the value of a full bar, the value in words)}."""
    lines = []
    for name, (value, full, text) in rows.items():
        width = 100 * min(max(value / full, 0), 1)
        bar = f"<div style='width:{width:.1f}%;height:0.9em;background:#0072B2'></div>"
        frame = f"<div aria-hidden='true' style='width:14em;border:1px solid #555'>{bar}</div>"
        cells = (html.escape(name), frame, html.escape(text))
        lines.append("<tr>" + "".join(f"<td style='padding:1px 8px'>{cell}</td>" for cell in cells) + "</tr>")
    return f"<table>{''.join(lines)}</table>"


class PruneExplorer(Explorer):
    """The backbone of a trained network with a share removed: single weights (set to zero) or whole units.

    Bars show weights left, the file as it is saved, the file with the zeros left out, and the measured time
    of a slice, each beside that of the whole network. Nothing is trained after the removal.
    """

    title = "A network with a share of its weights removed"
    page_name = "prune"
    organ = "brain"

    def __init__(
        self, cases: Sequence[Case] | None = None, delta: str = "volumes-lora", shares: Sequence[int] = SHARES
    ) -> None:
        self.original = merged(delta)
        self.weights = {name: w.detach() for name, w in matrices(self.original.backbone).items()}
        self.ranks: dict[str, dict[str, torch.Tensor]] = {}  # by way, once it was looked at
        own = {f"backbone.{name}" for name in self.weights}
        self.masked = [twin(self.original, own.__contains__) for _ in range(2)]
        self.now: list[tuple | None] = [None, None]  # how each of them stands
        self.dropped: dict[int, tuple[nn.Module, nn.Module]] = {}
        self.costs: dict[tuple, dict[str, float]] = {}
        self.times: dict[tuple, float] = {}  # milliseconds of the fastest pass that was seen so far
        self.way = widgets.Dropdown(options=WAYS, description="Remove", **LOOK)
        options = [(f"{share} %", share) for share in shares]
        self.share = widgets.SelectionSlider(options=options, description="Share", **LOOK)
        self.gauges = widgets.HTML()
        self._open(cases, (self.way, self.share))
        self.main = self.share
        self.children = [*self.children[:2], self.gauges, *self.children[2:]]

    def choice(self) -> tuple[str, int]:
        return (self.way.value, self.share.value)

    def nearby(self) -> list[tuple[str, int]]:
        way, share = self.choice()
        shares = sorted((value for _, value in self.share.options), key=lambda other: abs(other - share))
        return [(way, other) for other in shares] + [(other, share) for other in WAYS.values()]

    def idle(self) -> list[widgets.Widget]:
        return [] if self.share.value else [self.way]

    def network(self, choice: tuple[str, int], own: int) -> nn.Module:
        way, share = choice
        if way == "units":
            if share not in self.dropped:
                with torch.inference_mode(False):  # of ordinary tensors, whoever asks
                    model = twin(self.original)
                    prune.drop_mlp_units(model.backbone, share / 100)
                    self.dropped[share] = (model, twin(model))
            return self.dropped[share][own]
        if self.now[own] != choice:
            own_weights = matrices(self.masked[own].backbone)
            with torch.no_grad():
                for name, keep in self.masks(choice).items():
                    torch.mul(self.weights[name], keep, out=own_weights[name].data)
            self.now[own] = choice
        return self.masked[own]

    def see(self, choice: tuple[str, int], own: int, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        model = self.network(choice, own)
        start = time.perf_counter()
        logits = model(x)
        passed = 1000 * (time.perf_counter() - start)
        self.times[choice] = min(passed, self.times.get(choice, passed))
        return logits, None

    def masks(self, choice: tuple[str, int]) -> dict[str, torch.Tensor]:
        """True where a weight stays."""
        way, share = choice
        n = {name: w.numel() for name, w in self.weights.items()}
        total = sum(n.values())
        return {
            name: ranks >= round(share / 100 * (total if way == "global" else n[name]))
            for name, ranks in self._ranks(way).items()
        }

    def _ranks(self, way: str) -> dict[str, torch.Tensor]:
        """The place of each weight in the order of all or of its layer; any share is then a comparison."""
        if way not in self.ranks and way == "layer":
            self.ranks[way] = {name: prune.ranks(w) for name, w in self.weights.items()}
        elif way not in self.ranks:
            flat = prune.ranks(torch.cat([w.flatten() for w in self.weights.values()]))
            parts = flat.split([w.numel() for w in self.weights.values()])
            self.ranks[way] = {
                name: part.view(w.shape) for (name, w), part in zip(self.weights.items(), parts, strict=True)
            }
        return self.ranks[way]

    def cost(self, choice: tuple[str, int]) -> dict[str, float]:
        """Weights of the matrices that are not zero; MB of the file as saved, and of one that has a bit for
        each place of a matrix and 4 bytes for each weight left; milliseconds of a slice."""
        if choice not in self.costs:
            model = self.network(choice, own=0)
            found = list(matrices(model.backbone).values())
            places, left = numel(found), sum(int(w.count_nonzero()) for w in found)
            dense = 4 * numel(model.parameters())
            packed = min(dense, dense - 4 * places + 4 * left + places / 8)
            self.costs[choice] = dict(left=left, dense=dense / MB, packed=packed / MB)
        if choice not in self.times:  # nothing was segmented by it
            self._measure(choice)
        return self.costs[choice] | dict(time=self.times[choice])

    def _measure(self, choice: tuple[str, int]) -> None:
        found = milliseconds(self.network(choice, own=0), self.volumes[0].image[:1])
        self.times[choice] = min(found, self.times.get(choice, found))

    def _moved(self, _=None) -> None:
        super()._moved()
        first, now = self.cost(("global", 0)), self.cost(self.choice())
        text = {
            "left": ("weights left", "{:,}"),
            "dense": ("file as saved", "{:.1f} MB"),
            "packed": ("file without zeros", "{:.1f} MB"),
            "time": ("time of a slice", "{:.0f} ms"),
        }
        self.gauges.value = gauges(
            {
                name: (now[key], first[key], f"{form} of {form}".format(now[key], first[key]))
                for key, (name, form) in text.items()
            }
        )

    def words(self, choice: tuple[str, int]) -> str:
        way, share = choice
        name = {value: text for text, value in WAYS.items()}[way]
        first, now = self.cost(("global", 0)), self.cost(choice)
        return (
            f"Without {share} % ({name}): {now['left']:,} of {first['left']:,} weights left, the file "
            f"{now['dense']:.1f} MB as saved and {now['packed']:.1f} MB without zeros, a slice in "
            f"{now['time']:.0f} ms (whole network: {first['dense']:.1f} MB, {first['time']:.0f} ms)."
        )

    def shown(self) -> dict[str, tuple[str, int]]:
        pairs = [("global", 50), ("layer", 50), ("units", 50), ("global", 80), ("layer", 80), ("units", 80)]
        return {"whole network": ("global", 0)} | {f"{way}, {share} %": (way, share) for way, share in pairs}

    def static(self) -> plots.Picture:
        """The picture of all explorers; its words end with what each choice costs."""
        picture = super().static()
        for choice in self.in_still().values():
            self._measure(choice)  # a network's first pass is slow
        costs = {name: self.cost(choice) for name, choice in self.in_still().items()}
        told = "; ".join(f"{n}: {c['dense']:.1f} MB as saved, {c['time']:.0f} ms" for n, c in costs.items())
        return plots.Picture(picture.data, f"{picture.alt} A file and a slice: {told}.")
