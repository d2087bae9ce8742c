r"""The global branch of Med-Tuning: a filter in the frequency domain of the whole volume.

$$ f = \left| \mathcal F^{-1}\big( W_F \cdot \mathcal F(h) + b_F \big) \right| $$

F is the discrete Fourier transform over slices, rows and columns, so f is a convolution with a kernel as
large as the volume, on a ring: beyond the last slice comes the first. One filter serves all m channels.
"""

from __future__ import annotations

import torch
from torch import nn

RING = (-3, -2, -1)  # slices, rows, columns


class RealFilter(nn.Module):
    """As released: real W_F and b_F, one number per slice frequency, all ones at the start.

    W_F does not vary over the in-plane frequencies, so there the transforms cancel and what is left is a 1-D
    convolution along slices; b_F, the same at all of them, reaches nothing but token (0, 0) of each slice.
    """

    def __init__(self, T: int, grid: tuple[int, int]):
        super().__init__()
        self.W_F = nn.Parameter(torch.ones(T, 1, 1))
        self.b_F = nn.Parameter(torch.ones(T, 1, 1))

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """(B, m, S, h, w) -> the same shape."""
        return filtered(h, self.W_F.float(), self.b_F.float())


class ComplexFilter(nn.Module):
    """As published: complex W_F and b_F, one number per frequency: (T, h, w, 2), real and imaginary part.

    W_F starts at one and b_F at zero, so f starts as |h|. Tied to the backbone's grid of tokens.
    """

    def __init__(self, T: int, grid: tuple[int, int]):
        super().__init__()
        self.W_F = nn.Parameter(torch.tensor([1.0, 0.0]).expand(T, *grid, 2).clone())
        self.b_F = nn.Parameter(torch.zeros(T, *grid, 2))

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """(B, m, S, h, w) -> the same shape."""
        return filtered(h, *map(torch.view_as_complex, (self.W_F.float(), self.b_F.float())))


def filtered(h: torch.Tensor, W: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """|F^-1(W F(h) + b)| in float32, for which transforms exist; W and b are (T, 1 or h, 1 or w)."""
    S = h.shape[2]
    with torch.autocast(h.device.type, enabled=False):
        spectrum = torch.fft.fftn(h.float(), dim=RING) * at_frequencies(W, S) + at_frequencies(b, S)
        return torch.fft.ifftn(spectrum, dim=RING).abs().to(h.dtype)


def at_frequencies(W: torch.Tensor, S: int) -> torch.Tensor:
    """W at the frequencies of S slices: (T, h, w) -> (S, h, w), W itself where S = T.

    Frequency k of S slices, k / S waves a slice, lies at k T / S on the ring of the T known ones; between two
    of them W is linear.
    """
    T = len(W)
    place = torch.arange(S, device=W.device) * T
    low, share = place // S, (place % S / S)[:, None, None]
    return W[low] * (1 - share) + W[(low + 1) % T] * share
