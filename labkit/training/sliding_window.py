"""Label a scan larger than the network: windows with overlap, and the mean over mirrored scans.

    probabilities = class_probabilities(model, volume.image, slices=16, size=model.size, flips="SHW")

The windows are MONAI's (`sliding_window_inference`). Shen et al. (2024, arXiv:2304.10880) predict so: windows
of 128 voxels, a third of that apart, mirrored along all axes.
"""

from __future__ import annotations

from itertools import chain, combinations

import numpy as np
import torch
from torch import nn

from labkit.scans.slices import Volume, classes_of
from labkit.training.evaluate import check_fits, run_length
from labkit.training.precision import autocast, device_of

AXES = "SHW"  # slices (up and down), rows (front and back), columns (left and right)


def predict_windows(
    model: nn.Module,
    volume: Volume,
    slices: int | None = None,
    size: tuple[int, int] | None = None,
    flips: str = "",
    overlap: float = 0.5,
) -> np.ndarray:
    """Label values of every voxel, (S, H, W) uint8: the likeliest class of `class_probabilities`.

    `slices` and the ValueError of a case that does not fit as in `labkit.training.evaluate.predict`.
    """
    check_fits(model, volume.case)
    slices = run_length(model, slices)
    found = class_probabilities(model, volume.image, slices, size, flips, overlap).argmax(1)
    return np.asarray(classes_of(volume.case), np.uint8)[found.numpy()]


@torch.no_grad()
def class_probabilities(
    model: nn.Module,
    image: torch.Tensor,
    slices: int = 16,
    size: tuple[int, int] | None = None,
    flips: str = "",
    overlap: float = 0.5,
) -> torch.Tensor:
    """(S, C, H, W) -> (S, K, H, W), on the CPU: the mean over windows and over mirrored scans.

    A window has `slices` neighbours (give `Recipe.slices`) of `size` pixels: `model.size` for a network that
    was trained on crops; None is the whole plane, for one trained on whole slices. Neighbouring windows share
    `overlap` of their length and count most in their middle. `flips` names axes of "SHW"; all combinations of
    them are averaged, so "SHW" takes eight times as long. A window larger than the scan sees zeros around it.
    ValueError: an axis that is none, or there twice; an overlap outside 0 <= overlap < 1.
    """
    from monai.inferers import sliding_window_inference

    if set(flips) - set(AXES) or len(set(flips)) < len(flips):
        raise ValueError(f"flips={flips!r}: expected letters of {AXES!r}, each at most once; '' is none.")
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap={overlap} is no share of a window; give 0 <= overlap < 1, such as 0.5.")
    model.eval()
    device = device_of(model)
    scan = image.movedim(1, 0)[None]  # (1, C, S, H, W)

    def probabilities(windows: torch.Tensor) -> torch.Tensor:  # (n, C, S, H, W) -> (n, K, S, H, W)
        with autocast(device.type):
            logits = model(windows.movedim(1, 2))
        return logits.movedim(2, 1).float().softmax(1)

    window, total = (slices, *(size or image.shape[-2:])), 0.0
    for axes in mirrors(flips):
        found = sliding_window_inference(
            scan.flip(axes),
            window,
            sw_batch_size=max(1, 16 // slices),
            predictor=probabilities,
            overlap=overlap,
            mode="gaussian",
            sw_device=device,
            device="cpu",
        )
        total = total + found.flip(axes)
    return (total / len(mirrors(flips)))[0].movedim(0, 1)


def mirrors(flips: str) -> list[tuple[int, ...]]:
    """Every combination of the axes, as dimensions of (1, C, S, H, W): "W" -> [(), (4,)]."""
    dims = [2 + AXES.index(axis) for axis in flips]
    return list(chain.from_iterable(combinations(dims, n) for n in range(len(dims) + 1)))
