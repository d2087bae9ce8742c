r"""LongLoRA: Efficient Fine-tuning of Long-Context Large Language Models.
Chen et al., 2024, arXiv:2309.12307.

Attention over N tokens costs N^2. In training only, shifted sparse attention cuts the tokens into 4 groups of
G = N / 4, and each token attends to its own group (section 3.2):

$$ \mathrm{group}_h(n) = \begin{cases} \lfloor n / G \rfloor & h < H / 2 \\
   \lfloor ((n + G / 2) \bmod N) / G \rfloor & h \ge H / 2 \end{cases} $$

for head h of H: the second half of the heads has its groups shifted by half a group, around the end, so that
groups hear of each other. Evaluation has full attention again. LoRA on q, k, v, o (r = 8, alpha = 16) alone
falls short there: normalisation and embeddings are trained as well.

Deviations, as a ViT has no words. The embeddings are the patch projection and the positions. Tokens come row
by row, so a group is a band of the picture. No causal mask, so the shift leaks nothing. Of an odd number of
heads the smaller part is shifted, as the formula says; the authors' code shifts the larger one. It pays with
many tokens: of what the laptop's `tiny` computes on its 144, attention is the smaller part.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from labkit.methods.attention import WiderAttention, attentions
from labkit.methods.lora import LoRA
from labkit.networks.anatomy import block_paths, swap

GROUPS = 4


def grouped(x: torch.Tensor) -> torch.Tensor:
    """(B, H, N, d) -> (B, H, 4, G, d), the second half of the heads shifted by half a group."""
    straight, shifted = x.tensor_split(2, dim=1)
    half = x.shape[2] // GROUPS // 2
    return torch.cat([straight, shifted.roll(half, dims=2)], dim=1).unflatten(2, (GROUPS, -1))


def ungrouped(x: torch.Tensor) -> torch.Tensor:
    """Undo `grouped`."""
    half = x.shape[3] // 2
    straight, shifted = x.flatten(2, 3).tensor_split(2, dim=1)
    return torch.cat([straight, shifted.roll(-half, dims=2)], dim=1)


class ShiftedSparseAttention(WiderAttention):
    """A ViT's attention, sparse while it is training: (B, N, d) -> (B, N, d).

    A WiderAttention, so that methods of prompts, which have no group, refuse to be combined with it.
    """

    def forward(self, x: torch.Tensor, attn_mask: torch.Tensor | None = None, is_causal: bool = False):
        if not self.training:
            return self.original(x, attn_mask=attn_mask, is_causal=is_causal)
        if attn_mask is not None or is_causal:
            raise ValueError("LongLoRA trains attention without a mask; leave attn_mask and is_causal out.")
        own, N = self.original, x.shape[1]
        if N % (2 * GROUPS):
            raise ValueError(
                f"LongLoRA cuts the tokens into {GROUPS} groups of an even number, and {N} can't be cut so; "
                f"make N a multiple of {2 * GROUPS} by the image size, without class token."
            )
        q, k, v = self.heads(x)  # each (B, H, N, d / H)
        q, k, v = map(grouped, (own.q_norm(q), own.k_norm(k), v))
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=own.attn_drop.p)
        return own.proj_drop(own.proj(own.norm(ungrouped(mixed).transpose(1, 2).flatten(2))))

    def merged(self) -> nn.Module:
        """The attention of evaluation, which is the pretrained one's."""
        return self.original


@dataclass(frozen=True)
class LongLoRA(LoRA):
    """LoRA for long sequences of tokens, on a ViT."""

    r: int = 8
    alpha: float | None = 16.0
    targets: tuple[str, ...] = ("q", "k", "v", "o")

    def inject(self, backbone: nn.Module) -> None:
        if not hasattr(backbone, "blocks"):
            raise ValueError(
                "LongLoRA makes attention sparse while it trains, and Swin's is so already, in shifted "
                'windows; use LoRA(targets=("q", "k", "v", "o")).'
            )
        list(attentions(backbone, recomputed=False))  # refuses another; q_norm, k_norm and norm are applied
        super().inject(backbone)
        for path in block_paths(backbone):
            swap(backbone, f"{path}.attn", ShiftedSparseAttention)
        backbone.patch_embed.requires_grad_(True)
        backbone.pos_embed.requires_grad_(True)
        for module in backbone.modules():
            if isinstance(module, nn.LayerNorm):
                module.requires_grad_(True)
