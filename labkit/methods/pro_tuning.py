r"""Pro-tuning: Unified Prompt Tuning for Vision Tasks. Nie et al., 2022, arXiv:2207.14381.

A prompt block after each of the four stages adapts the stage's feature map x (d, h, w):

$$ x + W_2\,\mathrm{GELU}(\mathrm{DW}_{5\times5}(W_1 x)) $$

with 1 x 1 convolutions W_1, W_2 (d -> d) and a depthwise 5 x 5 convolution between them, all with biases:
2d^2 + 28d parameters a stage. "Pro" is for prompt, but nothing is added to the tokens.

Deviations: no code was published. The three convolutions and their place are what the parameter counts of
Shen et al. (2024, arXiv:2304.10880) leave open as the plain form; activation and residual are our choice, and
W_2 starts at zero, so that the tuned network starts as the pretrained one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from labkit.methods.volumetric import put_after
from labkit.networks.anatomy import stage_ends, width


class PromptBlock(nn.Module):
    """(B, S, h, w, d) -> the same shape, slice by slice."""

    def __init__(self, d: int):
        super().__init__()
        self.W_1 = nn.Conv2d(d, d, 1)
        self.DW = nn.Conv2d(d, d, 5, padding=2, groups=d)
        self.W_2 = nn.Conv2d(d, d, 1)
        nn.init.zeros_(self.W_2.weight)
        nn.init.zeros_(self.W_2.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.flatten(0, 1).movedim(-1, 1).contiguous()  # (B·S, d, h, w)
        y = self.W_2(F.gelu(self.DW(self.W_1(y))))
        return x + y.movedim(1, -1).unflatten(0, x.shape[:2])


@dataclass(frozen=True)
class ProTuning:
    """One prompt block after each stage."""

    family: ClassVar[str] = "add"

    def inject(self, backbone: nn.Module) -> None:
        for path in stage_ends(backbone):
            put_after(backbone, path, PromptBlock(width(backbone.get_submodule(path))))
