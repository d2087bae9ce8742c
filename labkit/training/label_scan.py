"""A network trained in the lab, tried on a scan: images in, a label map on the scan's own grid out.

    labkit predict --delta data/deltas/volumes-med_tuning.safetensors --out labels.nii.gz \\
        t1.nii.gz t1ce.nii.gz t2.nii.gz flair.nii.gz
"""

from __future__ import annotations

import gzip
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from labkit.files import write_atomically
from labkit.methods import METHODS
from labkit.networks.segmenter import GIVEN, Segmenter, segmenter
from labkit.scans.brats import NEW, OLD
from labkit.scans.case import Case
from labkit.scans.nifti import on_grid_of, resample, stem_of
from labkit.scans.preprocessing import Preprocessing
from labkit.scans.scans import Scan, prepared, read_channels, read_image
from labkit.scans.slices import classes_of, to_volume
from labkit.training.evaluate import predict
from labkit.training.fit import Recipe
from labkit.training.precision import best_device
from labkit.training.sliding_window import predict_windows
from labkit.tuning import load, tune


def label_scan(
    delta: Path,
    images: Sequence[Path],
    out: Path,
    windows: bool = False,
    flips: str = "",
    weights: Path | None = None,
) -> dict[int, float]:
    """Label a scan, one file for each channel in the order of training or one that holds all of them, as the
    Decathlon has it, and write it as NIfTI.

    Returns {label value: cm3}. The scan is prepared as those of training were: CT is cut off at the ends of
    their window of HU; it is resampled if they were, and the labels back to its own grid. The network sees
    its slices, scaled to its size as in training; one that was trained on crops, or with `windows`, unscaled
    windows of its size. `flips` as in `labkit.training.sliding_window`. `weights` is the file of the
    backbone's, for a network that was not made of the kit's own. A delta of an older kit does not say
    how its scans were prepared; a sentence on stderr says so then.
    ValueError: the delta does not say which network it belongs to, a file is damaged, the channels are not as
    many as the network's, are in another order by their files' names, or do not share a grid, `flips` names
    no axes, `out` is there already or is no .nii or .nii.gz.
    """
    if out.exists() or not out.name.endswith((".nii", ".nii.gz")):
        raise ValueError(f"{out}: name a new file that ends in .nii.gz or .nii; nothing is overwritten.")
    model, about = network_of(delta, weights) if weights else network_of(delta)
    scans = read_scan(images, about["network"]["in_chans"], delta)
    preprocessing = preprocessing_of(about, delta)
    if preprocessing is None:
        names = {value: f"label {value}" for value in about["labels"] if value}
        preprocessing = Preprocessing(tuple(str(scan.path) for scan in scans), names)
        tqdm.write(
            f"{delta} is of an older kit and does not say how its scans were prepared: the files are taken "
            "in the order given and as they are, which is wrong for CT; train it anew to be sure",
            file=sys.stderr,
        )
    elif len(images) == len(scans):
        check_order(images, preprocessing.channels)
    image, spacing_mm = prepared(scans, preprocessing)
    case = Case(
        out.name,
        image,
        np.zeros(image.shape[1:], np.uint8),
        tuple(map(float, spacing_mm)),
        preprocessing.channels,
        preprocessing.label_names,
        window_hu=preprocessing.window_hu,
        resampled_mm=preprocessing.resampled_mm,
    )
    volume, model = to_volume(case), model.to(best_device())
    if (windows := windows or about.get("crop", False)) or flips:
        size = tuple(model.size) if windows else None
        found = predict_windows(model, volume, about["slices"], size, flips)
    else:
        found = predict(model, volume, about["slices"])
    own = scans[0]
    if not np.array_equal(spacing_mm, own.spacing_mm):
        found = resample(found, spacing_mm, own.spacing_mm, order=0, shape=own.voxels.shape)
    content = on_grid_of(images[0], found).to_bytes()
    packed = gzip.compress(content, mtime=0) if out.name.endswith(".gz") else content
    write_atomically(out, lambda path: path.write_bytes(packed))
    voxel_mm3 = np.prod(own.spacing_mm)
    return {v: float((found == v).sum() * voxel_mm3 / 1000) for v in preprocessing.label_names}


def read_scan(images: Sequence[Path], channels: int, delta: Path) -> list[Scan]:
    """A scan by channel, of a file each or of one that holds all. ValueError: there are not so many."""
    scans = read_channels(images[0]) if len(images) == 1 < channels else [read_image(path) for path in images]
    if len(scans) != channels:
        given = f"{len(images)} files are given" if len(images) > 1 else f"{images[0]} holds {len(scans)}"
        raise ValueError(
            f"{delta} was trained on {channels} channels, but {given}; give a file for each, or one "
            "that holds all of them."
        )
    return scans


def check_order(images: Sequence[Path], channels: Sequence[str]) -> None:
    """ValueError: a file is called as another channel than that of its place: t2.nii, BraTS20_001_t2.nii."""
    for path, expected in zip(images, channels, strict=True):
        ending = re.split(r"[^a-z0-9]+", stem_of(Path(path).name).casefold())[-1]
        for channel in channels:
            names = channel, OLD.get(channel, channel), NEW.get(channel, channel)
            if channel != expected and ending in {name.strip("_-").casefold() for name in names}:
                raise ValueError(
                    f"{path}: by its name this is {channel}, but it stands in the place of {expected}; give "
                    f"the files in the order {', '.join(channels)}."
                )


def about_of(case: Case, recipe: Recipe) -> dict:
    """What a delta trained on cases like this is to say, so that `label_scan` can use it:
    `labkit.tuning.save(model, path, **about_of(case, recipe))`."""
    return dict(
        labels=classes_of(case),
        slices=recipe.slices,
        crop=recipe.crop,
        preprocessing=case.preprocessing.to_json(),
    )


def preprocessing_of(about: dict, delta: Path) -> Preprocessing | None:
    """What a delta says of its scans; None: nothing, it is of an older kit. ValueError: it can't be read."""
    if "preprocessing" not in about:
        return None
    try:
        return Preprocessing.from_json(about["preprocessing"])
    except ValueError as error:
        raise ValueError(f"{delta}: {error}; save it again.") from error


def network_of(delta: Path, weights: Path | None = None) -> tuple[Segmenter, dict]:
    """The tuned network that a delta belongs to, and what else its file says.

    `weights` is the file of its backbone's weights, where they were none of the kit's. ValueError: the delta
    does not say its network, or weights are missing, given needlessly, or are others.

    The network knows its `preprocessing`, if the file does, and the length of its runs, `slices`.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(delta, framework="pt") as file:
            said = file.metadata() or {}
    except (SafetensorError, FileNotFoundError) as error:
        raise ValueError(f"{delta} is no readable delta ({error}).") from error
    about = json.loads(said.get("about", "{}"))
    if not {"network", "labels", "slices"} <= about.keys() or not about["network"]:
        raise ValueError(
            f"{delta} does not say which network and labels it belongs to; save it with "
            "`tuning.save(model, path, **label_scan.about_of(case, recipe))`."
        )
    described = json.loads(said["labkit"])
    methods = [method_of(one) for one in (described if isinstance(described, list) else [described])]
    network = dict(about["network"])
    if network.get("weights") == GIVEN:
        if weights is None:
            raise ValueError(f"{delta} was trained on a backbone whose weights lie in a file; give it too.")
        network["weights"] = weights
    elif weights is not None:
        raise ValueError(f"{delta} was trained on the kit's own weights; leave {weights} out.")
    model = segmenter(**network)
    model.slices = about["slices"]
    if (preprocessing := preprocessing_of(about, delta)) is not None:
        model.preprocessing = preprocessing
    return load(
        tune(model, tuple(methods) if isinstance(described, list) else methods[0]), delta
    ).eval(), about


def method_of(described: dict) -> object:
    """{"method": "LoRA", "config": {...}} -> LoRA(...)."""
    kinds = {kind.__name__: kind for kind in METHODS.values()}
    config = {key: tuple(v) if isinstance(v, list) else v for key, v in described["config"].items()}
    return kinds[described["method"]](**config)
