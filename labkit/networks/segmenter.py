"""Backbone + decoder: slices or volumes in, one logit per class and voxel out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import nn

from labkit.networks.anatomy import feature_widths, features, stage_inputs, tell_slices, token_pixels
from labkit.networks.backbones import load_backbone
from labkit.networks.decoders.light import LightDecoder
from labkit.networks.decoders.linear import LinearDecoder
from labkit.networks.decoders.swin_unet import SwinUNetDecoder
from labkit.networks.decoders.upernet import UPerNet

DECODERS = ("light", "linear", "upernet", "swin_unet")


class Segmenter(nn.Module):
    """A 2-D transformer that segments slice by slice.

    `tune_positions` makes the position embedding part of the head. It costs a backward pass through the whole
    backbone, and is meant for a backbone whose positions were not pre-trained at this size. `maps` says which
    feature maps the decoder reads: `features` or, for a Swin-Unet, `stage_inputs` of labkit.networks.anatomy.
    """

    def __init__(
        self,
        backbone: nn.Module,
        decoder: nn.Module,
        tune_positions: bool = False,
        maps: Callable[[nn.Module, torch.Tensor], list[torch.Tensor]] = features,
    ):
        super().__init__()
        self.backbone, self.decoder, self.tune_positions, self.maps = backbone, decoder, tune_positions, maps
        self.size = backbone.patch_embed.img_size  # pixels the backbone was made for

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Slices (B, C, H, W) -> (B, K, H, W), or volumes (B, S, C, H, W) -> (B, S, K, H, W)."""
        if x.ndim not in (4, 5):
            raise ValueError(
                f"A segmenter takes slices (B, C, H, W) or volumes (B, S, C, H, W), not {tuple(x.shape)}."
            )
        tell_slices(self.backbone, x.shape[1] if x.ndim == 5 else 1)
        slices = x.flatten(0, -4)  # (B·S, C, H, W)
        logits = self.decoder(self.maps(self.backbone, resize(slices, self.size)))
        return resize(logits, x.shape[-2:]).unflatten(0, x.shape[:-3])


def resize(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """In-plane, bilinear: (n, C, H, W) -> (n, C, *size)."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)


GIVEN = "a file"  # stands in `made` for weights that whoever builds the network anew must give


def segmenter(
    backbone: str = "tiny",
    in_chans: int = 4,
    classes: int = 4,
    weights="default",
    seed: int = 0,
    decoder: str = "light",
) -> Segmenter:
    """A backbone (see `load_backbone`) with a decoder, whose random start is fixed by `seed`.

    "light" is the laptop's decoder, "linear" one matrix for every token; both fit every backbone, as does
    "upernet"; "swin_unet" fits swin_t.
    ("vit_b16", "upernet") and ("swin_t", "swin_unet") are the two networks of Med-Tuning (Shen et al., 2024,
    arXiv:2304.10880); the first trains its position embedding with the head, as there.
    """
    if decoder not in DECODERS or (decoder == "swin_unet" and backbone != "swin_t"):
        raise ValueError(
            f"There is no decoder {decoder!r} for {backbone}; choose light, linear or upernet for any, or "
            "swin_unet for swin_t."
        )
    asked = (backbone, in_chans, classes, decoder, seed)
    if backbone == "tiny" and weights == "default":  # labs ask for it again and again
        model = copy.deepcopy(_laptops(*asked, torch.get_default_dtype(), torch.get_default_device()))
    else:
        model = _build(*asked, weights)
    # whoever has a delta can then build the network it belongs to, but for weights that lie in a file
    model.made = dict(backbone=backbone, in_chans=in_chans, classes=classes, decoder=decoder)
    if weights is None:
        model.made |= dict(weights=None, seed=seed)
    elif weights != "default":
        model.made |= dict(weights=GIVEN)
    return model


@lru_cache(maxsize=4)
@torch.inference_mode(False)  # asked for within it, too; what is made there can't be trained later
def _laptops(backbone, in_chans, classes, decoder, seed, dtype, device) -> Segmenter:
    """The pretrained laptop's network, to be copied: that takes an eighth of the time of building it."""
    return _build(backbone, in_chans, classes, decoder, seed, "default")


def _build(backbone: str, in_chans: int, classes: int, decoder: str, seed: int, weights) -> Segmenter:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = load_backbone(backbone, in_chans, weights)
        if decoder == "swin_unet":
            model = Segmenter(body, SwinUNetDecoder(body, classes), maps=stage_inputs)
        elif decoder == "linear":
            model = Segmenter(body, LinearDecoder(feature_widths(body)[-1], classes, token_pixels(body)))
        elif decoder == "upernet":
            decode = UPerNet(feature_widths(body), classes)
            model = Segmenter(body, decode, tune_positions=backbone == "vit_b16")
        else:
            model = Segmenter(body, LightDecoder(feature_widths(body), classes))
    return model
