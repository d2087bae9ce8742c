"""Backbone + decoder: slices or volumes in, one logit per class and voxel out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from labkit.anatomy import feature_widths, features, tell_slices
from labkit.backbones import load_backbone
from labkit.decoders.light import LightDecoder


class Segmenter(nn.Module):
    """A 2-D transformer that segments slice by slice.

    `tune_positions` makes the position embedding part of the head. It costs a backward pass through the whole
    backbone, and is meant for a backbone whose positions were not pre-trained at this size.
    """

    def __init__(self, backbone: nn.Module, decoder: nn.Module, tune_positions: bool = False):
        super().__init__()
        self.backbone, self.decoder, self.tune_positions = backbone, decoder, tune_positions
        self.size = backbone.patch_embed.img_size  # pixels the backbone was made for

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Slices (B, C, H, W) -> (B, K, H, W), or volumes (B, S, C, H, W) -> (B, S, K, H, W)."""
        if x.ndim not in (4, 5):
            raise ValueError(
                f"A segmenter takes slices (B, C, H, W) or volumes (B, S, C, H, W), not {tuple(x.shape)}."
            )
        tell_slices(self.backbone, x.shape[1] if x.ndim == 5 else 1)
        slices = x.flatten(0, -4)  # (B·S, C, H, W)
        logits = self.decoder(features(self.backbone, resize(slices, self.size)))
        return resize(logits, x.shape[-2:]).unflatten(0, x.shape[:-3])


def resize(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """In-plane, bilinear: (n, C, H, W) -> (n, C, *size)."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)


def segmenter(
    backbone: str = "tiny", in_chans: int = 4, classes: int = 4, weights="default", seed: int = 0
) -> Segmenter:
    """The laptop's segmenter: a backbone with a light decoder, whose random start is fixed by `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = load_backbone(backbone, in_chans, weights)
        return Segmenter(body, LightDecoder(feature_widths(body), classes))
