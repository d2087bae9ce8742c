"""The control without a network: voxels between two intensities of one channel.

A region whose voxels are brighter (or darker) than the rest is found by two numbers. What a network adds is
what it finds beyond that, so a Dice should stand beside this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from labkit.metrics import regions_of, score_region
from labkit.scans.slices import Volume
from labkit.training.quick import PATIENTS, at_most

BINS = np.linspace(-4, 8, 121)  # standard deviations of the body's intensities; finer gives nothing


@dataclass(frozen=True)
class Band:
    """The voxels of a channel whose standardised intensity lies from `low` to below `high`."""

    channel: int
    low: float
    high: float

    def __call__(self, volume: Volume) -> np.ndarray:
        """(S, H, W) bool."""
        values = volume.image[:, self.channel].numpy()
        return (values >= self.low) & (values < self.high)


def best_bands(train: Sequence[Volume]) -> dict[str, Band]:
    """For each region the band with the best mean Dice over the training patients who have it.

    All pairs of bounds of every channel are tried, on histograms. ValueError: a region that nobody has.
    """
    train = train[: at_most(len(train), PATIENTS)]
    regions = regions_of(train[0].case.label_names)
    channels = range(train[0].image.shape[1])
    bins = [[in_bins(volume, channel) for channel in channels] for volume in train]  # once for all regions
    bands = {}
    for name, labels in regions.items():
        masks = [np.isin(volume.case.label, labels) for volume in train]
        having = [(places, mask) for places, mask in zip(bins, masks, strict=True) if mask.any()]
        if not having:
            raise ValueError(f"No patient to train on has the region {name}; give more patients.")
        best = (-1.0, None)
        for channel in channels:
            dices = np.mean([dices_of_bands(places[channel], mask) for places, mask in having], axis=0)
            low, high = np.unravel_index(dices.argmax(), dices.shape)
            best = max(best, (dices.max(), Band(channel, edge(low), edge(high))), key=lambda pair: pair[0])
        bands[name] = best[1]
    return bands


def in_bins(volume: Volume, channel: int) -> np.ndarray:
    """The bin of every voxel, 0 ... len(BINS): (S, H, W) uint8."""
    return np.digitize(volume.image[:, channel].numpy(), BINS).astype(np.uint8)


def dices_of_bands(place: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Dice of the band from every bin to below every other, of voxels in bins and those of the region, both
    (S, H, W): (low, high); 0 where there is no band."""
    n = len(BINS) + 1
    below_all = np.concatenate([[0], np.bincount(place.ravel(), minlength=n).cumsum()])  # voxels below a bin
    below_true = np.concatenate([[0], np.bincount(place[mask], minlength=n).cumsum()])
    marked = below_all[None, :] - below_all[:, None]  # (low, high)
    hit = below_true[None, :] - below_true[:, None]
    dices = 2 * hit / np.maximum(marked + mask.sum(), 1)
    return np.triu(dices, 1)


def edge(place: int) -> float:
    """The intensity at which a bin begins; the first begins nowhere, and behind the last nothing comes."""
    if place == 0:
        return -np.inf
    return float(BINS[place - 1]) if place <= len(BINS) else np.inf


def evaluate_bands(bands: dict[str, Band], volumes: Sequence[Volume], lesions: bool = False) -> list[dict]:
    """Rows as `labkit.training.evaluate.evaluate` gives them, without distances."""
    rows = []
    for volume in volumes[: at_most(len(volumes), PATIENTS)]:
        case, regions = volume.case, regions_of(volume.case.label_names)
        for name, labels in regions.items():
            values = score_region(
                bands[name](volume), np.isin(case.label, labels), case.spacing_mm, False, lesions
            )
            rows.append(dict(case=case.name, region=name, **values))
    return rows
