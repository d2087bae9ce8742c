"""Methods that add nothing: they choose which pretrained parameters learn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Full:
    """Every parameter learns: the standard "pre-training then fine-tuning"."""

    def inject(self, backbone: nn.Module) -> None:
        backbone.requires_grad_(True)


@dataclass(frozen=True)
class Head:
    """The backbone stays frozen; only the head learns (position embedding, final norm, decoder)."""

    def inject(self, backbone: nn.Module) -> None:
        pass


@dataclass(frozen=True)
class Scratch:
    """The pretrained weights are thrown away and every parameter learns from a random start."""

    seed: int = 0

    def inject(self, backbone: nn.Module) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            backbone.init_weights()
            for module in (backbone.patch_embed.proj,):  # timm leaves the patch embedding to its constructor
                module.reset_parameters()
        backbone.requires_grad_(True)
