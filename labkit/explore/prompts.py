"""PromptExplorer: how many prompts, shallow or deep, and how much attention each token pays to them."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets
import numpy as np
import torch

from labkit.explore import deltas
from labkit.explore.explorer import LOOK, Explorer
from labkit.explore.lazy import Networks
from labkit.methods.attention import attention_to_prompts
from labkit.networks.anatomy import blocks
from labkit.scans.case import Case
from labkit.tuning import count

SOURCES = {  # depth and number of prompts -> delta; without prompts it is the linear probe
    ("deep", 0): "probe",
    ("deep", 1): "prompts-deep-1",
    ("deep", 10): "prompts-deep-10",
    ("deep", 50): "prompts-deep-50",
    ("shallow", 0): "probe",
    ("shallow", 10): "prompts-shallow-10",
}
HEADS = ("all heads", *range(6))


class PromptExplorer(Explorer):
    """Prompts of several trainings; the map is each token's share of attention that goes to prompts.

    The share is that of one block and of one head, or the mean of its heads: 0 where a token ignores all
    prompts, 1 (bright yellow) where it sees nothing else.
    """

    title = "What prompts do to a segmentation"
    page_name = "prompts"
    map_name = "share to prompts"

    def __init__(
        self, cases: Sequence[Case] | None = None, sources: dict[tuple[str, int], str] = SOURCES
    ) -> None:
        self.sources = sources
        self.networks = Networks(deltas.network)
        self.depth = widgets.Dropdown(options=list(dict.fromkeys(d for d, _ in sources)), **LOOK)
        self.depth.description = "Prompts in"
        self.number = widgets.SelectionSlider(options=self._numbers(), description="How many", **LOOK)
        self.number.value = max(n for n in self._numbers() if n <= 10)
        last = len(blocks(self.networks[sources[self.depth.value, self.number.value]][0].backbone)) - 1
        self.block = widgets.IntSlider(value=last, max=last, description="Map of block", **LOOK)
        self.head = widgets.Dropdown(options=list(HEADS), description="Map of head", **LOOK)
        self.depth.observe(self._other_numbers, "value")
        self._open(cases, (self.depth, self.number, self.block, self.head))
        self.main = self.number

    def _numbers(self) -> list[int]:
        return sorted(n for depth, n in self.sources if depth == self.depth.value)

    def _other_numbers(self, _=None) -> None:
        n = self.number.value
        self.number.options = self._numbers()
        self.number.value = n if n in self._numbers() else max(self._numbers())

    def choice(self) -> tuple:
        return (self.depth.value, self.number.value, self.block.value, self.head.value)

    def nearby(self) -> list[tuple]:
        depth, n, block, head = self.choice()
        return [
            *((depth, other, block, head) for other in self._numbers()),
            *((depth, n, other, head) for other in range(self.block.max + 1)),
            *((depth, n, block, other) for other in HEADS),
        ]

    def idle(self) -> list[widgets.Widget]:
        return [] if self.number.value else [self.block, self.head]

    def network(self, choice: tuple, own: int):
        return self.networks[self.sources[choice[:2]]][own]

    def ready(self, choice: tuple) -> bool:
        return self.sources[choice[:2]] in self.networks

    def see(self, choice: tuple, own: int, x: torch.Tensor) -> tuple[torch.Tensor, np.ndarray]:
        model, (_, n, block, head) = self.network(choice, own), choice
        arrived = []
        watch = blocks(model.backbone)[block].register_forward_pre_hook(
            lambda _m, given: arrived.append(given[0])
        )
        try:
            logits = model(x)
        finally:
            watch.remove()
        side = round(arrived[0].shape[1] ** 0.5)
        if n == 0:
            return logits, np.zeros((side, side))
        shares = attention_to_prompts(blocks(model.backbone)[block], arrived[0])[0].sum(-1)  # (heads, N)
        chosen = shares.mean(0) if head == HEADS[0] else shares[head]
        return logits, chosen.view(side, side).numpy()

    def words(self, choice: tuple) -> str:
        depth, n, block, head = choice
        if n == 0:
            return "No prompts: the linear probe."
        numbers = count(self.network(choice, 0)).inserted
        where = "before the first block" if depth == "shallow" else "in every block"
        whose = f"head {head}" if head != HEADS[0] else "a head on average"
        share = self.tokens()
        return (
            f"{n} prompt{'s' * (n > 1)} {where}: {numbers:,} numbers. In block {block} {whose} gives them "
            f"{share.min():.0%} to {share.max():.0%} of a token's attention."
        )

    def shown(self) -> dict[str, tuple]:
        _, _, block, head = self.choice()
        return {
            "no prompts (probe)" if n == 0 else f"{depth}, n = {n}": (depth, n, block, head)
            for depth, n in self.sources
            if n or depth == self.depth.options[0]
        }
