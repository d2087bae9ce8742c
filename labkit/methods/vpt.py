r"""Visual Prompt Tuning, shallow and deep. Jia et al., 2022, arXiv:2203.12119, section 3.2.

$$ \text{shallow:}\quad [P_1, E_1] = L_1([P_0, E_0]), \qquad [P_i, E_i] = L_i([P_{i-1}, E_{i-1}]) $$
$$ \text{deep:}\quad [\_, E_i] = L_i([P_{i-1}, E_{i-1}]) $$

with patch tokens E (N, d). In the shallow variant only P_0 (n, d) is learned, and the prompts travel on: this
is prompt tuning with another start (see `labkit.methods.prompt`, also for a Swin). In the deep one every
block has prompts of its own, and what it computes for them is thrown away.

So deep prompts act through their keys and values alone, W_k LN(P) and W_v LN(P): a prefix that is tied to the
block. `TokenPrefix` computes just these: the same function of E, without the prompts' queries and MLP. On a
Swin all windows of a block see the block's prompts.

Only prompts learn. They start uniform within sqrt(6 / (3 p^2 + d)), p the patch size, as in the authors'
code: the tuned network does not start as the pretrained one. On a Swin d is the block's own width here, so
the bound shrinks from stage to stage; in their code the first stage's bound serves all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import nn

from labkit.methods.attention import PrefixAttention, attentions
from labkit.methods.prompt import prepend
from labkit.networks.anatomy import block_paths, patch_size, swap, width


def xavier(backbone: nn.Module, d: int) -> float:
    """Bound of the initial values of prompts of width d."""
    return math.sqrt(6 / (3 * patch_size(backbone) ** 2 + d))


class TokenPrefix(PrefixAttention):
    """Attention that sees the keys and values of n prompts, as if they stood among the block's tokens."""

    def __init__(self, original: nn.Module, norm: nn.Module, n: int, d: int, bound: float):
        super().__init__(original)
        self.norm = norm  # the block's own norm1, which its patch tokens pass too
        self.prompts = nn.Parameter(torch.empty(n, d).uniform_(-bound, bound))

    def keys_values(self) -> tuple[torch.Tensor, torch.Tensor]:
        _, k, v = self.heads(self.norm(self.prompts)[None])
        return k, v


@dataclass(frozen=True)
class VPTShallow:
    """n prompts before the first block."""

    n: int = 10
    family: ClassVar[str] = "prompt"

    def inject(self, backbone: nn.Module) -> None:
        prepend(backbone, self.n, xavier(backbone, width(backbone.get_submodule(block_paths(backbone)[0]))))


@dataclass(frozen=True)
class VPTDeep:
    """n prompts of its own for every block."""

    n: int = 10
    family: ClassVar[str] = "prompt"

    def inject(self, backbone: nn.Module) -> None:
        if self.n < 1:
            raise ValueError(f"VPT needs at least 1 prompt, not {self.n}.")
        for attention, block, d in list(attentions(backbone)):
            wrap = partial(TokenPrefix, norm=block.norm1, n=self.n, d=d, bound=xavier(backbone, d))
            swap(backbone, attention, wrap)
