"""What several exercises are tried on, and whether prompts could learn through an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

CUT = (
    "Your numbers are right, but no gradient comes back through them, so prompts could never learn: "
    "`.detach()`, `.data`, torch.no_grad() and a way through NumPy all cut the record of what was computed."
)


class AddMean(nn.Module):
    """The smallest block in which every token sees all others."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + x.mean(1, keepdim=True)

    def __repr__(self) -> str:
        return "a block that adds the mean of all tokens to each"


def transformer_block() -> nn.Module:
    """A block of width 4 in which nothing is random when it runs."""
    return nn.TransformerEncoderLayer(4, nhead=2, dim_feedforward=5, batch_first=True, norm_first=True).eval()


def lost_gradients(answer: Callable, inputs: Mapping[str, Any], learning: Sequence[str]) -> str | None:
    """The inputs that no gradient reaches through an answer, in words; None: it reaches all of `learning`.

    Each of them asks for a gradient alone. Then the output has one if and only if it comes from there, which
    is known also where the graph itself stayed in another process.
    """
    lost = []
    for name in learning:
        tried = {n: x.detach().clone().requires_grad_() if n == name else x for n, x in inputs.items()}
        try:
            output = answer(*tried.values())
        except RuntimeError as error:
            if "numpy()" not in str(error):
                raise
            return "NumPy keeps no record for gradients, so prompts could never learn: stay with torch"
        parts = output if isinstance(output, (list, tuple)) else (output,)
        if not all(getattr(part, "requires_grad", False) for part in parts):
            lost.append(name)
    if lost:
        return (
            f"no gradient reaches {' or '.join(lost)}: something cuts the record of what was computed, "
            "`.detach()`, `.data`, torch.no_grad() or a new tensor made of its numbers"
        )
    return None
