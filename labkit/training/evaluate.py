"""What a network says about whole patients, and how good that is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from labkit.metrics import mean_by_region, mean_present, regions_of, score
from labkit.scans.case import Case
from labkit.scans.slices import Volume, classes_of, excerpt
from labkit.training.precision import autocast, device_of
from labkit.training.quick import PATIENTS, SLICES, at_most


def check_fits(model: nn.Module, case: Case) -> None:
    """ValueError: the network knows what it was trained on (`model.preprocessing`), and the case is other.

    Channels and their order, labels, window and spacing are compared by name and number. A network that was
    not made for a case (`labkit.training.fit.fresh`) or read from a delta that says so fits all cases.
    """
    trained = getattr(model, "preprocessing", None)
    if trained and (why := trained.unlike(case.preprocessing)):
        raise ValueError(f"{case.name} does not fit this network: it has {why}.")


def run_length(model: nn.Module, slices: int | None) -> int:
    """Slices in a run: as asked for, or as the network says it was trained on, or one, as in `Recipe`."""
    return slices or getattr(model, "slices", 1)


@torch.no_grad()
def predict(model: nn.Module, volume: Volume, slices: int | None = None) -> np.ndarray:
    """Label values of every voxel: (S, H, W) uint8. ValueError: the case does not fit (`check_fits`).

    The volume is read in runs of neighbouring `slices`, each a volume of its own to a volumetric method: give
    it the length it was trained on (`Recipe.slices`), where the network does not know it. What remains at the
    end is the last full run again. In quick mode only a few slices around the fullest are read, the others
    stay background.
    """
    check_fits(model, volume.case)
    slices = run_length(model, slices)
    model.eval()
    S, device = len(volume.image), device_of(model)
    found = torch.zeros(volume.image.shape[:1] + volume.image.shape[2:], dtype=torch.int64)  # (S, H, W)
    starts = [min(start, max(S - slices, 0)) for start in range(0, S, slices)]
    if (few := at_most(S, SLICES)) < S:
        middle = int((volume.target > 0).flatten(1).sum(1).argmax())
        starts = [start for start in starts if abs(start + slices // 2 - middle) <= few // 2]
    for some in batched(starts, max(1, 16 // slices)):
        runs = torch.stack([volume.image[start : start + slices] for start in some])
        with autocast(device.type):
            classes = model(runs.to(device)).argmax(2).cpu()  # (runs, slices, H, W)
        for start, run in zip(some, classes, strict=True):
            found[start : start + slices] = run
    return np.asarray(classes_of(volume.case), np.uint8)[found.numpy()]


def batched(items: list, size: int) -> list[list]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def evaluate(
    model: nn.Module,
    volumes: Sequence[Volume],
    hausdorff: bool = True,
    progress: bool = False,
    slices: int | None = None,
    lesions: bool = False,
    crop: bool = False,
) -> list[dict]:
    """One row per patient and region: case, region, and what `metrics.score` gives: Dice is NaN for a region
    that the patient does not have.

    `slices` is that of `predict`; with `crop`, for a network that was trained so (`Recipe.crop`), a patient
    is labelled in overlapping windows (`labkit.training.sliding_window`). In quick mode a few slices of the
    first patients are looked at. ValueError: a case does not fit the network (`check_fits`).
    """
    for volume in volumes:  # before any of them takes its time
        check_fits(model, volume.case)
    rows = []
    some = volumes[: at_most(len(volumes), PATIENTS)]
    for volume in tqdm(some, desc="evaluating", unit="patient", disable=not progress, leave=False):
        volume = excerpt(volume, at_most(len(volume.image), SLICES))
        case = volume.case
        regions = regions_of(case.label_names)
        if crop:
            from labkit.training.sliding_window import predict_windows

            labels = predict_windows(model, volume, slices, tuple(model.size))
        else:
            labels = predict(model, volume, slices)
        found = score(labels, case.label, case.spacing_mm, regions, hausdorff, lesions)
        rows += [dict(case=case.name, region=region, **values) for region, values in found.items()]
    return rows


def mean_dice(rows: list[dict]) -> float:
    """Mean over regions of the mean over the patients who have them."""
    return mean_present(list(mean_by_region(rows).values()))
