r"""Computing in 8 bits, not only storing: integer products of quantised activations and weights.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
2018, arXiv:1712.05877, section 2.2. With codes q and scales s of `labkit.efficient.precision`, s_x per token
n and s_w per output unit o,

$$ y_{no} = s_{x,n}\, s_{w,o} \sum_k q_{x,nk}\, q_{w,ok} + b_o $$

The sum is exact in int32: |q| <= 127, so 127^2 K < 2^31 up to K = 133,000 inputs.

Deviations. They fix the scales of the activations beforehand and stay in integers from layer to layer; here
each token's scale is found when it comes ("dynamic"), and what leaves a layer is float again.
"""

from __future__ import annotations

import copy
import warnings

import torch
from torch import nn

from labkit.efficient.precision import codes, scale


def int8_matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(n, k) int8 times (k, m) int8, exactly: (n, m) int32. PyTorch's kernel where it has one."""
    try:
        return torch._int_mm(a, b)  # private: it may go, or lack this device
    except (AttributeError, RuntimeError):
        return a.int() @ b.int()


class Int8Linear(nn.Module):
    """A linear layer whose products are of 8-bit integers; (..., d) -> (..., d')."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        w = linear.weight.detach()
        s = scale(w, 8, per_row=True)
        self.register_buffer("q", codes(w, 8, s).to(torch.int8))
        self.register_buffer("s", s[:, 0])
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(0, -2)
        s = scale(tokens, 8, per_row=True)
        y = int8_matmul(codes(tokens, 8, s).to(torch.int8), self.q.T).float() * s * self.s
        y = y if self.bias is None else y + self.bias
        return y.view(*x.shape[:-1], -1)


def fused(model: nn.Module) -> nn.Module:
    """PyTorch's own conversion. It announces its removal at every call; then `int8` does without."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.ao.quantization import quantize_dynamic

        return quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)


def plain(model: nn.Module) -> nn.Module:
    """The same with `Int8Linear`: slower, and readable."""
    model = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear:
            model.set_submodule(name, Int8Linear(module))
    return model


def int8(model: nn.Module) -> nn.Module:
    """A copy of a float32 model for inference, its linear layers in 8 bits by the fastest kernel there is."""
    model = copy.deepcopy(model).eval()
    try:
        return fused(model)
    except (
        ImportError,
        AttributeError,
        RuntimeError,
    ):  # removed from PyTorch, or no kernel for this processor
        return plain(model)
