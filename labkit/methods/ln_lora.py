r"""LNLoRA, of FullLoRA-AT: Efficiently Boosting the Robustness of Pretrained Vision Transformers.
Yuan et al., 2024, arXiv:2401.01752.

$$ h = W_0 x + \tfrac{\alpha}{r} B A\, \mathrm{LN}(x), \qquad
   \mathrm{LN}(x) = \gamma \odot \frac{x - \mu(x)}{\sqrt{\mathrm{var}(x) + \epsilon}} + \beta $$

A learnable LayerNorm before LoRA, to even out how large features are in standard and adversarial training.
A (r, k) and B (d, r) as in LoRA; gamma (k) starts at 1, beta (k) at 0, B at 0: the tuned network starts as
the pretrained one. r (k + d) + 2 k parameters per matrix. FullLoRA-AT puts it on all linear layers of a block
and trains on adversarial examples; the training is not part of the method here.

Inferred, since the abstract says no more than "a learnable layer normalization before" LoRA: that each
matrix, so each of q, k and v, has a LayerNorm of its own; its initial values; epsilon (PyTorch's 1e-5).

It can't be merged. gamma and beta could be: A (gamma z + beta) = (A diag gamma) z + A beta. But the mean and
the deviation are those of each token: LN(x) is no matrix times x, so no W does what W_0 and LNLoRA do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from labkit.methods.lora import LoRA, Plus, factors


class LNLoRALinear(nn.Module):
    """A frozen linear layer beside LoRA of its normalised input, on `parts` of `of` equal parts."""

    vectors = ("gamma", "beta")  # a norm's, one a part: weight decay leaves them alone

    def __init__(
        self, original: nn.Linear, parts: tuple[int, ...], of: int, r: int, alpha: float, dropout: float
    ):
        super().__init__()
        self.original, self.dropout = original, nn.Dropout(dropout)
        self.parts, self.of, self.scale = parts, of, alpha / r
        self.A, self.B = factors(original, len(parts), of, r)
        self.gamma = nn.Parameter(torch.ones(len(parts), 1, original.in_features))
        self.beta = nn.Parameter(torch.zeros(len(parts), original.in_features, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.reshape(-1, x.shape[-1])
        z = self.dropout(F.layer_norm(tokens, tokens.shape[-1:]))
        down, shift = self.A * self.gamma, self.A @ self.beta  # (n, r, k), (n, r, 1)
        low = F.linear(z, down.flatten(0, 1), shift.flatten())  # A LN(x) of every part
        h = Plus.apply(self.original(tokens), low, self.B, self.parts, self.of, self.scale)
        return h.view(*x.shape[:-1], h.shape[-1])


@dataclass(frozen=True)
class LNLoRA(LoRA):
    """LoRA of normalised inputs. FullLoRA-AT is `targets=("q", "k", "v", "o", "fc1", "fc2")`."""

    layer: ClassVar[type[nn.Module]] = LNLoRALinear
    convolution: ClassVar[None] = None  # of its inputs there is no one vector to normalise
