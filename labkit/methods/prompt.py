r"""Prompt tuning. Lester et al., 2021, arXiv:2104.08691.

$$ [P_e; X_e] \in \mathbb{R}^{(n + N) \times d} $$

n learnable tokens P (n, d) stand in front of the embedded input X (section 2). They travel through all blocks
as other tokens do and are left out at the end. Only P learns. It starts uniform within 0.5, which is the
paper's random start (section 3.2): its other ones take embeddings of words, which images do not have. The
tuned network does not start as the pretrained one.

VPT-Shallow (`labkit.methods.vpt`) is the same idea for images and differs in the scale of the start alone.

On a ViT, prompts join after the position embedding. On a Swin (as Jia et al., 2022, arXiv:2203.12119, do it)
they join every window; what the windows make of them is averaged over the windows of an image; and where
2 x 2 patches merge, a prompt stands for all four. In their code prompts are repeated window by window while
windows lie image by image, so that the images of a batch mix; here each image keeps its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import nn

from labkit.methods.attention import WiderAttention, attentions
from labkit.networks.anatomy import block_paths, innermost, swap

# timm gives a block's output to the next block as it is. So a stream of N tokens goes in and out, as timm
# expects, and carries its prompts as an attribute: nothing is kept in the modules, so several batches may be
# under way, and a block that gradient checkpointing computes again finds the prompts that it had.


class Prompted(nn.Module):
    """What has prompts beside its tokens: its own, or those that come with its input."""

    def __init__(self, original: nn.Module, prompts: nn.Parameter | None = None):
        super().__init__()
        self.original = original
        self.prompts = prompts  # (n, d), in the first block only

    def arriving(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n, d)"""
        if self.prompts is not None:
            return self.prompts.to(x.dtype).expand(len(x), -1, -1)
        if not hasattr(x, "prompts"):
            raise ValueError(
                "No prompts came with this input; give a block what the block before it gave out."
            )
        return x.prompts


def carrying(x: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
    x.prompts = prompts
    return x


class PromptedBlock(Prompted):
    """A frozen ViT block that computes [P, X]: (B, N, d) -> (B, N, d), with prompts (B, n, d)."""

    def forward(self, x: torch.Tensor, **kwargs) -> torch.Tensor:
        prompts = self.arriving(x)
        x = self.original(torch.cat([prompts, x], 1), **kwargs)
        n = prompts.shape[1]
        return carrying(x[:, n:], x[:, :n])


class PromptedWindows(WiderAttention):
    """Attention of a Swin's windows, (B·windows, N, d), each of them beside the prompts of its image."""

    prompts: torch.Tensor | None = None  # (B, n, d), in and out, within one call of PromptedSwinBlock

    def forward(self, x: torch.Tensor, **kwargs) -> torch.Tensor:
        windows, n = len(x) // len(self.prompts), self.prompts.shape[1]
        prompts = self.prompts.repeat_interleave(windows, 0)  # image by image, as timm's windows
        x = self.attend(*self.heads(torch.cat([prompts, x], 1)), **kwargs)
        self.prompts = x[:, :n].unflatten(0, (-1, windows)).mean(1)
        return x[:, n:]


class PromptedSwinBlock(Prompted):
    """A frozen Swin block whose attention is PromptedWindows: (B, H, W, d) -> (B, H, W, d), with prompts."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        block, prompts = innermost(self.original), self.arriving(x)
        attention = next(m for m in block.modules() if isinstance(m, PromptedWindows))
        attention.prompts = block.norm1(prompts)
        x = self.original(x)
        mixed, attention.prompts = attention.prompts, None
        prompts = prompts + block.drop_path1(mixed)
        return carrying(x, prompts + block.drop_path2(block.mlp(block.norm2(prompts))))


class PromptedMerging(Prompted):
    """A Swin's patch merging, (B, H, W, d) -> (B, H/2, W/2, 2d); a prompt stands for all four patches."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        merging, prompts = innermost(self.original), self.arriving(x)
        return carrying(self.original(x), merging.reduction(merging.norm(prompts.repeat(1, 1, 4))))


def prepend(backbone: nn.Module, n: int, bound: float) -> None:
    """Let n prompts, uniform within `bound`, travel through all blocks of a ViT or a Swin."""
    if n < 1:
        raise ValueError(f"{n} prompts can't stand before the first block; n must be at least 1.")
    swin, prompts = not hasattr(backbone, "blocks"), None
    found = list(attentions(backbone, recomputed=swin))  # a ViT's block computes its prompts itself
    for block, (attention, _, d) in zip(block_paths(backbone), found, strict=True):
        first = prompts is None
        if first:
            prompts = nn.Parameter(torch.empty(n, d).uniform_(-bound, bound))
        if swin:
            swap(backbone, attention, PromptedWindows)
        wrapper = PromptedSwinBlock if swin else PromptedBlock
        swap(backbone, block, partial(wrapper, prompts=prompts if first else None))
    for i in range(1, len(backbone.layers) if swin else 0):
        swap(backbone, f"layers.{i}.downsample", PromptedMerging)


@dataclass(frozen=True)
class PromptTuning:
    """n prompts before the first block."""

    n: int = 10
    family: ClassVar[str] = "prompt"

    def inject(self, backbone: nn.Module) -> None:
        prepend(backbone, self.n, bound=0.5)
