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

import torch
from torch import nn

from labkit.efficient.precision import codes, scale


def int8_matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(n, k) int8 times (k, m) int8, exactly: (n, m) int32.

    By PyTorch's 8-bit kernel where the processor has instructions for it (VNNI); elsewhere that kernel is a
    plain loop, and a product of 32-bit integers is faster.
    """
    try:
        if a.device.type != "cpu" or torch.cpu._is_vnni_supported():
            return torch._int_mm(a, b)
    except (AttributeError, RuntimeError):  # both are private: they may go, or lack this device
        pass
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


def int8(model: nn.Module) -> nn.Module:
    """A copy of a float32 model for inference, every `nn.Linear` of it an `Int8Linear`.

    It shows what 8 bits do to the results; PyTorch's exact integer product is no faster than its float one on
    every processor. ValueError: the model is one linear layer itself; use Int8Linear(layer).
    """
    if type(model) is nn.Linear:
        raise ValueError("A single linear layer has no parts to replace; use Int8Linear(layer).")
    model = copy.deepcopy(model).eval()
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear:
            model.set_submodule(name, Int8Linear(module))
    return model.eval()
