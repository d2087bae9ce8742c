r"""DyLoRA: Parameter-Efficient Tuning of Pretrained Models using Dynamic Search-Free Low Rank Adaptation.
Valipour et al., 2023, arXiv:2210.07558.

$$ h = W_0 x + \tfrac{\alpha}{b} B_{\downarrow b} A_{\downarrow b} x, \qquad
   A_{\downarrow b} = A[1\!:\!b, :], \quad B_{\downarrow b} = B[:, 1\!:\!b] $$

with A (r, k), B (d, r) as in LoRA, and b drawn anew for every training step, uniformly from 1..r. The first
ranks serve under every b and learn what matters most; one training gives every rank from 0 to r, by cutting.

Deviations. The scale is alpha / r for every b here, so that the update of rank b + 1 is that of rank b plus
one more term, B[:, b+1] A[b+1, :], and cutting really is cutting. The paper's alpha / b (in its code a factor
sqrt(r / b) on A and on B) multiplies what the first ranks hold by r / b from step to step, and a trial of six
linears with it did not train well; `rescale=True` asks for it. The authors' run script updates rank b alone
and freezes those below it; here all b learn.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from labkit.methods.lora import LoRA, LoRALinear, stacked
from labkit.methods.select import Head
from labkit.networks.anatomy import innermost, linears, swap
from labkit.tuning import wrappers


class Rank:
    """The rank b that all layers of a network use: the one asked for, or the one drawn for this step."""

    def __init__(self, most: int):
        self.most, self.asked, self.drawn = most, None, most

    @property
    def used(self) -> int:
        """Outside training steps: the rank asked for, or all if none is."""
        return self.most if self.asked is None else self.asked

    def draw(self) -> None:
        """From PyTorch's own random numbers, so a step's seed decides it."""
        self.drawn = int(torch.randint(1, self.most + 1, (), device="cpu"))


class DyLoRALinear(LoRALinear):
    """A LoRA layer of which the first b ranks are used.

    The layer that `leads` is the first of the forward pass and draws b for all. With gradient checkpointing
    it draws again in the backward pass, from the random state of the forward pass: the same b, as long as no
    other forward pass in training comes between the two.
    """

    def __init__(self, original: nn.Linear, *, rank: Rank, leads: bool, rescale: bool, **of_lora):
        super().__init__(original, r=rank.most, **of_lora)
        self.rank, self.leads, self.rescale = rank, leads, rescale

    def scale_at(self, b: int) -> float:
        return self.scale * self.rank.most / b if self.rescale and b else self.scale

    def cut(self, b: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The first b ranks: A (n, b, k) and B (n, d, b)."""
        return self.A[:, :b], self.B[:, :, :b]

    def down_and_up(self) -> tuple[torch.Tensor, torch.Tensor]:
        """LoRA's, cut to the rank asked for, if one is."""
        b = self.rank.used
        A, B = self.cut(b)
        return A.flatten(0, 1), self.scale_at(b) * stacked(B, self.parts, self.of)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b = self.rank.used
        if self.training and self.rank.asked is None:
            if self.leads:
                self.rank.draw()
            b = self.rank.drawn
        return self.updated(x, *self.cut(b), self.scale_at(b))


@dataclass(frozen=True)
class DyLoRA(LoRA):
    """LoRA of every rank up to `r` from one training; see `at_rank` and `truncate`."""

    rescale: bool = False  # alpha / b, as in the paper, in place of alpha / r

    def inject(self, backbone: nn.Module) -> None:
        if self.r < 1:
            raise ValueError(f"DyLoRA's largest rank r is {self.r}; it must be at least 1.")
        alpha, rank = self.r if self.alpha is None else self.alpha, Rank(self.r)
        first = True  # of the forward pass; it draws the rank
        for path, (parts, of) in linears(backbone, self.targets, "DyLoRA").items():
            if not isinstance(innermost(backbone.get_submodule(path)), nn.Linear):
                raise ValueError(f"DyLoRA can't be put on {path}, a convolution; name linear layers.")
            shared = dict(rank=rank, leads=first, rescale=self.rescale)
            mine = dict(parts=parts, of=of, alpha=alpha, dropout=self.dropout)
            swap(backbone, path, partial(DyLoRALinear, **shared, **mine))
            first = False


def layers(model: nn.Module, b: int) -> list[tuple[str, DyLoRALinear]]:
    """The DyLoRA layers of a model, by name. ValueError: there are none, or they have no rank b."""
    found = [(name, layer) for name, layer in wrappers(model) if isinstance(layer, DyLoRALinear)]
    if not found:
        raise ValueError(
            f"This model (tuned by {getattr(model, 'tuned_by', None)}) has no DyLoRA layers to cut; use "
            "tune(model, DyLoRA(...)), or unmerge(model) if they are merged."
        )
    most = found[0][1].rank.most
    if b not in range(most + 1):
        raise ValueError(f"Rank {b} is none of this DyLoRA's; choose a whole number from 0 to {most}.")
    return found


@contextlib.contextmanager
def at_rank(model: nn.Module, b: int) -> Iterator[nn.Module]:
    """Inside the context every DyLoRA layer uses its first b ranks, 0 <= b <= r, in training too."""
    rank = layers(model, b)[0][1].rank
    before, rank.asked = rank.asked, b
    try:
        yield model
    finally:
        rank.asked = before


@torch.no_grad()
def truncate(model: nn.Module, b: int) -> nn.Module:
    """Throw away all ranks after the first b: a model tuned by LoRA(r=b), or by Head() if b is 0.

    The same model, changed in place; copy it first to keep the other ranks.
    """
    for name, layer in layers(model, b):
        if b:
            kept = dict(parts=layer.parts, of=layer.of, r=b, alpha=layer.scale_at(b) * b)
            with torch.device("meta"):  # nothing to draw: A and B are copied
                plain = LoRALinear(layer.original, **kept, dropout=layer.dropout.p)
            A, B = layer.cut(b)
            plain.A, plain.B = nn.Parameter(A.clone()), nn.Parameter(B.clone())
            model.set_submodule(name, plain.train(layer.training))
        else:
            model.set_submodule(name, layer.original)

    def cut(method):
        if not isinstance(method, DyLoRA):
            return method
        alpha = method.r if method.alpha is None else method.alpha
        alpha = alpha if method.rescale else alpha * b / method.r
        return LoRA(b, alpha, method.targets, method.dropout) if b else Head()

    by = model.tuned_by
    model.tuned_by = tuple(cut(one) for one in by) if isinstance(by, tuple) else cut(by)
    return model
