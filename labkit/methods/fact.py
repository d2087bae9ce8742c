r"""FacT: Factor-Tuning for Lightweight Adaptation on Vision Transformer.
Jie and Deng, 2023, arXiv:2212.03145.

All updates of a ViT are one tensor: its matrices are cut into d x d slices (q, k, v, o one each, fc1 and fc2
four each when d_ff = 4 d: 12 L for L blocks) and the tensor of all slices is factored, U and V shared by all:

$$ \Delta W_i = s\, U \Sigma_i V^\top, \qquad U, V \in \mathbb{R}^{d \times r}, \quad
   \Sigma_i \in \mathbb{R}^{r \times r} $$

- Tensor-train (FacT-TT): every Sigma_i is free; 2 d r + 12 L r^2 parameters.
- Tucker (FacT-TK): $\Sigma_i = \sum_t P_{it} C_t$ with C (r, r, r), P (12 L, r); 2 d r + 12 L r + r^3.

Delta W acts on row vectors, x Delta W, so PyTorch's weight gets its transpose. V starts at zero and the tuned
network as the pretrained one; U and Sigma start Kaiming-, P and C Xavier-uniform, as in the authors' code,
but for the Sigma of fc2's four slices: within 1 / sqrt(4 r) there, since they hold them as one matrix (r, 4
r), within 1 / sqrt(r) here as all others.

Deviations. The released FacT-TK is not the paper's on fc1 and fc2: there the four cores (r, r, 4) become one
matrix (r, 4 r) by a reshape without the transposition before it, which mixes the index of the rank with that
of the slice; the result is no sum of Tucker slices. Here they are the paper's. Their code drops out a tenth
of x U Sigma; here is no dropout. They tune s, from .01 to 100, on every task; here it is 1. A network that
widens (Swin) has one tensor, so one U, V and C, per width. Where d_ff is no multiple of d (2.5 d in the
laptop's `tiny`) fc1 and fc2 can't be cut: attention only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import nn

from labkit.methods.linear import TunedLinear
from labkit.networks.anatomy import LINEARS, blocks, innermost, named_layers, places, swap, width


class TensorTrain(nn.Module):
    """The factors of n slices of width d."""

    def __init__(self, n: int, d: int, r: int):
        super().__init__()
        self.U = nn.Parameter(uniform(1 / math.sqrt(d), d, r))
        self.V = nn.Parameter(torch.zeros(d, r))
        self.core(n, r)

    def core(self, n: int, r: int) -> None:
        self.Sigma = nn.Parameter(uniform(1 / math.sqrt(r), n, r, r))

    def cores(self, some: slice) -> torch.Tensor:
        """Sigma_i of some of the slices: (n, r, r)."""
        return self.Sigma[some]


class Tucker(TensorTrain):
    def core(self, n: int, r: int) -> None:
        self.C = nn.Parameter(uniform(math.sqrt(6 / (r * r + r * r)), r, r, r))
        self.P = nn.Parameter(uniform(math.sqrt(6 / (n + r)), n, r))

    def cores(self, some: slice) -> torch.Tensor:
        return torch.einsum("it,tjk->ijk", self.P[some], self.C)


def uniform(bound: float, *shape: int) -> torch.Tensor:
    return torch.empty(shape).uniform_(-bound, bound)


class FacTLinear(TunedLinear):
    """A frozen linear layer of `of` x `inputs` slices; those in the rows of `parts` are tuned.

    `factors` is one object for all layers of a width, of which this one has the slices from `first` on.
    """

    def __init__(self, original: nn.Linear, factors: TensorTrain, first: int, parts, of: int, s: float):
        super().__init__(original)
        self.factors, self.parts, self.s = factors, parts, s
        self.of, self.inputs = of, original.in_features // len(factors.U)
        self.mine = slice(first, first + len(parts) * self.inputs)

    def placed(self) -> torch.Tensor:
        """s Sigma of every slice, zeros where none is tuned: (of, inputs, r, r)."""
        Sigma = self.s * self.factors.cores(self.mine)
        Sigma = Sigma.unflatten(0, (len(self.parts), self.inputs))
        whole = Sigma.new_zeros(self.of, *Sigma.shape[1:])
        whole[list(self.parts)] = Sigma
        return whole

    def weight_and_bias(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        U, V = self.factors.U, self.factors.V
        update = torch.einsum("jp,oipq,kq->okij", U, self.placed(), V)  # U Sigma V', transposed
        return self.original.weight + update.flatten(2).flatten(0, 1), self.original.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = x.unflatten(-1, (self.inputs, -1)) @ self.factors.U  # (..., inputs, r)
        low = torch.einsum("...ip,oipq->...oq", low, self.placed())  # (..., of, r)
        return self.original(x) + (low @ self.factors.V.mT).flatten(-2)


def own_names(targets: tuple[str, ...] | str | None) -> bool:
    """Whether targets are a network's own names of its layers, not q, k, v, o, fc1, fc2 of a block."""
    return targets is not None and not (set(targets) <= LINEARS.keys() and targets)


def slices(backbone: nn.Module, path: str) -> tuple[int, int]:
    """Of a named layer: its width d, the smaller of its sides, and how many rows of d x d slices it has."""
    layer = backbone.get_submodule(path)
    if not isinstance(innermost(layer), nn.Linear):
        raise ValueError(f"FacT can't be put on {path}, a convolution; name linear layers.")
    d = min(layer.in_features, layer.out_features)
    if layer.out_features % d or layer.in_features % d:
        raise ValueError(
            f"FacT cuts matrices into square slices, but {path} is {layer.out_features} x "
            f"{layer.in_features}: no side is a multiple of the other; name other layers."
        )
    return d, layer.out_features // d


@dataclass(frozen=True)
class FacTTT:
    """FacT-TT. `targets=None` is q, k, v, o, and fc1, fc2 too where d_ff is a multiple of d.

    Linear layers of any network can be named, as in `labkit.networks.anatomy.named_layers`; those of one
    width, the smaller of their two sides, share one tensor.
    """

    r: int = 16
    s: float = 1.0
    targets: tuple[str, ...] | str | None = None
    family: ClassVar[str] = "reparameterise"
    tensor: ClassVar[type[TensorTrain]] = TensorTrain

    def inject(self, backbone: nn.Module) -> None:
        if self.r < 1:
            raise ValueError(f"FacT's rank r is {self.r}; it must be at least 1.")
        cut: dict[int, list[tuple]] = {}  # by width: parent, path, and the parts of how many that are tuned
        if own_names(self.targets):
            for path in named_layers(backbone, self.targets, "FacT"):
                d, whole = slices(backbone, path)
                cut.setdefault(d, []).append((backbone, path, tuple(range(whole)), whole))
        else:
            for block in blocks(backbone):
                cut.setdefault(width(block), []).extend((block, *layer) for layer in self.layers(block))
        for d, layers in cut.items():
            inputs = [parent.get_submodule(path).in_features // d for parent, path, _, _ in layers]
            sizes = [len(parts) * n for (_, _, parts, _), n in zip(layers, inputs, strict=True)]
            factors, first = self.tensor(sum(sizes), d, self.r), 0
            for (parent, path, parts, of), size in zip(layers, sizes, strict=True):
                mine = dict(factors=factors, first=first, parts=parts, of=of, s=self.s)
                swap(parent, path, partial(FacTLinear, **mine))
                first += size

    def layers(self, block: nn.Module) -> Iterator[tuple[str, tuple[int, ...], int]]:
        """The tuned layers of a block: path, tuned parts, of how many parts of d rows each."""
        d, attention = width(block), ("q", "k", "v", "o")
        fits = block.mlp.fc1.out_features % d == 0
        targets = (tuple(LINEARS) if fits else attention) if self.targets is None else self.targets
        for path, (parts, of) in places(targets, "FacT").items():
            layer = block.get_submodule(path)
            if layer.out_features % d or layer.in_features % d:
                raise ValueError(
                    f"FacT cuts matrices into {d} x {d} slices, but {path} is {layer.out_features} x "
                    f"{layer.in_features}; tune attention only: targets={attention}."
                )
            whole = layer.out_features // d
            yield path, parts if of > 1 else tuple(range(whole)), whole


@dataclass(frozen=True)
class FacTTK(FacTTT):
    """FacT-TK: the slices' cores share a smaller tensor."""

    r: int = 32
    tensor: ClassVar[type[TensorTrain]] = Tucker
