r"""AdderNet. Chen, Wang, Xu, Shi, Xu, Tian and Xu, "AdderNet: Do We Really Need Multiplications in Deep
Learning?", 2020, arXiv:1912.13200.

A convolution measures how alike a patch X and a filter F are by products; an adder layer by their distance,
over the k numbers of a filter (equation 2):

$$ Y = -\sum_{i=1}^{k} |X_i - F_i| \qquad (\le 0) $$

Its true gradient is a sign, the same for a near filter and a far one. Instead (equations 5 to 7)

$$ \frac{\partial Y}{\partial F} := X - F, \qquad
   \frac{\partial Y}{\partial X} := \operatorname{HT}(F - X), \quad
   \operatorname{HT}(x) = \min(\max(x, -1), 1) $$

These are the true gradients of -(X - F)^2 / 2 in F, and in X of minus Huber's loss of width 1. The magnitude
of the first differs from layer to layer, so each layer's is brought to one length (equations 12 and 13):

$$ \Delta F = \eta\, \sqrt{k_F}\; \frac{g}{\lVert g \rVert_2}, \qquad k_F = \operatorname{numel}(F) $$

whatever the scale of the loss. Filters start as unit normals; on unit normal inputs Y has mean
-2 k / sqrt(pi) and variance 2 k (1 - 2/pi), so a batch norm must follow each layer.
(B, i, H, W) -> (B, o, H', W').

Deviations. None in the layer. In the authors' networks the first and the last layer stay ordinary, as here is
left to whoever builds one. No multiplications means less energy on a chip made for it; in PyTorch an adder
layer is many times slower than a convolution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Adder(torch.autograd.Function):
    """Patches (B, k, L) and filters (o, k) to minus distances (B, o, L)."""

    @staticmethod
    def forward(ctx, X, W, eta):
        ctx.save_for_backward(X, W)
        ctx.eta = eta
        return -torch.cdist(W, X.transpose(1, 2), p=1)

    @staticmethod
    def backward(ctx, g):
        X, W = ctx.saved_tensors
        dX = dW = None
        if ctx.needs_input_grad[0]:
            dX = torch.zeros_like(X)
            for o, w in enumerate(W):  # all filters at once would hold (B, o, k, L) numbers
                dX += g[:, o, None] * (w[:, None] - X).clamp(-1, 1)
        if ctx.needs_input_grad[1]:
            dW = torch.einsum("bol,bkl->ok", g, X) - g.sum((0, 2))[:, None] * W
            if ctx.eta is not None and dW.any():
                dW = ctx.eta * W.numel() ** 0.5 * dW / dW.norm()
        return dX, dW, None


def adder2d(
    x: torch.Tensor, weight: torch.Tensor, stride: int = 1, padding: int = 0, eta: float | None = 0.2
) -> torch.Tensor:
    """(B, i, H, W), filters (o, i, k, k) -> (B, o, H', W'); `eta` None leaves the gradient's length alone."""
    k = weight.shape[-1]
    height, width = ((n + 2 * padding - k) // stride + 1 for n in x.shape[-2:])
    patches = F.unfold(x, k, padding=padding, stride=stride)
    return Adder.apply(patches, weight.flatten(1), eta).unflatten(2, (height, width))


class AdderConv2d(nn.Module):
    """An adder layer without bias; a batch norm should follow it."""

    def __init__(
        self, i: int, o: int, k: int = 3, stride: int = 1, padding: int = 0, eta: float | None = 0.2
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(o, i, k, k))
        self.stride, self.padding, self.eta = stride, padding, eta

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return adder2d(x, self.weight, self.stride, self.padding, self.eta)
