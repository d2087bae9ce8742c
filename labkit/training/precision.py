"""Which numbers a network computes in, and on which device."""

from __future__ import annotations

import torch
from torch import nn


def autocast(device: str = "cpu") -> torch.autocast:
    """bfloat16 where the processor computes in it; otherwise a context that changes nothing.

    Without AVX512-BF16 or AMX a CPU emulates bfloat16 and is slower for it.
    """
    if device != "cpu":
        return torch.autocast(device, torch.bfloat16)
    can = torch.cpu.get_capabilities()
    native = bool(can.get("avx512_bf16") or can.get("amx_bf16"))
    return torch.autocast("cpu", torch.bfloat16, enabled=native)


def computes_in(device: str = "cpu") -> str:
    """The name of those numbers, for a file that says how its figures came about."""
    with autocast(device):
        one = torch.ones(1, 1, device=device)
        return str(torch.mm(one, one).dtype).removeprefix("torch.")


def best_device() -> str:
    """The name of the device to compute on: "cuda" or "mps" where PyTorch finds one, otherwise "cpu".

    A model is taken there by `model.to(best_device())`; `fit` and `predict` take each batch to where it is.
    """
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def device_of(model: nn.Module) -> torch.device:
    """Where a model's parameters lie; the CPU for one without."""
    return next(model.parameters(), torch.empty(0)).device
