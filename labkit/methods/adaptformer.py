r"""AdaptFormer: Adapting Vision Transformers for Scalable Visual Recognition. Chen et al., 2022.

arXiv:2205.13535

$$ \tilde x = \mathrm{ReLU}(\mathrm{LN}(x')\,W_{down})\,W_{up}, \qquad
   x = \mathrm{MLP}(\mathrm{LN}(x')) + s\,\tilde x + x' \qquad (3, 4) $$

A parallel adapter made for vision: beside the MLP, m = 64 at any width, s = 0.1 fixed, dropout 0.1 in the
middle. LN is the block's own, as in the equation; the authors' code gives the adapter x' without it. W_down
starts Kaiming-uniform, W_up and the biases at zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from labkit.methods.bottleneck import Beside, Bottleneck, bottleneck_width, insert
from labkit.methods.parallel_adapter import like_lora


@dataclass(frozen=True)
class AdaptFormer:
    """A scaled bottleneck of m beside the MLP of every block."""

    m: int = 64
    s: float = 0.1
    dropout: float = 0.1
    family: ClassVar[str] = "add"

    def inject(self, backbone: nn.Module) -> None:
        insert(backbone, Beside, ("mlp",), self.bottleneck)

    def bottleneck(self, d: int) -> Bottleneck:
        m = bottleneck_width(d, self.m, 1, "AdaptFormer")
        return like_lora(Bottleneck(d, m, nn.ReLU(), self.s, self.dropout))
