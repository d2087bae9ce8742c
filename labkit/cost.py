"""What a method costs: parameters, memory, arithmetic and time, measured on the model at hand."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from labkit.backbones import autocast
from labkit.tuning import count, delta

MIB = 2**20


@dataclass(frozen=True)
class Cost:
    """One training step on one batch."""

    tuned: int  # parameters that learn
    inserted: int  # parameters the method added
    saved_mib: float  # activations kept for the backward pass
    optimizer_mib: float  # gradients and Adam's two moments
    gflops: float  # multiply-adds count as two; forward and backward
    step_seconds: float  # median


def measure(model: nn.Module, x: torch.Tensor, repeats: int = 5) -> Cost:
    """Cost of a training step of a tuned model on `x`, slices or volumes."""
    from torch.utils.flop_counter import FlopCounterMode

    parameters = count(model)
    with FlopCounterMode(display=False) as flops:
        step(model, x)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        step(model, x)
        seconds.append(time.perf_counter() - start)
    trained = sum(p.numel() * p.element_size() for p in delta(model).values())
    return Cost(
        parameters.tuned,
        parameters.inserted,
        saved_for_backward(model, x) / MIB,
        3 * trained / MIB,
        flops.get_total_flops() / 1e9,
        float(np.median(seconds)),
    )


def step(model: nn.Module, x: torch.Tensor) -> None:
    with autocast():
        loss = model(x).float().square().mean()
    torch.autograd.grad(loss, list(delta(model).values()), allow_unused=True)


def saved_for_backward(model: nn.Module, x: torch.Tensor) -> int:
    """Bytes the forward pass keeps for the backward pass, parameters not counted, shared storage once."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), autocast():
        model(x)
    return sum(kept.values())
