"""The simplest decoder: one linear map of each token to the pixels of its patch, a linear probe."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from labkit.networks.decoders.light import rare


class LinearDecoder(nn.Module):
    """Four feature maps -> logits at the resolution of the image, from the deepest map alone.

    A token of width d becomes `patch` x `patch` pixels of K classes by one matrix, so whatever a segmentation
    needs the backbone has to have computed: with a frozen backbone, a linear probe (Alain and Bengio, 2016,
    arXiv:1610.01644). The bias starts at the labels' rarity, as in `light.LightDecoder`.
    """

    def __init__(self, d: int, classes: int, patch: int):
        super().__init__()
        self.norm, self.patch = nn.LayerNorm(d), patch
        self.head = nn.Linear(d, classes * patch**2)
        with torch.no_grad():
            self.head.bias.copy_(rare(classes).repeat_interleave(patch**2))

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        tokens = self.norm(maps[-1].movedim(1, -1))  # (n, h, w, d)
        return F.pixel_shuffle(self.head(tokens).movedim(-1, 1), self.patch)  # (n, K, patch·h, patch·w)
