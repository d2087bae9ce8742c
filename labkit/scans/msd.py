"""Folders laid out as in the Medical Segmentation Decathlon (Antonelli et al., 2022, Nat. Commun. 13:4128).

    folder/imagesTr/NAME.nii.gz    image, (x, y, z) or (x, y, z, modality); NAME.nii does as well
    folder/labelsTr/NAME.nii.gz    labels on the same grid, 0 is background
    folder/dataset.json            optional: which cases, and what the modalities and labels are called

or as for nnU-Net (Isensee et al., 2021, Nat. Methods 18:203), a file per channel and other words in the JSON:

    folder/imagesTr/NAME_0000.nii.gz, NAME_0001.nii.gz ...
    folder/labelsTr/NAME.nii.gz
    folder/dataset.json            "channel_names": {"0": name}, "labels": {name: 1}

A modality called CT is cut off at the ends of a window of HU, as in KiTS.

Whatever can be wrong with a file ends in one ValueError that names it, and the other cases stay usable.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from labkit.scans.case import Case
from labkit.scans.hounsfield import WINDOW_HU
from labkit.scans.nifti import SUFFIXES, reason, stem_of, target_spacing
from labkit.scans.preprocessing import Preprocessing, is_ct
from labkit.scans.scans import (
    Scan,
    only_file,
    read_all,
    read_channels,
    read_image,
    read_label,
    to_case,
    volumes_in,
)

NNUNET_HINT = "; in nnU-Net's layout every channel is a file of its own"
HINT = "; a case needs an image in imagesTr and labels of the same name in labelsTr"


def msd_cases(folder: str | Path) -> list[str]:
    """Names of the cases in a folder: those dataset.json lists under "training", or else all in imagesTr.

    ValueError: no imagesTr, no image in it, or a dataset.json that cannot be understood.
    """
    folder = Path(folder)
    return _names(folder, _describe(folder))


def read_case(
    folder: str | Path,
    name: str,
    spacing_mm: float | Sequence[float] | None = None,
    window_hu: tuple[float, float] | None = WINDOW_HU,
) -> Case:
    """One case, turned to the orientation of `Case`, and resampled if `spacing_mm` is given.

    `spacing_mm` is one number, or three for S, H, W. Resampling keeps the centre of the first voxel; it is
    linear for images and nearest-neighbour for labels. What dataset.json does not name is called "channel 0"
    and "label 1". Oblique volumes keep their own axes, each taken for the nearest of the patient's.
    `window_hu` is for modalities called CT (None: all HU are kept).

    ValueError: a file is missing or damaged, neither 3-D nor 4-D, has a wrong affine or values that are not
    finite; image and label lie on different grids; the label is empty, or not of whole numbers 0 to 255; a CT
    holds no HU.
    """
    folder = Path(folder)
    return _read(folder, name, _describe(folder), target_spacing(spacing_mm), window_hu)


def read_cases(
    folder: str | Path,
    names: Iterable[str] | None = None,
    spacing_mm: float | Sequence[float] | None = None,
    window_hu: tuple[float, float] | None = WINDOW_HU,
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
    read = lambda name: _read(folder, name, about, target_mm, window_hu)  # noqa: E731
    cases, problems = read_all(names, read, folder.name)
    return cases, broken | problems


@dataclass(frozen=True)
class _About:
    """What dataset.json says; empty where it says nothing."""

    names: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    label_names: dict[int, str] = field(default_factory=dict)
    nnunet: bool = False  # one file per channel


def _describe(folder: Path) -> _About:
    path = folder / "dataset.json"
    if not path.exists():
        return _About()
    try:
        about = json.loads(path.read_text(encoding="utf-8-sig"))
        images = [item["image"] for item in about.get("training", [])]
        channels = about.get("channel_names", about.get("modality", {}))
        channels = {int(i): str(text) for i, text in channels.items()}
        labels = _by_value(about.get("labels", {}))
        names = {stem_of(Path(image).name) for image in images}
    except Exception as error:  # not JSON, or JSON of any other build
        raise ValueError(
            f'{path}: expected JSON with "training": [{{"image": path, "label": path}}], '
            f'"modality": {{"0": name}} and "labels": {{"1": name}}, or for nnU-Net "channel_names": '
            f'{{"0": name}} and "labels": {{name: 1}}; repair it, or remove it: the folder can be read '
            f"without ({reason(error)})"
        ) from error
    return _About(
        tuple(sorted(names)),
        tuple(channels[i] for i in sorted(channels)),
        {value: text for value, text in sorted(labels.items()) if value != 0},
        "channel_names" in about,
    )


def _by_value(labels: dict) -> dict[int, str]:
    """{"1": name} of the Decathlon and {name: 1} of nnU-Net -> {1: name}."""
    if regions := [name for name, value in labels.items() if isinstance(value, list)]:
        raise ValueError(f"{regions[0]!r} is a region of several labels; name each label instead")
    if "ignore" in labels:
        raise ValueError("there is nnU-Net's label to ignore, which labkit would learn as if it were tissue")
    if all(isinstance(value, int) for value in labels.values()):
        labels = {value: name for name, value in labels.items()}
    return {int(value): str(name) for value, name in labels.items()}


def _names(folder: Path, about: _About) -> list[str]:
    images = folder / "imagesTr"
    if not images.is_dir():
        raise ValueError(f"{folder}: there is no folder imagesTr in it; expected imagesTr and labelsTr")
    if not (found := volumes_in(images)):
        raise ValueError(f"{images}: there are no images; expected files that end in .nii.gz or .nii")
    labels = set(volumes_in(folder / "labelsTr")) if (folder / "labelsTr").is_dir() else set()
    return list(about.names) or sorted({_case_of(stem, labels, about) for stem in found})


def _case_of(stem: str, labels: set[str], about: _About) -> str:
    """The case an image is of: "a_0001" is a channel of "a" if nnU-Net's names say so, or else a case."""
    case = re.sub(r"_\d{4}$", "", stem)
    return case if about.nnunet or (case in labels and stem not in labels) else stem


def _read(
    folder: Path,
    name: str,
    about: _About,
    target_mm: tuple[float, float, float] | None,
    window_hu: tuple[float, float] | None,
) -> Case:
    images = _image_files(folder / "imagesTr", name, about)
    label = read_label(only_file(folder / "labelsTr", [name], "label file", HINT))
    channels = read_channels(images[0]) if len(images) == 1 else [read_image(path) for path in images]
    named = _channel_names(channels, about)
    window_hu = window_hu if any(map(is_ct, named)) else None
    preprocessing = Preprocessing(named, _label_names(label, about), window_hu, target_mm)
    return to_case(name, channels, label, preprocessing)


def _image_files(images: Path, name: str, about: _About) -> list[Path]:
    """One file with all channels, or nnU-Net's one for each."""

    def there(stem: str) -> bool:
        return any((images / f"{stem}{end}").is_file() for end in SUFFIXES)

    if not (about.nnunet or (there(f"{name}_0000") and not there(name))):
        return [only_file(images, [name], "image", HINT)]
    found = next(i for i in itertools.count() if not there(f"{name}_{i:04d}"))
    stems = [f"{name}_{i:04d}" for i in range(max(found, len(about.channels), 1))]
    return [only_file(images, [stem], "image", NNUNET_HINT) for stem in stems]


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
