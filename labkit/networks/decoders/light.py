"""The laptop's decoder: half a million parameters, a fraction of the backbone's cost."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

PRIOR = 0.01  # expected share of each label


def rare(classes: int) -> torch.Tensor:
    """Logits that give each label a probability of PRIOR and the rest to the background: (classes,)."""
    return torch.tensor([1 - PRIOR * (classes - 1)] + [PRIOR] * (classes - 1)).log()


class LightDecoder(nn.Module):
    """Four feature maps -> logits at eight times their resolution.

    A token of width d describes a whole patch. Each level's tokens are normalised and unfolded to 4 x 4 finer
    cells of `channels` features by one linear map (sub-pixel convolution: Shi et al., 2016,
    arXiv:1609.05158); two convolutions mix levels and neighbours. The last bias says from the start that a
    label is rare (`PRIOR` per class), so that training does not begin by learning just that (Lin et al.,
    2017, arXiv:1708.02002, section 4.1).
    """

    def __init__(self, widths: list[int], classes: int, channels: int = 16, hidden: int = 48):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(d) for d in widths)
        self.unfold = nn.ModuleList(nn.Linear(d, channels * 16) for d in widths)
        self.mix = nn.Sequential(
            nn.Conv2d(channels * len(widths), hidden, 3, padding=1),
            nn.GroupNorm(8, hidden),
            nn.GELU(),
            nn.Conv2d(hidden, hidden * 2, 3, padding=1),
            nn.GroupNorm(8, hidden * 2),
            nn.GELU(),
        )
        self.head = nn.Conv2d(hidden * 2, classes * 4, 1)
        with torch.no_grad():
            self.head.bias.copy_(rare(classes).repeat_interleave(4))

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        cells = []
        for norm, unfold, x in zip(self.norms, self.unfold, maps, strict=True):
            x = unfold(norm(x.movedim(1, -1))).movedim(-1, 1)  # (n, d, h, w) -> (n, 16·channels, h, w)
            cells.append(F.pixel_shuffle(x, 4))  # (n, channels, 4h, 4w)
        size = cells[0].shape[-2:]  # a Swin's deeper maps are coarser
        cells = [F.interpolate(c, size, mode="bilinear") if c.shape[-2:] != size else c for c in cells]
        return F.pixel_shuffle(self.head(self.mix(torch.cat(cells, 1))), 2)  # (n, K, 8h, 8w)
