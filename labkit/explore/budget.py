"""ParameterBudget: what a method of a size inserts and tunes in three networks, counted by building them."""

from __future__ import annotations

import copy
import html
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import ipywidgets as widgets
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from labkit import methods
from labkit.explore import pictures, plots
from labkit.explore.ahead import Ahead
from labkit.explore.explorer import LOOK
from labkit.explore.live import LivePicture
from labkit.explore.shown import Shown, headless
from labkit.methods.paper import NETWORKS as PAPERS
from labkit.networks.anatomy import LINEARS
from labkit.networks.segmenter import segmenter
from labkit.tuning import Method, count, tune

NETWORKS = {
    "tiny + light decoder": ("tiny", "light"),
    "ViT-B/16 + UPerNet": PAPERS["vit"],
    "Swin-T + Swin-UNet": PAPERS["swin"],
}
SIX = tuple(LINEARS)


@dataclass(frozen=True)
class Choice:
    """A method that can be had in several sizes: how it is made, what its size is called, and at first."""

    make: Callable[[int], Method]
    size: str = ""  # it has none
    first: int = 1
    sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)


CHOICES = {
    "LoRA on q and v": Choice(lambda r: methods.LoRA(r=r), "Rank r", 8),
    "LoRA on all six matrices": Choice(lambda r: methods.LoRA(r=r, targets=SIX), "Rank r", 8),
    "FacT (tensor train)": Choice(lambda r: methods.FacTTT(r=r), "Rank r", 16),
    "Adapter (Houlsby)": Choice(lambda m: methods.Adapter(m=m), "Bottleneck", 64),
    "Parallel adapter": Choice(lambda m: methods.ParallelAdapter(m=m), "Bottleneck", 64),
    "AdaptFormer": Choice(lambda m: methods.AdaptFormer(m=m), "Bottleneck", 64),
    "VPT-shallow": Choice(lambda n: methods.VPTShallow(n=n), "Prompts", 8),
    "VPT-deep": Choice(lambda n: methods.VPTDeep(n=n), "Prompts", 8),
    "ST-Adapter": Choice(lambda m: methods.STAdapter(m=m), "Bottleneck", 128),
    "Med-Tuning": Choice(lambda r: methods.MedTuning(ratio=r), "Width / m", 6, (2, 3, 4, 6, 8, 12, 24)),
    "BitFit": Choice(lambda _: methods.BitFit()),
    "Head alone": Choice(lambda _: methods.Head()),
    "Full": Choice(lambda _: methods.Full()),
}
FROZEN = (221, 221, 221)
COLOURS = {1: pictures.ORANGE, 2: pictures.GREEN, 3: pictures.BLUE, 4: FROZEN}
PARTS = {1: "inserted", 2: "pretrained, learns", 3: "decoder and head", 4: "frozen"}
MIB = 2**20


@dataclass(frozen=True)
class Budget:
    """Numbers of parameters of one network under one method."""

    inserted: int
    own: int  # of the pretrained backbone, that learn
    head: int
    pretrained: int  # the whole network before the method, all of which full tuning tunes

    @property
    def tuned(self) -> int:
        """All parameters that learn."""
        return self.inserted + self.own + self.head

    @property
    def state_mib(self) -> float:
        """Weights, gradients and Adam's two moments in float32, without activations."""
        return 4 * (self.pretrained + self.inserted + 3 * self.tuned) / MIB


@cache
def _untuned(network: str) -> torch.nn.Module:
    backbone, decoder = NETWORKS[network]
    with torch.device("meta"):
        return segmenter(backbone, decoder=decoder, weights=None)


@cache
def _tuned(network: str, method: Method) -> tuple[int, int, int]:
    with torch.device("meta"):
        base = _untuned(network)
        model = copy.deepcopy(base, {id(base.decoder): base.decoder})  # no method touches the decoder
        found = count(tune(model, method))
    return found.tuned, found.inserted, found.pretrained


def budget(network: str, method: Method) -> Budget:
    """Counted on the meta device, where parameters have shapes and no numbers.

    ValueError: the method does not fit the network.
    """
    tuned, inserted, pretrained = _tuned(network, method)
    head = _tuned(network, methods.Head())[0]
    return Budget(inserted, tuned - inserted - head, head, pretrained)


class ParameterBudget(Shown):
    """A method and its size in; counts for three networks out, as bars, as a table and in words.

    The upper bar of a network is all of its parameters, the lower one those that learn. Without a browser
    (LABKIT_HEADLESS=1) it is a picture.
    """

    def __init__(self, choices: dict[str, Choice] = CHOICES) -> None:
        self.choices, self._changing = choices, False
        self.ahead = Ahead(self._count, self._count)
        first = next(iter(choices))
        self.method = widgets.Dropdown(options=list(choices), value=first, description="Method", **LOOK)
        self.size = widgets.SelectionSlider(options=[1], description="Size", **LOOK)
        self.image = LivePicture()
        self.table = widgets.HTML()
        self.said = widgets.HTML(layout={"width": "52em"})
        legend = widgets.HTML(pictures.legend_html(PARTS, COLOURS))
        inputs = widgets.VBox([self.method, self.size])
        super().__init__([widgets.HBox([inputs, legend]), self.image, self.table, self.said])
        self.method.observe(self._another, "value")
        self.size.observe(self._moved, "value")
        self._another()

    def choice(self) -> tuple[str, int]:
        return self.method.value, self.size.value

    def budgets(self) -> dict[str, Budget | str]:
        """For each network what the choice in sight costs, or why the method does not fit it."""
        return self.ahead(self.choice())

    def _count(self, key: tuple[str, int]) -> dict[str, Budget | str]:
        name, size = key
        found: dict[str, Budget | str] = {}
        for network in NETWORKS:
            try:
                found[network] = budget(network, self.choices[name].make(size))
            except ValueError as error:
                found[network] = str(error)
        return found

    def _another(self, _=None) -> None:
        chosen = self.choices[self.method.value]
        self._changing = True
        self.size.options = chosen.sizes if chosen.size else (chosen.first,)
        self.size.value, self.size.disabled = chosen.first, not chosen.size
        self.size.description = chosen.size or "No size"
        self._changing = False
        self._moved()

    def _moved(self, _=None) -> None:
        if self._changing:
            return
        self.image.value = pictures.png(self.picture())
        self.table.value = self._table()
        self.image.alt = said = self.describe()
        self.said.value = f"<div role='status' style='line-height:1.5'>{html.escape(said)}</div>"
        if not headless():
            name, sizes, now = self.method.value, self.size.options, self.size.index
            near = sorted(range(len(sizes)), key=lambda i: abs(i - now))
            others = [(other, one.first) for other, one in self.choices.items()]
            self.ahead.rest([(name, sizes[i]) for i in near] + others)

    def picture(self) -> np.ndarray:
        """Two bars for each network: all parameters, and those that learn; (h, w, 3) uint8."""
        width, height, left = 760, 92, 10
        drawn = Image.new("RGB", (width, height * len(NETWORKS)), "white")
        pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(size=14)
        for i, (network, found) in enumerate(self.budgets().items()):
            top = i * height
            if isinstance(found, str):
                pen.text((left, top + 8), f"{network}: not possible, see below", font=font, fill="black")
                continue
            share = f"{found.tuned / found.pretrained:.2%} of full tuning learns"
            pen.text((left, top + 8), f"{network}: {share}", font=font, fill="black")
            rest = found.pretrained + found.inserted - found.tuned
            parts = {1: found.inserted, 2: found.own, 3: found.head}
            for y, of, name in ((top + 28, parts | {4: rest}, "all"), (top + 54, parts, "that learn")):
                _bar(pen, (left + 80, y, width - 10, y + 20), of)
                pen.text((left, y + 10), name, anchor="lm", font=font, fill="black")
        return np.asarray(drawn)

    def _table(self) -> str:
        head = "".join(
            f"<th scope='col' style='text-align:right;padding-left:1.5em'>{text}</th>"
            for text in ("network", "inserted", "tuned, with head", "share of full", "weights to Adam, MiB")
        )
        cell = "<td style='text-align:right;padding-left:1.5em'>{}</td>"
        rows = []
        for network, one in self.budgets().items():
            if not isinstance(one, str):
                share = f"{one.tuned / one.pretrained:.2%}"
                cells = (f"{one.inserted:,}", f"{one.tuned:,}", share, f"{one.state_mib:,.0f}")
                rows.append(f"<tr><th scope='row'>{network}</th>{''.join(map(cell.format, cells))}</tr>")
        return f"<table><tr>{head}</tr>{''.join(rows)}</table>"

    def describe(self) -> str:
        """The choice in words, network by network."""
        name, size = self.choice()
        what = self.choices[name].size
        said = [f"{name}, {what} = {size}." if what else f"{name}."]
        for network, one in self.budgets().items():
            if isinstance(one, str):
                said.append(f"{network}: {one}")
                continue
            said.append(
                f"{network}: {one.inserted:,} inserted; {one.tuned:,} learn, "
                f"{one.tuned / one.pretrained:.2%} of what full tuning tunes; "
                f"{one.head / one.tuned:.1%} of these are decoder and head."
            )
        return " ".join([*said, "Weights to Adam: float32, without activations."])

    def static(self) -> plots.Picture:
        """The choice in sight as a picture under its legend."""
        drawn = self.picture()
        page = np.concatenate([pictures.legend_row(PARTS, COLOURS, drawn.shape[1]), drawn])
        return plots.Picture(pictures.png(page), self.describe())


def _bar(pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], parts: dict[int, int]) -> None:
    """Shares of a whole from left to right, in the order of PARTS; what is inserted is hatched, too."""
    left, top, right, bottom = box
    total, x = max(sum(parts.values()), 1), float(left)
    for part, n in parts.items():
        wide = n / total * (right - left)
        if n:
            pen.rectangle((x, top, x + wide, bottom), fill=COLOURS[part])
            pen.line((x, top, x, bottom), fill="black")
            for at in np.arange(x + 6, x + wide, 8) if part == 1 else ():
                pen.line((at, top, at, bottom), fill="black")
        x += wide
    pen.rectangle(box, outline="black")
