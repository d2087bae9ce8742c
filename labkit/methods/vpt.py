r"""Visual Prompt Tuning, deep variant. Jia et al., 2022, arXiv:2203.12119.

$$ [\_, E_i] = L_i([P_{i-1}, E_{i-1}]) \qquad (6) $$

Every block i sees n learnable tokens P (n, d) of its own beside the patch tokens E; what it computes for the
prompts is thrown away before the next block. Only P learns. Values start uniform within
sqrt(6 / (3 p^2 + d)), p the patch size, as in the authors' code: the tuned network does not start as the
pretrained one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import nn

from labkit.anatomy import block_paths, patch_size, swap, width


class Prompted(nn.Module):
    """A frozen block that sees prompts: (B, N, d) -> (B, N, d)."""

    def __init__(self, original: nn.Module, n: int, d: int, bound: float):
        super().__init__()
        self.original = original
        self.prompts = nn.Parameter(torch.empty(1, n, d).uniform_(-bound, bound))

    def forward(self, x: torch.Tensor, **kwargs) -> torch.Tensor:
        prompts = self.prompts.to(x.dtype).expand(len(x), -1, -1)
        x = self.original(torch.cat([prompts, x], 1), **kwargs)  # (B, n + N, d)
        return x[:, prompts.shape[1] :]


@dataclass(frozen=True)
class VPTDeep:
    """n prompts before every block of a ViT."""

    n: int = 10
    family: ClassVar[str] = "prompt"

    def inject(self, backbone: nn.Module) -> None:
        if self.n < 1:
            raise ValueError(f"VPT needs at least 1 prompt, not {self.n}.")
        for path in block_paths(backbone):
            d = width(backbone.get_submodule(path))
            bound = math.sqrt(6 / (3 * patch_size(backbone) ** 2 + d))
            swap(backbone, path, partial(Prompted, n=self.n, d=d, bound=bound))
