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
from torch import nn

from labkit.anatomy import blocks, places, swap
from labkit.methods.linear import TunedLinear


class LoRALinear(TunedLinear):
    """A frozen linear layer with an update of rank r on some of its outputs: `parts` of `of` equal ones."""

    def __init__(
        self, original: nn.Linear, parts: tuple[int, ...], of: int, r: int, alpha: float, dropout: float
    ):
        super().__init__(original)
        self.parts, self.of, self.scale = parts, of, alpha / r
        self.A = nn.Parameter(torch.empty(len(parts), r, original.in_features))
        self.B = nn.Parameter(torch.zeros(len(parts), original.out_features // of, r))
        for A in self.A:
            nn.init.kaiming_uniform_(A, a=math.sqrt(5))
        self.dropout = nn.Dropout(dropout)

    def up(self) -> torch.Tensor:
        """All B in one matrix with zeros elsewhere: (d_out, len(parts) * r)."""
        n, d, r = self.B.shape
        placed = self.B.new_zeros(self.of, d, n, r)
        for i, part in enumerate(self.parts):
            placed[part, :, i] = self.B[i]
        return placed.view(self.of * d, n * r)

    def weight_and_bias(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self.original.weight + self.scale * self.up() @ self.A.flatten(0, 1), self.original.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = nn.functional.linear(self.dropout(x), self.A.flatten(0, 1))  # (..., len(parts) * r)
        return self.original(x) + nn.functional.linear(low, self.scale * self.up())


@dataclass(frozen=True)
class LoRA:
    """LoRA on some of a block's linear layers: q, k, v, o, fc1, fc2. `alpha` is `r` by default: scale 1."""

    r: int = 8
    alpha: float | None = None
    targets: tuple[str, ...] = ("q", "v")
    dropout: float = 0.0
    family: ClassVar[str] = "reparameterise"

    def inject(self, backbone: nn.Module) -> None:
        if self.r < 1:
            raise ValueError(
                f"LoRA's rank r is {self.r}; it must be at least 1 (rank 0 is the frozen network: Head())."
            )
        alpha = self.r if self.alpha is None else self.alpha
        for path, (parts, of) in places(self.targets, "LoRA").items():
            for block in blocks(backbone):
                swap(
                    block,
                    path,
                    partial(LoRALinear, parts=parts, of=of, r=self.r, alpha=alpha, dropout=self.dropout),
                )
