"""AdapterExplorer: how wide an adapter, where, in which blocks, and what it adds to each token."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets
import numpy as np
import torch

from labkit.explore import deltas
from labkit.explore.explorer import LOOK, Explorer
from labkit.explore.lazy import Networks
from labkit.methods.bottleneck import After
from labkit.networks.anatomy import blocks
from labkit.scans.case import Case
from labkit.tuning import count

SOURCES = {
    "after attention and MLP, m = 48": "adapter-attn-mlp-48",
    "after attention and MLP, m = 4": "adapter-attn-mlp-4",
    "after attention only, m = 48": "adapter-attn-48",
    "after the MLP only, m = 48": "adapter-mlp-48",
}


class AdapterExplorer(Explorer):
    """Trained adapters that can be switched off block by block; the map shows what one block's add.

    The map is the length of what the adapter adds over the length of what it adds it to, for every token of
    the chosen block, yellow at 1 and above.
    """

    title = "What adapters do to a segmentation"
    page_name = "adapters"
    map_name = "added / there"
    map_ends = ("0", "1+")

    def __init__(self, cases: Sequence[Case] | None = None, sources: dict[str, str] = SOURCES) -> None:
        self.networks = Networks(deltas.network)
        self.source = widgets.Dropdown(options=sources, description="Adapter", **LOOK)
        depth = len(blocks(self.networks[self.source.value][0].backbone))
        self.on = [widgets.Checkbox(value=True, description=f"block {i}", indent=False) for i in range(depth)]
        for box in self.on:
            box.layout.width = "auto"
        self.block = widgets.IntSlider(value=depth - 1, max=depth - 1, description="Map of block", **LOOK)
        self._open(cases, (self.source, *self.on, self.block))
        inputs = self.children[0].children[0]
        switches = widgets.HBox([widgets.Label("Switched on:"), *self.on])
        inputs.children = [self.source, switches, self.block, *inputs.children[-2:]]

    def choice(self) -> tuple:
        return (self.source.value, tuple(box.value for box in self.on), self.block.value)

    def nearby(self) -> list[tuple]:
        source, on, block = self.choice()
        flipped = [(*on[:i], not on[i], *on[i + 1 :]) for i in range(len(on))]
        return [
            *((source, other, block) for other in flipped),
            *((source, on, other) for other in range(len(on))),
            *((other, on, block) for _, other in self.source.options.items()),
        ]

    def network(self, choice: tuple, own: int):
        source, on, _ = choice
        model = self.networks[source][own]
        for block, switched_on in zip(blocks(model.backbone), on, strict=True):
            for wrapper in _adapters(block):
                wrapper.adapter.scale = float(switched_on)
        return model

    def ready(self, choice: tuple) -> bool:
        return choice[0] in self.networks

    def see(self, choice: tuple, own: int, x: torch.Tensor) -> tuple[torch.Tensor, np.ndarray]:
        model, parts = self.network(choice, own), []
        block = blocks(model.backbone)[choice[2]]
        watch = [
            wrapper.adapter.register_forward_hook(
                lambda _m, given, added: parts.append(added.norm(dim=-1) / given[0].norm(dim=-1))
            )
            for wrapper in _adapters(block)
        ]
        try:
            logits = model(x)
        finally:
            for hook in watch:
                hook.remove()
        share = torch.stack(parts).amax(0)[0]  # (N,): of the larger of the two
        side = round(len(share) ** 0.5)
        return logits, share.view(side, side).numpy()

    def words(self, choice: tuple) -> str:
        source, on, block = choice
        name = {value: text for text, value in self.source.options.items()}[source]
        numbers = count(self.networks[source][0]).inserted
        off = [str(i) for i, switched_on in enumerate(on) if not switched_on]
        state = f"switched off in block {', '.join(off)}" if off else "switched on everywhere"
        largest = self.tokens().max()
        return (
            f"Adapters {name}: {numbers:,} numbers, {state}. In block {block} they add up to "
            f"{largest:.2f} of what is there."
        )

    def shown(self) -> dict[str, tuple]:
        source, on, block = self.choice()
        one_off = {f"block {i} off": (source, (*on[:i], False, *on[i + 1 :]), block) for i in range(len(on))}
        return {"all on": (source, on, block)} | one_off | {"all off": (source, (False,) * len(on), block)}


def _adapters(block: torch.nn.Module) -> list[After]:
    return [module for module in block.modules() if isinstance(module, After)]
