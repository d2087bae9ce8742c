"""BitsExplorer: the weights of a network in 32 to 1 bits, with one scale for a matrix or one for each row."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets
import torch
from torch import nn

from labkit.efficient import precision
from labkit.efficient.counting import matrices
from labkit.explore.explorer import LOOK, Explorer
from labkit.explore.lazy import twin
from labkit.explore.prune import MB, gauges, merged
from labkit.scans.case import Case
from labkit.tuning import numel

BITS = (32, 16, 8, 6, 5, 4, 3, 2, 1)
SCALES = {"one for each matrix": False, "one for each row": True}


class BitsExplorer(Explorer):
    """The backbone's matrices in b bits; 2 bits or more have levels up to max |w|, 1 bit is +- mean |w|.

    Bars show the size of the file, the error of the weights and the share of weights that became zero.
    Computing stays in floats: bits change the file, not the time.
    """

    title = "A network in fewer bits"
    page_name = "bits"
    organ = "brain"

    def __init__(
        self, cases: Sequence[Case] | None = None, delta: str = "volumes-lora", bits: Sequence[int] = BITS
    ) -> None:
        self.original = merged(delta)
        self.weights = {name: w.detach() for name, w in matrices(self.original.backbone).items()}
        own = {f"backbone.{name}" for name in self.weights}
        self.networks = [twin(self.original, own.__contains__) for _ in range(2)]
        self.now: list[tuple | None] = [None, None]  # how each of them stands
        self.facts: dict[tuple, dict[str, float]] = {}
        options = [(f"{b} bit" if b == 1 else f"{b} bits", b) for b in bits]
        self.bits = widgets.SelectionSlider(options=options, description="Bits", **LOOK)
        self.scale = widgets.Dropdown(options=SCALES, description="Scale", **LOOK)
        self.gauges = widgets.HTML()
        self._open(cases, (self.bits, self.scale))
        self.children = [*self.children[:2], self.gauges, *self.children[2:]]

    def choice(self) -> tuple[int, bool]:
        return (self.bits.value, self.scale.value)

    def nearby(self) -> list[tuple[int, bool]]:
        bits, per_row = self.choice()
        all_bits = [value for _, value in self.bits.options]
        place = all_bits.index(bits)
        near = sorted(all_bits, key=lambda other: abs(all_bits.index(other) - place))
        return [(near[0], not per_row)] + [(other, per_row) for other in near]

    def idle(self) -> list[widgets.Widget]:
        return [self.scale] if self.bits.value == 32 else []

    def network(self, choice: tuple[int, bool], own: int) -> nn.Module:
        if self.now[own] != choice:
            with torch.no_grad():
                for name, w in matrices(self.networks[own].backbone).items():
                    w.copy_(self.rounded(self.weights[name], choice))
            self.now[own] = choice
        return self.networks[own]

    @staticmethod
    def rounded(w: torch.Tensor, choice: tuple[int, bool]) -> torch.Tensor:
        bits, per_row = choice
        return w if bits == 32 else precision.fake_quantize(w, bits, per_row)

    def fact(self, choice: tuple[int, bool]) -> dict[str, float]:
        """MB of the tensors that `precision.save` writes, ||w-hat - w|| / ||w||, and the share of zeros."""
        if choice not in self.facts:
            bits, per_row = choice
            before = torch.cat([w.flatten() for w in self.weights.values()])
            after = torch.cat([self.rounded(w, choice).flatten() for w in self.weights.values()])
            scales = sum(len(w) if per_row else 1 for w in self.weights.values()) if bits < 32 else 0
            rest = numel(self.original.parameters()) - len(before)
            self.facts[choice] = dict(
                size=(len(before) * bits / 8 + 4 * scales + 4 * rest) / MB,
                error=((after - before).norm() / before.norm()).item(),
                zeros=(after == 0).float().mean().item(),
            )
        return self.facts[choice]

    def _moved(self, _=None) -> None:
        super()._moved()
        now, full = self.fact(self.choice()), self.fact((32, False))["size"]
        self.gauges.value = gauges(
            {
                "file": (now["size"], full, f"{now['size']:.1f} MB of {full:.1f} MB"),
                "error of the weights": (now["error"], 1, f"{now['error']:.1%} of their size"),
                "weights that are 0": (now["zeros"], 1, f"{now['zeros']:.1%}"),
            }
        )

    def words(self, choice: tuple[int, bool]) -> str:
        bits, per_row = choice
        name = {value: text for text, value in SCALES.items()}[per_row]
        levels = {32: "as trained", 1: "two levels, plus and minus the mean |w|"}.get(
            bits, f"{2**bits - 1:,} levels up to the largest |w|"
        )
        now, number = self.fact(choice), dict(map(reversed, self.bits.options))[bits]
        scaled = "" if bits == 32 else f", scale: {name}"
        return (
            f"{number} ({levels}{scaled}): a file of {now['size']:.1f} MB, "
            f"weights off by {now['error']:.1%} of their size, {now['zeros']:.1%} of them 0."
        )

    def shown(self) -> dict[str, tuple[int, bool]]:
        names = {b: name for name, b in self.bits.options}
        found = {"32 bits": (32, False)}
        for bits in (8, 4, 2, 1):
            for what, per_row in (("matrix", False), ("row", True)):
                found[f"{names[bits]}, a {what}"] = (bits, per_row)
        return found
