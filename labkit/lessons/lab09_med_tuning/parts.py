"""What an adapter of Med-Tuning owns, as the notebook hands it to students."""

from __future__ import annotations

import torch
from torch import nn


class Filter(nn.Module):
    """The global branch with W and b that learn: (B, m, T, h, w) -> the same shape."""

    def __init__(self, T: int):
        super().__init__()
        self.W, self.b = nn.Parameter(torch.ones(T, 1, 1)), nn.Parameter(torch.ones(T, 1, 1))

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        volume = (-3, -2, -1)  # slices, rows, columns
        return torch.fft.ifftn(torch.fft.fftn(h, dim=volume) * self.W + self.b, dim=volume).abs()


class Parts(nn.Module):
    """Everything that `forward` calls, for tokens of d numbers, a bottleneck of m and runs of T slices."""

    def __init__(self, d: int, m: int, T: int):
        super().__init__()

        def near(k: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv3d(m, m, (1, k, k), padding=(0, k // 2, k // 2), groups=m),
                nn.Conv3d(m, m, (k, 1, 1), padding=(k // 2, 0, 0), groups=m),
                nn.BatchNorm3d(m),
                nn.ReLU(),
            )

        self.down, self.up = nn.Linear(d, m), nn.Linear(m, d)
        self.conv3, self.conv5, self.fourier = near(3), near(5), Filter(T)
        self.mix = nn.Conv3d(m, m, 1)
        self.align, self.fuse = nn.Conv3d(m, m, 1), nn.Conv3d(2 * m, m, 1)


def parts(d: int, m: int, T: int) -> Parts:
    """Parts with random numbers everywhere: a start of zeros or ones would hide an error. In evaluation, so
    that their norms keep no record of what passes."""
    made = Parts(d, m, T).eval()
    with torch.no_grad():
        for p in made.parameters():
            p.normal_(std=0.7)
        for conv in (made.conv3, made.conv5):
            conv[2].running_var.uniform_(0.5, 2)
    return made
