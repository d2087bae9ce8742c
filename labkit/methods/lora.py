r"""LoRA: Low-Rank Adaptation of Large Language Models. Hu et al., 2021, arXiv:2106.09685.

$$ h = W_0 x + \Delta W x = W_0 x + \tfrac{\alpha}{r} B A x \qquad (3) $$

with W_0 frozen, A (r, k) and B (d, r), r << min(d, k). A starts random (Kaiming-uniform, as in the authors'
code; the paper says Gaussian) and B at zero, so the tuned network starts as the pretrained one. After
training, W = W_0 + (alpha / r) B A is one matrix again: no cost at inference.

On timm's fused qkv, (3d, d), each of q, k, v has its own A and B; the fused product stays one matrix product.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from labkit.anatomy import LINEARS, blocks, swap
from labkit.methods.linear import TunedLinear


class LoRALinear(TunedLinear):
    """A frozen linear layer with an update of rank r on some `thirds` of its outputs or, (None,), on all."""

    def __init__(
        self, original: nn.Linear, thirds: tuple[int | None, ...], r: int, alpha: float, dropout: float
    ):
        super().__init__(original)
        self.thirds, self.scale = thirds, alpha / r
        d = original.out_features // (1 if thirds == (None,) else 3)
        self.A = nn.Parameter(torch.empty(len(thirds), r, original.in_features))
        self.B = nn.Parameter(torch.zeros(len(thirds), d, r))
        for A in self.A:
            nn.init.kaiming_uniform_(A, a=math.sqrt(5))
        self.dropout = nn.Dropout(dropout)

    def up(self) -> torch.Tensor:
        """All B in one matrix with zeros elsewhere: (d_out, len(thirds) * r)."""
        if self.thirds == (None,):
            return self.B[0]
        placed = [torch.zeros_like(self.B[0].detach())] * 3
        rows = [[placed[0]] * len(self.thirds) for _ in range(3)]
        for column, third in enumerate(self.thirds):
            rows[third][column] = self.B[column]
        return torch.cat([torch.cat(row, 1) for row in rows])

    def weight_and_bias(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self.original.weight + self.scale * self.up() @ self.A.flatten(0, 1), self.original.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = nn.functional.linear(self.dropout(x), self.A.flatten(0, 1))  # (..., len(thirds) * r)
        return self.original(x) + nn.functional.linear(low, self.scale * self.up())


@dataclass(frozen=True)
class LoRA:
    """LoRA on some of a block's linear layers: q, k, v, o, fc1, fc2. `alpha` is `r` by default: scale 1."""

    r: int = 8
    alpha: float | None = None
    targets: tuple[str, ...] = ("q", "v")
    dropout: float = 0.0

    def inject(self, backbone: nn.Module) -> None:
        if self.r < 1:
            raise ValueError(
                f"LoRA's rank r is {self.r}; it must be at least 1 (rank 0 is the frozen network: Head())."
            )
        unknown = set(self.targets) - LINEARS.keys()
        if unknown or not self.targets:
            raise ValueError(f"LoRA can't be put on {self.targets!r}; choose some of {', '.join(LINEARS)}.")
        places = defaultdict(list)  # module -> its thirds
        for target in sorted(set(self.targets), key=list(LINEARS).index):
            path, third = LINEARS[target]
            places[path].append(third)
        for block in blocks(backbone):
            for path, thirds in places.items():
                swap(
                    block,
                    path,
                    partial(
                        LoRALinear,
                        thirds=tuple(thirds),
                        r=self.r,
                        alpha=self.alpha or self.r,
                        dropout=self.dropout,
                    ),
                )
