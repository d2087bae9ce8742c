"""Which numbers a network computes in."""

from __future__ import annotations

import torch


def autocast(device: str = "cpu") -> torch.autocast:
    """bfloat16 where the processor computes in it; otherwise a context that changes nothing.

    Without AVX512-BF16 or AMX a CPU emulates bfloat16 and is slower for it.
    """
    if device != "cpu":
        return torch.autocast(device, torch.bfloat16)
    can = torch.cpu.get_capabilities()
    native = bool(can.get("avx512_bf16") or can.get("amx_bf16"))
    return torch.autocast("cpu", torch.bfloat16, enabled=native)


def computes_in() -> str:
    """The name of those numbers, for a file that says how its figures came about."""
    with autocast():
        return str(torch.mm(torch.ones(1, 1), torch.ones(1, 1)).dtype).removeprefix("torch.")
