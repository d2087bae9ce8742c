r"""LoRA: Low-Rank Adaptation of Large Language Models. Hu et al., 2021, arXiv:2106.09685.

$$ h = W_0 x + \Delta W x = W_0 x + \tfrac{\alpha}{r} B A x \qquad (3) $$

with W_0 frozen, A (r, k) and B (d, r), r << min(d, k). A starts random (Kaiming-uniform, as in the authors'
code; the paper says Gaussian) and B at zero, so the tuned network starts as the pretrained one. After
training, W = W_0 + (alpha / r) B A is one matrix again: no cost at inference.

On timm's fused qkv, (3d, d), each of q, k, v has its own A and B; the fused product stays one matrix product.

A convolution is a matrix, too: of each patch of k^n voxels and their channels it makes as many numbers as it
has filters. A is then a convolution to r channels, B one of size 1, as in peft. (loralib's Conv2d cuts the
same numbers into a matrix (d k, c k) instead, of rank r k; for one and three dimensions that does not fit.)
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from labkit.methods.linear import TunedLinear
from labkit.networks.anatomy import innermost, linears, swap


def factors(original: nn.Linear, n: int, of: int, r: int) -> tuple[nn.Parameter, nn.Parameter]:
    """A (n, r, k) and B (n, d_out / of, r) as training starts from them."""
    A = nn.Parameter(torch.empty(n, r, original.in_features))
    for one in A:
        nn.init.kaiming_uniform_(one, a=math.sqrt(5))
    return A, nn.Parameter(torch.zeros(n, original.out_features // of, r))


def stacked(B: torch.Tensor, parts: tuple[int, ...], of: int) -> torch.Tensor:
    """All B (n, d, r) in one matrix, zeros elsewhere: (of * d, n * r), the i-th in the rows of parts[i]."""
    if of == 1:
        return B[0]
    placed = dict(zip(parts, B.unbind(), strict=True))
    if len(parts) < of:
        untuned = B.new_empty(B.shape[1], 0)  # d rows, and no column of their own
        placed = {part: placed.get(part, untuned) for part in range(of)}
    return torch.block_diag(*placed.values())


class Plus(torch.autograd.Function):
    """h + s B z of all parts by one product: h (N, of * d), z (N, n * r), B (n, d, r) -> (N, of * d).

    Autograd by itself would keep `stacked(B)`, mostly zeros, for the backward pass; B is there anyway. The
    scale s goes into the products: with beta = 0 what they are added to gives its shape and no number.
    """

    @staticmethod
    def forward(
        h: torch.Tensor, z: torch.Tensor, B: torch.Tensor, parts: tuple[int, ...], of: int, s: float
    ) -> torch.Tensor:
        return torch.addmm(h, z, stacked(B, parts, of).T, alpha=s)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: torch.Tensor) -> None:
        _, z, B, ctx.parts, ctx.of, ctx.s = inputs
        ctx.save_for_backward(z, B)

    @staticmethod
    def backward(ctx, G: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        z, B = ctx.saved_tensors
        B = B.to(G.dtype)  # autocast has made h and z bfloat16, but not B
        n, d, r = B.shape
        of_z = torch.addmm(z, G, stacked(B, ctx.parts, ctx.of), beta=0, alpha=ctx.s)
        apart = ctx.parts[1] - ctx.parts[0] if n > 1 else 1  # three parts at most, so evenly
        of_parts = G.unflatten(-1, (ctx.of, d))[:, ctx.parts[0] : ctx.parts[-1] + 1 : apart]  # (N, n, d)
        z = z.unflatten(-1, (n, r)).transpose(0, 1)
        of_B = torch.baddbmm(B, of_parts.permute(1, 2, 0), z, beta=0, alpha=ctx.s)
        return G, of_z, of_B, None, None, None


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

    def updated(self, x: torch.Tensor, A: torch.Tensor, B: torch.Tensor, scale: float) -> torch.Tensor:
        """W_0 x + scale B A x on every part: (..., k) -> (..., d_out)."""
        tokens = x.reshape(-1, x.shape[-1])  # once, and not for each of the three products
        z = F.linear(self.dropout(tokens), A.flatten(0, 1))  # A x, (N, n * r)
        h = Plus.apply(self.original(tokens), z, B, self.parts, self.of, scale)
        return h.view(*x.shape[:-1], h.shape[-1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.updated(x, self.A, self.B, self.scale)


class LoRAConv(nn.Module):
    """A frozen convolution with an update of rank r: (B, c, ...) -> (B, d, ...), of 1 to 3 dimensions."""

    def __init__(self, original: nn.modules.conv._ConvNd, r: int, alpha: float, dropout: float):
        super().__init__()
        self.original, self.scale, self.dropout = original, alpha / r, nn.Dropout(dropout)
        self.A = nn.Parameter(torch.empty(r, *original.weight.shape[1:]))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))
        self.B = nn.Parameter(torch.zeros(original.out_channels, r))

    @property
    def weight(self) -> torch.Tensor:
        """The effective one, (d, c, k, ...)."""
        return self.original.weight + self.scale * torch.tensordot(self.B, self.A, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.original._conv_forward(self.dropout(x), self.A, None)  # the same steps, padding and dilation
        return self.original(x) + self.scale * torch.einsum("dr,br...->bd...", self.B, z)

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """A plain convolution that computes the same."""
        layer = copy.deepcopy(self.original)
        layer.weight.copy_(self.weight)
        return layer


@dataclass(frozen=True)
class LoRA:
    """LoRA on a block's q, k, v, o, fc1 or fc2, or on any linear layers and convolutions by their names.

    `targets`: a tuple of names, a regular expression, or "all-linear", as peft reads them; see
    `labkit.networks.anatomy.named_layers`. `alpha` is `r` by default: scale 1.
    """

    r: int = 8
    alpha: float | None = None
    targets: tuple[str, ...] | str = ("q", "v")
    dropout: float = 0.0
    family: ClassVar[str] = "reparameterise"
    layer: ClassVar[type[nn.Module]] = LoRALinear
    convolution: ClassVar[type[nn.Module] | None] = LoRAConv

    def inject(self, backbone: nn.Module) -> None:
        name = type(self).__name__
        if self.r < 1:
            raise ValueError(
                f"{name}'s rank r is {self.r}; it must be at least 1 (rank 0 is the frozen network: Head())."
            )
        alpha = self.r if self.alpha is None else self.alpha
        size = dict(r=self.r, alpha=alpha, dropout=self.dropout)
        for path, (parts, of) in linears(backbone, self.targets, name).items():
            if isinstance(pretrained := innermost(backbone.get_submodule(path)), nn.Linear):
                swap(backbone, path, partial(self.layer, parts=parts, of=of, **size))
            elif self.convolution is None or pretrained.groups > 1:
                raise ValueError(
                    f"{name} can't be put on {path}, a convolution{' of groups' * (pretrained.groups > 1)}: "
                    "name linear layers, or take LoRA and convolutions that see all channels."
                )
            else:
                swap(backbone, path, partial(self.convolution, **size))
