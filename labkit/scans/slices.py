"""Volumes to tensors, and tensors to training batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from labkit.scans.augment import AUGMENTATIONS
from labkit.scans.case import Case

MIDDLE_QUARTER = 0.3186  # deviations to either side of the mean that hold a quarter of a normal distribution


@dataclass(frozen=True)
class Volume:
    """A case as a network sees it."""

    case: Case
    image: torch.Tensor  # (S, C, H, W) float32, each channel with mean 0 and deviation 1 inside the body
    target: torch.Tensor  # (S, H, W) int64, class indices: 0 background, then the label values in order


def classes_of(case: Case) -> tuple[int, ...]:
    """Label value of each class index; BraTS: (0, 1, 2, 4)."""
    return (0, *sorted(case.label_names))


def to_volume(case: Case) -> Volume:
    """Standardise the intensities inside the body: mean 0, deviation 1 per channel; outside they become 0.

    ValueError: the case has labels that its `label_names` does not name.
    """
    classes = classes_of(case)
    if unknown := set(np.unique(case.label).tolist()) - set(classes):
        raise ValueError(
            f"{case.name} has the labels {sorted(unknown)}, which are not among {dict(case.label_names)}; "
            "name them in label_names, or turn them into ones that are."
        )
    inside = body(case.image)
    image = np.zeros_like(case.image, dtype=np.float32)
    for channel, raw in zip(image, case.image, strict=True):
        channel[inside] = (raw[inside] - raw[inside].mean()) / (raw[inside].std() + 1e-6)
    target = np.searchsorted(classes, case.label)
    return Volume(case, torch.from_numpy(image).movedim(0, 1).contiguous(), torch.from_numpy(target))


def excerpt(volume: Volume, slices: int) -> Volume:
    """A run of neighbouring slices around the one with most label; all of them if there are no more."""
    S, fullest = len(volume.target), int((volume.target > 0).flatten(1).sum(1).argmax())
    start = max(0, min(fullest - slices // 2, S - slices))
    some = slice(start, start + slices)
    case = replace(volume.case, image=volume.case.image[:, some], label=volume.case.label[some])
    return Volume(case, volume.image[some], volume.target[some])


def every_other(volume: Volume) -> Volume:
    """Every second slice, twice as far apart: half of the work where slices are thin and neighbours alike."""
    s_mm, *in_plane = volume.case.spacing_mm
    some = slice(None, None, 2)
    fewer = {"image": volume.case.image[:, some], "label": volume.case.label[some]}
    case = replace(volume.case, **fewer, spacing_mm=(2 * s_mm, *in_plane))
    return Volume(case, volume.image[some], volume.target[some])


def body(image: np.ndarray) -> np.ndarray:
    """Where a channel differs from its background, (C, S, H, W) -> (S, H, W).

    The background is one value that fills a quarter of the volume's border or more: 0 around a brain without
    its skull, -1000 or so around a padded CT. Air with noise will do as well (`noisy_air`). Without either,
    all is body. A background of 0 was cut out by somebody's mask, which is taken as it is; any other is air,
    and gas that the body surrounds is body.
    """
    inside = np.zeros(image.shape[1:], bool)
    for channel in image:
        border = np.concatenate(
            [np.take(channel, i, axis).ravel() for axis in range(3) for i in (0, -1)], axis=None
        )
        values, counts = np.unique(border, return_counts=True)
        if 4 * counts.max() >= len(border):
            background = values[counts.argmax()]
            here = channel != background
            inside |= filled(here) if background else here
        elif (air := noisy_air(channel, border)) is not None:
            inside |= filled((channel < air[0]) | (channel > air[1]))
        else:
            return np.ones_like(inside)
    return inside if inside.any() else np.ones_like(inside)


def noisy_air(channel: np.ndarray, border: np.ndarray) -> tuple[float, float] | None:
    """The lowest and highest value of air with a scanner's noise, of a channel and its border; None: no air.

    Air is the darkest there is: the quarter of the border whose values lie closest together tells its mean
    and its noise, five deviations to either side are air, next to nothing is darker, and the brightest of the
    scan stand out by four times as much. Tissue at the border of a scan that was cut out does none of that.
    """
    border = np.sort(border).astype(float)
    quarter = -(-len(border) // 4)
    widths = border[quarter - 1 :] - border[: len(border) - quarter + 1]
    start = int(widths.argmin())
    middle = border[start : start + quarter].mean()
    reach = 5 * (widths[start] / 2) / MIDDLE_QUARTER
    darker, bright = (channel < middle - reach).mean(), np.percentile(channel, 99)
    return (middle - reach, middle + reach) if darker < 0.01 and bright - middle > 4 * reach else None


def filled(inside: np.ndarray) -> np.ndarray:
    """A mask (S, H, W) with what is enclosed in its own slice."""
    from scipy import ndimage

    in_plane = np.zeros((3, 3, 3), bool)
    in_plane[1] = ndimage.generate_binary_structure(2, 1)
    regions, _ = ndimage.label(~inside, in_plane)
    edges = [regions[:, [0, -1]].ravel(), regions[:, :, [0, -1]].ravel()]
    outside = np.zeros(regions.max() + 1, bool)
    outside[np.concatenate(edges)] = True
    return inside | ~outside[regions]


def sample_slabs(
    volumes: Sequence[Volume],
    count: int,
    slices: int,
    size: tuple[int, int],
    rng: torch.Generator,
    augment: str = "plain",
    crop: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A random batch of runs of neighbouring slices, (count, slices, C, *size), and their targets without C.

    Two of three runs are centred on a slice that holds a label. Whole slices are scaled to `size`; with
    `crop`, windows of that size are cut out at random instead, and slices that are smaller get zeros around
    them. Left and right are swapped at random and intensities changed inside the body
    (`labkit.scans.augment`).
    """
    images, targets = [], []
    for _ in range(count):
        volume = volumes[draw(len(volumes), rng)]
        labelled = volume.target.flatten(1).any(1).nonzero().flatten()
        centre = draw(len(volume.target), rng)
        if len(labelled) and torch.rand((), generator=rng) < 2 / 3:
            centre = int(labelled[draw(len(labelled), rng)])
        run = (torch.arange(slices) + centre - slices // 2).clamp(0, len(volume.target) - 1)
        image, target = volume.image[run], volume.target[run]
        if crop:
            image, target = cut(image, target, size, rng)
        elif image.shape[-2:] != size:
            image = F.interpolate(image, size, mode="bilinear", align_corners=False)
            target = F.interpolate(target[:, None].float(), size, mode="nearest-exact")[:, 0].long()
        if torch.rand((), generator=rng) < 0.5:
            image, target = image.flip(-1), target.flip(-1)
        images.append(torch.where(image == 0, 0.0, AUGMENTATIONS[augment](image, rng)))
        targets.append(target)
    return torch.stack(images), torch.stack(targets)


def cut(
    image: torch.Tensor, target: torch.Tensor, size: tuple[int, int], rng: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same random window of `size` pixels of all slices: (S, C, H, W) and (S, H, W)."""
    lack = [max(0, n - have) for n, have in zip(size, target.shape[-2:], strict=True)]
    around = (lack[1] // 2, lack[1] - lack[1] // 2, lack[0] // 2, lack[0] - lack[0] // 2)
    image, target = F.pad(image, around), F.pad(target, around)
    top, left = (draw(have - n + 1, rng) for n, have in zip(size, target.shape[-2:], strict=True))
    window = (..., slice(top, top + size[0]), slice(left, left + size[1]))
    return image[window], target[window]


def draw(n: int, rng: torch.Generator) -> int:
    return int(torch.randint(n, (), generator=rng))
