"""Full scale in two steps: the network of a paper, trained, kept and used on one digital patient.

    labkit train --backbone vit_b16 --decoder upernet --method med_tuning --smoke

Whether it runs here, how long a step takes and how much memory it needs; it learns nothing in two steps.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import torch

from labkit.methods import METHODS
from labkit.phantoms.brain import brain_patient
from labkit.scans.slices import Volume, excerpt, to_volume
from labkit.training.fit import Recipe, fit, fresh
from labkit.training.precision import computes_in, device_of
from labkit.training.sliding_window import predict_windows
from labkit.tuning import count

CROP = 128  # voxels of 1 mm along each axis, as in Med-Tuning's recipe
GIB = 2**30


def smoke_test(
    backbone: str, decoder: str, method: str = "full", weights: Path | None = None, seed: int = 0
) -> Iterator[str]:
    """Train on a crop of 128 voxels a side, label eight slices of the whole scan; a line about each part.

    Without `weights` they are random. A step sees two runs of eight slices, one after the other
    (`Recipe.accumulate`); then training is asked to go on from its checkpoint, where nothing is left to do.
    ValueError: there is no such method, or the decoder does not fit the backbone.
    """
    if method not in METHODS:
        raise ValueError(f"There is no method {method!r}; choose one of {', '.join(METHODS)}.")
    recipe = Recipe(steps=2, batch_size=2, slices=8, accumulate=2, seed=seed)
    network = dict(decoder=decoder, backbone=backbone, weights=weights)
    scan = to_volume(brain_patient(0, spacing_mm=1.0))
    middle = crop(scan, CROP)
    model = fresh(METHODS[method](), scan.case, seed, **network)
    device = device_of(model).type
    yield (
        f"{backbone} and {decoder}, {'given' if weights else 'random'} weights, {method}: "
        f"{count(model).tuned:,} of {sum(p.numel() for p in model.parameters()):,} parameters learn, "
        f"on {device} in {computes_in(device)}"
    )
    ends = [time.perf_counter()]
    with tempfile.TemporaryDirectory() as folder, peak_memory(device) as peak:
        kept = Path(folder) / "checkpoint.pt"
        rows = fit(model, [middle], recipe, (), kept, on_step=lambda row: ends.append(time.perf_counter()))
        assert fit(model, [middle], recipe, (), kept) == rows  # resumed: there is no step left to take
        size = kept.stat().st_size / GIB
    yield (
        f"two steps on a crop of {CROP} x {CROP} x {CROP} voxels, 2 x {recipe.slices} slices each: "
        f"{' and '.join(f'{s:.1f} s' for s in np.diff(ends))}, loss {rows[0]['loss']:.2f} and "
        f"{rows[1]['loss']:.2f}, peak memory {peak[0]:.1f} GiB; checkpoint of {size:.2f} GiB, read again"
    )
    some, start = excerpt(scan, recipe.slices), time.perf_counter()
    with peak_memory(device) as peak:
        found = predict_windows(model, some, recipe.slices, tuple(model.size))
    yield (
        f"{' x '.join(map(str, found.shape))} voxels labelled in overlapping windows of "
        f"{model.size[0]} pixels: {time.perf_counter() - start:.1f} s, peak memory {peak[0]:.1f} GiB"
    )


def crop(volume: Volume, size: int) -> Volume:
    """A cube of voxels around the middle of the labels, moved to lie inside; all of a shorter axis."""
    middle = volume.target.nonzero().float().mean(0)  # (3,)
    starts = [
        max(0, min(round(m) - size // 2, n - size))
        for m, n in zip(middle.tolist(), volume.target.shape, strict=True)
    ]
    s, h, w = (slice(start, start + size) for start in starts)
    case = replace(volume.case, image=volume.case.image[:, s, h, w], label=volume.case.label[s, h, w])
    return Volume(case, volume.image[s, :, h, w], volume.target[s, h, w])


@contextmanager
def peak_memory(device: str) -> Iterator[list[float]]:
    """A list that, after the block, holds the most memory in GiB: of the GPU's tensors, else of the process.

    A process is looked at a hundred times a second; what it holds for a shorter time may be missed.
    """
    peak, process, done = [0.0], psutil.Process(), threading.Event()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        yield peak
        peak[0] = torch.cuda.max_memory_allocated() / GIB
        return

    def look() -> None:
        peak[0] = max(peak[0], process.memory_info().rss / GIB)

    def watch() -> None:
        while not done.wait(0.01):
            look()

    look()
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        look()
        done.set()
        watcher.join()
