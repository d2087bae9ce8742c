"""Folders laid out as in the Medical Segmentation Decathlon (Antonelli et al., 2022, Nat. Commun. 13:4128).

    folder/imagesTr/NAME.nii.gz    image, (x, y, z) or (x, y, z, modality); NAME.nii does as well
    folder/labelsTr/NAME.nii.gz    labels on the same grid, 0 is background
    folder/dataset.json            optional: which cases, and what the modalities and labels are called

Whatever can be wrong with a file ends in one ValueError that names it, and the other cases stay usable.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from labkit.scans.case import Case
from labkit.scans.nifti import reason, stem_of, target_spacing
from labkit.scans.scans import Scan, only_file, read_all, read_channels, read_label, to_case, volumes_in

HINT = "; a case needs an image in imagesTr and labels of the same name in labelsTr"


def msd_cases(folder: str | Path) -> list[str]:
    """Names of the cases in a folder: those dataset.json lists under "training", or else all in imagesTr.

    ValueError: no imagesTr, no image in it, or a dataset.json that cannot be understood.
    """
    folder = Path(folder)
    return _names(folder, _describe(folder))


def read_case(folder: str | Path, name: str, spacing_mm: float | Sequence[float] | None = None) -> Case:
    """One case, turned to the orientation of `Case`, and resampled if `spacing_mm` is given.

    `spacing_mm` is one number, or three for S, H, W. Resampling keeps the centre of the first voxel; it is
    linear for images and nearest-neighbour for labels. What dataset.json does not name is called "channel 0"
    and "label 1". Oblique volumes keep their own axes, each taken for the nearest of the patient's.

    ValueError: a file is missing or damaged, neither 3-D nor 4-D, has a wrong affine or values that are not
    finite; image and label lie on different grids; the label is empty, or not of whole numbers 0 to 255.
    """
    folder = Path(folder)
    return _read(folder, name, _describe(folder), target_spacing(spacing_mm))


def read_cases(
    folder: str | Path, names: Iterable[str] | None = None, spacing_mm: float | Sequence[float] | None = None
) -> tuple[list[Case], dict[str, str]]:
    """All usable cases, held in memory, and the problems of the others: name -> one sentence naming the file.

    A broken dataset.json is one of the problems, and the cases are then read as if there were none.
    ValueError: the folder has no images at all, or `spacing_mm` makes no sense.
    """
    folder, target_mm, broken = Path(folder), target_spacing(spacing_mm), {}
    try:
        about = _describe(folder)
    except ValueError as error:
        about, broken["dataset.json"] = _About(), str(error)
    names = _names(folder, about) if names is None else names
    cases, problems = read_all(names, lambda name: _read(folder, name, about, target_mm), folder.name)
    return cases, broken | problems


@dataclass(frozen=True)
class _About:
    """What dataset.json says; empty where it says nothing."""

    names: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    label_names: dict[int, str] = field(default_factory=dict)


def _describe(folder: Path) -> _About:
    path = folder / "dataset.json"
    if not path.exists():
        return _About()
    try:
        about = json.loads(path.read_text(encoding="utf-8-sig"))
        images = [item["image"] for item in about.get("training", [])]
        channels = {int(i): str(text) for i, text in about.get("modality", {}).items()}
        labels = {int(value): str(text) for value, text in about.get("labels", {}).items()}
        names = {stem_of(Path(image).name) for image in images}
    except Exception as error:  # not JSON, or JSON of any other build
        raise ValueError(
            f'{path}: expected JSON with "training": [{{"image": path, "label": path}}], '
            f'"modality": {{"0": name}} and "labels": {{"1": name}}; repair it, or remove it: '
            f"the folder can be read without ({reason(error)})"
        ) from error
    return _About(
        tuple(sorted(names)),
        tuple(channels[i] for i in sorted(channels)),
        {value: text for value, text in sorted(labels.items()) if value != 0},
    )


def _names(folder: Path, about: _About) -> list[str]:
    images = folder / "imagesTr"
    if not images.is_dir():
        raise ValueError(f"{folder}: there is no folder imagesTr in it; expected imagesTr and labelsTr")
    if not (found := volumes_in(images)):
        raise ValueError(f"{images}: there are no images; expected files that end in .nii.gz or .nii")
    return list(about.names) or found


def _read(folder: Path, name: str, about: _About, target_mm: np.ndarray | None) -> Case:
    channels = read_channels(only_file(folder / "imagesTr", [name], "image", HINT))
    label = read_label(only_file(folder / "labelsTr", [name], "label file", HINT))
    label_names = _label_names(label, about)
    return to_case(name, channels, label, _channel_names(channels, about), label_names, target_mm)


def _channel_names(channels: list[Scan], about: _About) -> tuple[str, ...]:
    if about.channels and len(about.channels) != len(channels):
        raise ValueError(
            f"{channels[0].path}: there are {len(channels)} modalities, but dataset.json names "
            f"{about.channels}; correct the one that is wrong"
        )
    return about.channels or tuple(f"channel {i}" for i in range(len(channels)))


def _label_names(label: Scan, about: _About) -> dict[int, str]:
    present = [int(value) for value in np.unique(label.voxels) if value != 0]
    if about.label_names and not set(present) <= set(about.label_names):
        raise ValueError(
            f"{label.path}: the labels are {present}, but dataset.json names {about.label_names}; "
            "correct the one that is wrong"
        )
    return about.label_names or {value: f"label {value}" for value in present}
