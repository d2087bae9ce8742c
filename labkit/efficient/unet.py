"""A small U-Net from scratch, to compare tuned transformers with: trained by `labkit.training.fit` as they
are.

Its body is the one of `labkit.efficient.meddanet_unet` (U-Net: Ronneberger et al., 2015, arXiv:1505.04597; as
built by Shen et al., 2024, arXiv:2310.18656), with one head and no bits to choose. Nothing is pretrained:

    fit(tune(SmallUNet(), Full()), train, Recipe(lr=LR, head_lr=LR))

Parameters for width c: 6252 c^2 + 273 c, the head 18 c^2 + 10 c + 4; 0.40 M for c = 8.
"""

from __future__ import annotations

import torch
from torch import nn

from labkit.efficient.meddanet_unet import UNet, head

LR = 4e-3  # new weights need larger steps than an update of trained ones


class SmallUNet(nn.Module):
    """Slices (B, 4, H, W) -> logits (B, 4, H, W), or volumes with S slices before C; H and W divisible by 8.

    `seed` fixes the random start. `size` is what slices are brought to in training.
    """

    def __init__(self, c: int = 8, size: tuple[int, int] = (96, 96), seed: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.body = UNet(c, choices=(8, 16))
            self.body.selectors = nn.ModuleList()  # nothing to select: weights stay as they are
            block, self.classifier, _ = head(c)  # training wants logits, so no softmax
        self.block, self.size = block, size

    def get_classifier(self) -> nn.Module:
        """The last layer, as timm's models name it: what `labkit.networks.anatomy` takes for the head."""
        return self.classifier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        slices = x.flatten(0, -4)  # (B·S, C, H, W)
        features, _ = self.body(slices)
        return self.classifier(self.block(features)).unflatten(0, x.shape[:-3])
