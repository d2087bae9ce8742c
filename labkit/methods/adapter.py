r"""Parameter-Efficient Transfer Learning for NLP. Houlsby et al., 2019, arXiv:1902.00751.

$$ x \leftarrow x + \mathrm{ADT}(\mathrm{F}(x)), \quad
   \mathrm{ADT}(y) = y + W_{up}\,\sigma(W_{down}\,y + b) + b' $$

A sequential adapter: W_down (m, d), W_up (d, m), m << d, GELU between, after the attention and after the MLP
of every block, before what they give out is added to the stream. Deviations: W_up and b' start at zero (the
paper: a normal of deviation 1e-2), so the tuned network starts as the pretrained one to the bit; and the
layer norms stay frozen, which the authors' code trains too. Their GELU is the tanh approximation, at most
5e-4 from this exact one, and their W_down starts normal with deviation 1e-3; here as PyTorch's linear layers
do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from labkit.methods.bottleneck import After, Bottleneck, bottleneck_width, insert


@dataclass(frozen=True)
class Adapter:
    """A bottleneck of m (by default d / reduction) after the attention and after the MLP of every block."""

    m: int | None = None
    reduction: int = 8
    where: tuple[str, ...] = ("attn", "mlp")
    family: ClassVar[str] = "add"

    def inject(self, backbone: nn.Module) -> None:
        insert(backbone, After, self.where, self.bottleneck)

    def bottleneck(self, d: int) -> Bottleneck:
        return Bottleneck(d, bottleneck_width(d, self.m, self.reduction, "Adapter"), nn.GELU())
