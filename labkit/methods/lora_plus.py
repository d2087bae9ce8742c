r"""LoRA+: Efficient Low Rank Adaptation of Large Models. Hayou, Ghosh and Yu, 2024, arXiv:2402.12354.

$$ A \leftarrow A - \eta_A\, G_A, \qquad B \leftarrow B - \lambda \eta_A\, G_B, \qquad \lambda > 1 $$

G what Adam makes of the gradients. The weights, their initial values and their number are LoRA's; what is new
is that B learns lambda times as fast as A. The paper's reason: in a wide network (width n) with one rate for
both, the two can't both learn efficiently; eta_A of the order 1/n and eta_B of the order 1 let them. It fixes
the order of lambda and no number; lambda about 2^4 is what its experiments recommend, on top of a rate for A
that is tuned (often below LoRA's own).

Deviation: the authors' code gives the ratio to every parameter of one dimension too, norms and biases of the
head say; here B alone has it, as in the paper.

The ratio means something only to optimisers that normalise the gradient, such as Adam.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from labkit.methods.lora import LoRA, LoRAConv, LoRALinear


class LoRAPlusLinear(LoRALinear):
    """LoRA's layer, known by its class to the optimizer's groups."""


class LoRAPlusConv(LoRAConv):
    """LoRA's convolution, likewise."""


@dataclass(frozen=True)
class LoRAPlus(LoRA):
    """LoRA whose B learns `ratio` (the paper's lambda) times as fast as its A."""

    ratio: float = 16.0
    layer: ClassVar[type[nn.Module]] = LoRAPlusLinear
    convolution: ClassVar[type[nn.Module]] = LoRAPlusConv

    def inject(self, backbone: nn.Module) -> None:
        if not self.ratio > 0:
            raise ValueError(
                f"LoRAPlus's ratio is {self.ratio}; it multiplies the learning rate of B, so give a number "
                "above 0 (1 is LoRA, 16 what the paper recommends)."
            )
        super().inject(backbone)

    def rates(self, model: nn.Module) -> dict[nn.Parameter, float]:
        """What multiplies the learning rate: `ratio` for each of its B, whatever was put around them."""
        return {
            layer.B: self.ratio
            for layer in model.modules()
            if isinstance(layer, (LoRAPlusLinear, LoRAPlusConv))
        }
