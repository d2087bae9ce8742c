r"""LoRA: Low-Rank Adaptation of Large Language Models. Hu et al., 2021, arXiv:2106.09685.

$$ h = W_0 x + \Delta W x = W_0 x + \tfrac{\alpha}{r} B A x \qquad (3) $$

with W_0 frozen, A (r, k) and B (d, r), r << min(d, k). A starts random (Kaiming-uniform, as in the authors'
code; the paper says Gaussian) and B at zero, so the tuned network starts as the pretrained one. After
training, W = W_0 + (alpha / r) B A is one matrix again: no cost at inference.

On timm's fused qkv, (3d, d), each of q, k, v has its own A and B; the fused product stays one matrix product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from labkit.methods.linear import TunedLinear
from labkit.networks.anatomy import blocks, places, swap


def factors(original: nn.Linear, n: int, of: int, r: int) -> tuple[nn.Parameter, nn.Parameter]:
    """A (n, r, k) and B (n, d_out / of, r) as training starts from them."""
    A = nn.Parameter(torch.empty(n, r, original.in_features))
    for one in A:
        nn.init.kaiming_uniform_(one, a=math.sqrt(5))
    return A, nn.Parameter(torch.zeros(n, original.out_features // of, r))


def stacked(B: torch.Tensor, parts: tuple[int, ...], of: int) -> torch.Tensor:
    """All B (n, d, r) in one matrix, zeros elsewhere: (of * d, n * r), the i-th in the rows of parts[i]."""
    n, d, r = B.shape
    placed = B.new_zeros(of, d, n, r)
    for i, part in enumerate(parts):
        placed[part, :, i] = B[i]
    return placed.view(of * d, n * r)


class LoRALinear(TunedLinear):
    """A frozen linear layer with an update of rank r on some of its outputs: `parts` of `of` equal ones."""

    def __init__(
        self, original: nn.Linear, parts: tuple[int, ...], of: int, r: int, alpha: float, dropout: float
    ):
        super().__init__(original)
        self.parts, self.of, self.scale = parts, of, alpha / r
        self.A, self.B = factors(original, len(parts), of, r)
        self.dropout = nn.Dropout(dropout)

    def down_and_up(self) -> tuple[torch.Tensor, torch.Tensor]:
        """All A, (n * r, k), and all (alpha / r) B, (d_out, n * r), of the n parts."""
        return self.A.flatten(0, 1), self.scale * stacked(self.B, self.parts, self.of)

    def weight_and_bias(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        down, up = self.down_and_up()
        return self.original.weight + up @ down, self.original.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = self.scale * F.linear(self.dropout(x), self.A.flatten(0, 1))  # (..., n * r)
        updates = dict(zip(self.parts, low.split(self.A.shape[1], -1), strict=True))
        updates = {part: F.linear(z, B) for (part, z), B in zip(updates.items(), self.B, strict=True)}
        none = low.new_zeros(()).expand(*low.shape[:-1], self.B.shape[1])
        return self.original(x) + torch.cat([updates.get(part, none) for part in range(self.of)], -1)


@dataclass(frozen=True)
class LoRA:
    """LoRA on some of a block's linear layers: q, k, v, o, fc1, fc2. `alpha` is `r` by default: scale 1."""

    r: int = 8
    alpha: float | None = None
    targets: tuple[str, ...] = ("q", "v")
    dropout: float = 0.0
    family: ClassVar[str] = "reparameterise"
    layer: ClassVar[type[nn.Module]] = LoRALinear

    def inject(self, backbone: nn.Module) -> None:
        name = type(self).__name__
        if self.r < 1:
            raise ValueError(
                f"{name}'s rank r is {self.r}; it must be at least 1 (rank 0 is the frozen network: Head())."
            )
        alpha = self.r if self.alpha is None else self.alpha
        for path, (parts, of) in places(self.targets, name).items():
            for block in blocks(backbone):
                swap(
                    block,
                    path,
                    partial(self.layer, parts=parts, of=of, r=self.r, alpha=alpha, dropout=self.dropout),
                )
