r"""AdapterDrop: On the Efficiency of Adapters in Transformers. Rücklé et al., 2021, arXiv:2010.11918.

Adapters (Houlsby et al., 2019: `adapter.py`) in all blocks but the first n. Below the first adapter nothing
is trained, so the backward pass ends there, and several tasks can share what those n blocks compute. This is
the paper's specialised variant: n is fixed while training; its robust variant draws n anew for every batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from labkit.methods.adapter import Adapter
from labkit.methods.bottleneck import After, insert
from labkit.networks.anatomy import blocks


@dataclass(frozen=True)
class AdapterDrop:
    """Adapters everywhere but in the first n blocks."""

    n: int = 1
    m: int | None = None
    reduction: int = 8
    family: ClassVar[str] = "add"

    def inject(self, backbone: nn.Module) -> None:
        depth = len(blocks(backbone))
        if not 0 <= self.n < depth:
            raise ValueError(
                f"AdapterDrop can't leave out the first {self.n} of {depth} blocks; n must be 0 to "
                f"{depth - 1}."
            )
        adapter = Adapter(self.m, self.reduction)
        insert(backbone, After, adapter.where, adapter.bottleneck, first=self.n)
