r"""Towards a Unified View of Parameter-Efficient Transfer Learning. He et al., 2022.

arXiv:2110.04366

$$ \mathrm{F}(x) \leftarrow \mathrm{F}(x) + s \cdot W_{up}\,\mathrm{ReLU}(W_{down}\,x) \; \text{(table 1)} $$

The paper's scaled parallel adapter: beside the MLP, on what the MLP takes in, so both can run at once;
s = 4. W_down starts Kaiming-uniform, W_up and both biases at zero, as in LoRA. On a pre-norm transformer the
MLP takes in LN(x), and so does the adapter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from labkit.methods.bottleneck import Beside, Bottleneck, bottleneck_width, insert


@dataclass(frozen=True)
class ParallelAdapter:
    """A bottleneck of m beside the MLP of every block; `where` may name "attn" too."""

    m: int | None = 64
    reduction: int = 12
    s: float = 4.0
    where: tuple[str, ...] = ("mlp",)
    family: ClassVar[str] = "add"

    def inject(self, backbone: nn.Module) -> None:
        insert(backbone, Beside, self.where, self.bottleneck)

    def bottleneck(self, d: int) -> Bottleneck:
        m = bottleneck_width(d, self.m, self.reduction, "ParallelAdapter")
        return like_lora(Bottleneck(d, m, nn.ReLU(), self.s))


def like_lora(bottleneck: Bottleneck) -> Bottleneck:
    """The same with LoRA's start: Kaiming-uniform below, zeros above, no biases."""
    nn.init.kaiming_uniform_(bottleneck.down.weight, a=math.sqrt(5))
    nn.init.zeros_(bottleneck.down.bias)
    return bottleneck
