r"""Compacter: Efficient Low-Rank Hypercomplex Adapter Layers. Karimi Mahabadi et al., 2021, arXiv:2106.04647.

$$ W = \sum_{i=1}^{n} A_i \otimes (s_i\, t_i^\top) \qquad (6, 7) $$

Sequential adapters whose two matrices are sums of n Kronecker products: of rules A_i (n, n), which all
layers share, with matrices of rank 1. W is (n p, n q) for s_i (p), t_i (q): n (p + q) numbers instead of
n² p q. GELU between, after the attention and after the MLP of every block. s and t start Glorot-uniform, but
the s of the up-projection and the biases at zero, so the tuned network starts as the pretrained one (the
paper: nearly). m is d / reduction, and at least n.

Deviations. The rules start normal with deviation n^-1/2, so that W_down starts as large as a plain matrix
would; the released code starts them at N(0, 1e-4), and what leaves W_down is then some 2,500 times smaller.
Its s and t are Glorot-uniform too, but each term with gain sqrt 2. It trains the layer norms as well (36,864
parameters of a ViT-B), which stay frozen here, and its GELU is the tanh approximation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from labkit.methods.bottleneck import After, Bottleneck, insert


class Rules(nn.Module):
    """The n rules A (n, n, n) that every layer of a network shares."""

    def __init__(self, n: int):
        super().__init__()
        self.A = nn.Parameter(torch.empty(n, n, n).normal_(std=n**-0.5))


class KroneckerLinear(nn.Module):
    """(..., d_in) -> (..., d_out) by a sum of Kronecker products; both widths must be multiples of n."""

    def __init__(self, d_in: int, d_out: int, rules: Rules):
        super().__init__()
        n = len(rules.A)
        if d_in % n or d_out % n:
            raise ValueError(f"Compacter cuts widths into n = {n} parts, but {d_in} -> {d_out} can't be.")
        self.rules = rules
        self.s = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n, d_out // n)))
        self.t = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n, d_in // n)))
        self.bias = nn.Parameter(torch.zeros(d_out))

    def weight(self) -> torch.Tensor:
        """(d_out, d_in)"""
        terms = torch.einsum("ijk,ip,iq->jpkq", self.rules.A, self.s, self.t)  # (n, p, n, q)
        return terms.flatten(2).flatten(0, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight(), self.bias)


@dataclass(frozen=True)
class Compacter:
    """Kronecker adapters after the attention and after the MLP; where=("mlp",) is the paper's Compacter++."""

    n: int = 4
    reduction: int = 32
    where: tuple[str, ...] = ("attn", "mlp")
    family: ClassVar[str] = "add"

    def inject(self, backbone: nn.Module) -> None:
        if self.n < 1:
            raise ValueError(f"Compacter needs at least 1 Kronecker product, not {self.n}.")
        rules = Rules(self.n)

        def adapter(d: int) -> Bottleneck:
            m = max(self.n, d // self.reduction)
            bottleneck = Bottleneck(d, m, nn.GELU())
            bottleneck.down, bottleneck.up = KroneckerLinear(d, m, rules), KroneckerLinear(m, d, rules)
            nn.init.zeros_(bottleneck.up.s)
            return bottleneck

        insert(backbone, After, self.where, adapter)
