"""What the methods of this folder are counted by: matrices, multiply-adds and bytes."""

from __future__ import annotations

import copy

import torch
from torch import nn

DENSE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """Weights of the linear layers and convolutions, by name: what is pruned and put into few bits.

    Biases, norms and position embeddings are not among them: they are few, and each counts.
    """
    return {f"{path}.weight": m.weight for path, m in model.named_modules() if isinstance(m, DENSE)}


@torch.no_grad()
def macs(model: nn.Module, *shape: int) -> int:
    """Multiply-adds of the convolutions and matrix products of one forward pass on an input of `shape`.

    Nothing is computed: a copy of the model runs on PyTorch's meta device, which only knows shapes. Papers on
    small networks often call these FLOPs; `labkit.training.cost` counts a multiply-add as two.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    shadow = copy.deepcopy(model).to("meta").eval()
    with FlopCounterMode(display=False) as flops, sdpa_kernel(SDPBackend.MATH):  # no other backend is counted
        shadow(torch.empty(shape, device="meta"))
    return flops.get_total_flops() // 2
