r"""Attention that sees more than its own tokens: what prompts and prefixes share, on ViT and on Swin.

With n further keys P_k and values P_v beside the keys K and values V of N tokens,

$$ \mathrm{softmax}\big(Q\,[P_k; K]^\top / \sqrt{d_h}\big)\,[P_v; V] $$

A Swin adds a bias for relative positions, and a mask where windows are shifted, to the logits of its N x N
pairs. Prompts have no place in the image, so both get columns of zeros for them. With n = 0 this is the
pretrained attention.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from labkit.networks.anatomy import block_paths, innermost


class WiderAttention(nn.Module):
    """Holds timm's attention of a ViT, or of a Swin's windows; a subclass says what else it sees."""

    def __init__(self, original: nn.Module):
        super().__init__()
        self.original = original

    def heads(self, tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Normalised tokens (B, N, d) -> their q, k, v, each (B, heads, N, d_h)."""
        qkv = self.original.qkv(tokens).unflatten(-1, (3, self.original.num_heads, -1))
        return qkv.permute(2, 0, 3, 1, 4).unbind()

    def bias(self, windows: int, mask: torch.Tensor | None) -> torch.Tensor | None:
        """What a Swin adds to the logits: (1 or windows, heads, N, N); an image's windows lie together."""
        if not hasattr(self.original, "relative_position_bias_table"):
            return None
        positions = self.original._get_rel_pos_bias()  # (1, heads, N, N)
        if mask is None:  # else one for each window of an image
            return positions
        return (positions + mask[:, None]).repeat(windows // len(mask), 1, 1, 1)

    def attend(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask=None, attn_mask=None, is_causal=False
    ) -> torch.Tensor:
        """Tokens come last among queries and keys, prompts first. -> (B, queries, d)"""
        if attn_mask is not None or is_causal:
            raise ValueError(
                "Attention to prompts knows no mask of a ViT; leave attn_mask and is_causal out."
            )
        bias = self.bias(len(q), mask)
        if bias is not None:
            bias = F.pad(bias, (k.shape[2] - bias.shape[3], 0, q.shape[2] - bias.shape[2], 0))
        dropout = self.original.attn_drop.p if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, bias, dropout)
        return self.original.proj_drop(self.original.proj(mixed.transpose(1, 2).flatten(2)))


class PrefixAttention(WiderAttention):
    """Every query of every image and window sees n keys and values that depend on no image."""

    def keys_values(self) -> tuple[torch.Tensor, torch.Tensor]:
        """P_k and P_v, each (1, heads, n, d_h)."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor, **kwargs) -> torch.Tensor:
        q, k, v = self.heads(x)
        q = q.contiguous()  # else the backward pass keeps all of qkv for it, beside the joined k and v
        P_k, P_v = (p.to(k.dtype).expand(len(x), -1, -1, -1) for p in self.keys_values())
        return self.attend(q, torch.cat([P_k, k], 2), torch.cat([P_v, v], 2), **kwargs)


def check_computable(block: nn.Module, attention: nn.Module, norms: bool = False) -> None:
    """ValueError: what this room computes in place of a block's attention would not be the pretrained one.

    It is that of timm's ViT `Block` with `Attention`, and of its `SwinTransformerBlock` with
    `WindowAttention`. Not of a SwinV2 (cosines), a CaiT (talking heads), a BEiT or EVA (biases, rotary
    positions), nor with a gate or with norms of queries, keys or output, unless the caller applies these
    `norms` itself.
    """
    from timm.models.swin_transformer import SwinTransformerBlock, WindowAttention
    from timm.models.vision_transformer import Attention, Block

    kinds = (type(block), type(attention))
    more = ["gate"] if getattr(attention, "gate", None) is not None else []
    if not norms:
        found = ((name, getattr(attention, name, None)) for name in ("q_norm", "k_norm", "norm"))
        more += [name for name, norm in found if not isinstance(norm, (nn.Identity, type(None)))]
    if more or kinds not in ((Block, Attention), (SwinTransformerBlock, WindowAttention)):
        with_more = f" with {', '.join(more)}" if more else ""
        raise ValueError(
            f"{kinds[1].__name__} of a {kinds[0].__name__}{with_more} would be computed wrongly by this "
            "method, which knows the plain attention of timm's ViT and Swin; choose another backbone, or a "
            "method that leaves attention as it is, such as Adapter()."
        )


def attentions(backbone: nn.Module, recomputed: bool = True) -> Iterator[tuple[str, nn.Module, int]]:
    """For each block: the path of its pretrained attention, its pretrained self, its width d.

    Earlier methods may have wrapped either. ValueError: one of them has widened the attention already; or it
    is none that can be `recomputed` here (see `check_computable`).
    """
    for path in block_paths(backbone):
        block = innermost(backbone.get_submodule(path))
        check_computable(block, innermost(getattr(block, "attn", None)), norms=not recomputed)
        d = innermost(innermost(block.attn).proj).out_features
        while hasattr(backbone.get_submodule(path), "original"):
            path += ".original"
        path += ".attn"
        while hasattr(module := backbone.get_submodule(path), "original"):
            if isinstance(module, WiderAttention):
                raise ValueError("Two methods of a tuple change how one attention attends; choose one.")
            path += ".original"
        yield path, block, d


class _Watch(TorchFunctionMode):
    """Notes the queries, keys and bias of the first attention that is computed."""

    seen = None

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention and self.seen is None:
            self.seen = *args[:2], args[3] if len(args) > 3 else kwargs.get("attn_mask")
        return function(*args, **kwargs)


@torch.no_grad()
def attention_to_prompts(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The share of its attention that each token of a block's input pays to each prompt: (B, heads, N, n).

    `x` is what the block gets, (B, N, d) or, of a Swin, (B, H, W, d) with N = H·W tokens row by row. Shares
    lie in [0, 1]; the rest of the 1 goes to tokens. With a prefix, prompts are its pairs of keys and values.
    ValueError: the block sees no prompts.
    """
    with _Watch() as watch:
        block(x)
    body = innermost(block)
    N = body.window_area if x.ndim == 4 else x.shape[1]
    if watch.seen is None or watch.seen[1].shape[2] == N:
        raise ValueError(
            "This block sees no prompts; tune the model by a method of prompts or a prefix first."
        )
    q, k, bias = watch.seen
    logits = q.float() @ k.float().mT / math.sqrt(q.shape[-1])
    shares = (logits if bias is None else logits + bias).softmax(-1)[:, :, -N:, :-N]
    return shares if x.ndim == 3 else from_windows(body, shares, x.shape[1:3])


def from_windows(block: nn.Module, shares: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Undo a Swin block's shift, padding and windows: (B·windows, heads, area, n) -> (B, heads, H·W, n)."""
    from timm.models.swin_transformer import window_reverse

    heads, n = shares.shape[1], shares.shape[3]
    windows = shares.transpose(1, 2).reshape(-1, *block.window_size, heads * n)
    padded = (math.ceil(side / of) * of for side, of in zip(size, block.window_size, strict=True))
    maps = window_reverse(windows, block.window_size, *padded)[:, : size[0], : size[1]]
    return maps.roll(block.shift_size, (1, 2)).flatten(1, 2).unflatten(-1, (heads, n)).transpose(1, 2)
