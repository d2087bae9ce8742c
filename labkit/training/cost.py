"""What a method costs: parameters, memory, arithmetic and time, measured on the model at hand."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from labkit.training.precision import autocast
from labkit.training.quick import REPEATS, at_most
from labkit.tuning import count, delta

MIB = 2**20


@dataclass(frozen=True)
class Cost:
    """One training step on one batch; 1 MiB is 2**20 bytes."""

    tuned: int  # parameters that learn
    inserted: int  # parameters the method added
    saved_mib: float  # activations in float32 that the forward pass keeps for the backward pass
    gradients_mib: float
    optimizer_mib: float  # AdamW's two moments
    gflops: float  # of forward and backward pass, attention included; a multiply-add counts as two
    step_seconds: float  # median of whole steps: forward, backward, optimizer; bfloat16 as in `autocast`


def measure(model: nn.Module, x: torch.Tensor, repeats: int = 5) -> Cost:
    """Cost of a training step of a tuned model on `x`, slices or volumes, in whatever mode the model is.

    A copy of the model is measured: the model, its running statistics and the caller's random numbers stay as
    they are. In quick mode one slice is, once.
    """
    from torch.utils.flop_counter import FlopCounterMode

    parameters, x = count(model), x[: at_most(len(x), 1)]
    model = copy.deepcopy(model).train()  # steps are taken for real
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # dropout, and the rank that DyLoRA draws
        saved = saved_for_backward(model, x)
        optimizer = torch.optim.AdamW(delta(model).values())
        with FlopCounterMode(display=False) as flops, sdpa_kernel(SDPBackend.MATH):  # only it is counted
            backward(model, x)
        optimizer.step()  # makes the moments, which later steps only change
        seconds = []
        for _ in range(at_most(repeats, REPEATS)):
            start = time.perf_counter()
            optimizer.zero_grad()
            backward(model, x)
            optimizer.step()
            seconds.append(time.perf_counter() - start)
    moments = [t for s in optimizer.state.values() for t in s.values() if torch.is_tensor(t) and t.ndim]
    return Cost(
        tuned=parameters.tuned,
        inserted=parameters.inserted,
        saved_mib=saved / MIB,
        gradients_mib=nbytes(p.grad for p in delta(model).values()) / MIB,
        optimizer_mib=nbytes(moments) / MIB,
        gflops=flops.get_total_flops() / 1e9,
        step_seconds=float(np.median(seconds)),
    )


def nbytes(tensors) -> int:
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)


def backward(model: nn.Module, x: torch.Tensor) -> None:
    """A forward and a backward pass."""
    with autocast(x.device.type):
        loss = model(x).float().square().mean()
    loss.backward()


def saved_for_backward(model: nn.Module, x: torch.Tensor) -> int:
    """Bytes the forward pass keeps for the backward pass: in float32, whatever the machine computes in.

    A storage that is kept twice counts once. Parameters are not counted: they are there anyway.
    """
    x = x.clone()  # were it part of a patient, the patient would be counted
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # a layer's own output would keep the layer, and the layer it, for ever

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(x)
    return sum(kept.values())
