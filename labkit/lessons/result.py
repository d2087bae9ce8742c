"""What an exercise compares where the answer is a class, for `Exercise(result=...)`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def filled(module: nn.Module, *inputs: torch.Tensor) -> dict[str, Any]:
    """The shapes of a module's parameters by name, and its output for `inputs` once they are filled.

    They are filled with numbers that depend on names and shapes alone, as when weights are copied from one
    network into another. An exercise that asks for `Adapter(d, m)` says

        Exercise(reference=Adapter, result=lambda adapter, d, m: filled(adapter, torch.ones(1, d)), ...)
    """
    numbers = torch.Generator().manual_seed(0)
    parameters = dict(sorted(module.named_parameters()))
    with torch.no_grad():
        for p in parameters.values():
            p.copy_(torch.randn(p.shape, generator=numbers))
    return {"parameters": {name: list(p.shape) for name, p in parameters.items()}, "output": module(*inputs)}
