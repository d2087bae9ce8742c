"""A network trained in the lab, tried on a scan: images in, a label map on the scan's own grid out.

    labkit predict --delta data/deltas/volumes-med_tuning.safetensors --out labels.nii.gz \\
        t1.nii.gz t1ce.nii.gz t2.nii.gz flair.nii.gz
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from labkit.files import write_atomically
from labkit.methods import METHODS
from labkit.networks.segmenter import Segmenter, segmenter
from labkit.scans.case import Case
from labkit.scans.scans import check_same_grid, read_image
from labkit.scans.slices import to_volume
from labkit.training.evaluate import predict
from labkit.training.precision import best_device
from labkit.training.sliding_window import predict_windows
from labkit.tuning import load, tune


def label_scan(
    delta: Path, images: Sequence[Path], out: Path, windows: bool = False, flips: str = ""
) -> dict[int, float]:
    """Label a scan, one file for each channel in the order of training, and write it as NIfTI.

    Returns {label value: cm3}. Nothing is resampled: the network sees the scan's own slices, scaled to its
    size as in training; with `windows`, meant for a network trained on crops, unscaled windows of its size.
    `flips` as in `labkit.training.sliding_window`. ValueError: the delta does not say which network it
    belongs to, a file is damaged, the channels are not as many as the network's or do not share a grid,
    `flips` names no axes, `out` is there already or is no .nii or .nii.gz.
    """
    import nibabel as nib

    if out.exists() or not out.name.endswith((".nii", ".nii.gz")):
        raise ValueError(f"{out}: name a new file that ends in .nii.gz or .nii; nothing is overwritten.")
    model, about = network_of(delta)
    if len(images) != (channels := about["network"]["in_chans"]):
        raise ValueError(f"{delta} was trained on {channels} channels, but {len(images)} files are given.")
    scans = [read_image(path) for path in images]
    for scan in scans[1:]:
        check_same_grid(scan, scans[0])
    image = np.stack([scan.voxels for scan in scans])
    spacing = tuple(map(float, scans[0].spacing_mm))
    names = {value: f"label {value}" for value in about["labels"] if value}
    case = Case(out.name, image, np.zeros(image.shape[1:], np.uint8), spacing, tuple(map(str, images)), names)
    volume, model = to_volume(case), model.to(best_device())
    if windows or flips:
        size = tuple(model.size) if windows else None
        found = predict_windows(model, volume, about["slices"], size, flips)
    else:
        found = predict(model, volume, about["slices"])
    original = nib.load(images[0])
    turned = nib.Nifti1Image(found, scans[0].affine)
    back = nib.orientations.ornt_transform(
        nib.io_orientation(turned.affine), nib.io_orientation(original.affine)
    )
    labels = nib.Nifti1Image(turned.as_reoriented(back).get_fdata().astype(np.uint8), original.affine)
    labels.header.set_xyzt_units("mm")
    content = labels.to_bytes()
    packed = gzip.compress(content, mtime=0) if out.name.endswith(".gz") else content
    write_atomically(out, lambda path: path.write_bytes(packed))
    return {value: float((found == value).sum() * np.prod(spacing) / 1000) for value in names}


def network_of(delta: Path) -> tuple[Segmenter, dict]:
    """The tuned network that a delta belongs to, and what else its file says. ValueError: it does not say."""
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
            "`tuning.save(model, path, labels=[0, 1, 2, 4], slices=4)`."
        )
    described = json.loads(said["labkit"])
    methods = [method_of(one) for one in (described if isinstance(described, list) else [described])]
    model = segmenter(**about["network"])
    return load(
        tune(model, tuple(methods) if isinstance(described, list) else methods[0]), delta
    ).eval(), about


def method_of(described: dict) -> object:
    """{"method": "LoRA", "config": {...}} -> LoRA(...)."""
    kinds = {kind.__name__: kind for kind in METHODS.values()}
    config = {key: tuple(v) if isinstance(v, list) else v for key, v in described["config"].items()}
    return kinds[described["method"]](**config)
