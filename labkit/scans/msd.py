"""Folders laid out as in the Medical Segmentation Decathlon (Antonelli et al., 2022, Nat. Commun. 13:4128).

    folder/imagesTr/NAME.nii.gz    image, (x, y, z) or (x, y, z, modality); NAME.nii does as well
    folder/labelsTr/NAME.nii.gz    labels on the same grid, 0 is background
    folder/dataset.json            optional: which cases, and what the modalities and labels are called

Whatever can be wrong with a file ends in one ValueError that names it, and the other cases stay usable.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine, voxel_sizes

from labkit.scans.case import Case
from labkit.scans.nifti import (
    SUFFIXES,
    intensities,
    load,
    reason,
    resample,
    stem_of,
    target_spacing,
    whole_numbers,
)


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
    from tqdm.auto import tqdm

    folder, target_mm, problems = Path(folder), target_spacing(spacing_mm), {}
    try:
        about = _describe(folder)
    except ValueError as error:
        about, problems["dataset.json"] = _About(), str(error)
    names = _names(folder, about) if names is None else list(names)
    cases = []
    for name in tqdm(names, desc=f"reading {folder.name}", unit="case"):
        try:
            cases.append(_read(folder, name, about, target_mm))
        except ValueError as error:
            problems[name] = str(error)
    # a label that one patient happens to lack is still a label of the data set
    label_names = {value: text for case in cases for value, text in case.label_names.items()}
    return [replace(case, label_names=dict(sorted(label_names.items()))) for case in cases], problems


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
    found = {
        stem_of(path.name)
        for path in images.iterdir()
        if path.name.endswith(SUFFIXES) and not path.name.startswith(".")
    }  # macOS adds "._NAME.nii.gz"
    if not found:
        raise ValueError(f"{images}: there are no images; expected files that end in .nii.gz or .nii")
    return list(about.names) or sorted(found)


def _read(folder: Path, name: str, about: _About, target_mm: np.ndarray | None) -> Case:
    image_path, label_path = _find(folder / "imagesTr", name), _find(folder / "labelsTr", name)
    image, affine = load(image_path)
    label, label_affine = load(label_path)
    image = intensities(image, image_path)  # (C, S, H, W)
    label = whole_numbers(label, label_path)  # (S, H, W)
    _check_same_grid(label, label_affine, image[0], affine, label_path)
    spacing_mm = voxel_sizes(affine)
    if target_mm is not None and not np.allclose(target_mm, spacing_mm, rtol=1e-3):
        image = np.stack([resample(channel, spacing_mm, target_mm, order=1) for channel in image])
        label = resample(label, spacing_mm, target_mm, order=0)
        spacing_mm = target_mm
        if not label.any():
            raise ValueError(
                f"{label_path}: the foreground is lost at {target_mm} mm; use a finer "
                "spacing_mm, or leave this case out"
            )
    return Case(
        name,
        image,
        label,
        tuple(map(float, spacing_mm)),
        _channels(image, about, image_path),
        _label_names(label, about, label_path),
    )


def _find(folder: Path, name: str) -> Path:
    for suffix in SUFFIXES:
        if (path := folder / f"{name}{suffix}").is_file():
            return path
    raise ValueError(
        f"{folder / name}.nii.gz: there is no such file (nor .nii); a case needs an image in "
        "imagesTr and labels of the same name in labelsTr"
    )


def _check_same_grid(
    label: np.ndarray, label_affine: np.ndarray, image: np.ndarray, affine: np.ndarray, path: Path
) -> None:
    if label.shape != image.shape:
        raise ValueError(
            f"{path}: the labels have {label.shape} slices, rows and columns, the image "
            f"{image.shape}; both must lie on the same grid"
        )
    corners = list(product(*[(0, n - 1) for n in label.shape]))
    apart = apply_affine(affine, corners) - apply_affine(label_affine, corners)  # (8, 3) mm
    apart_mm = np.linalg.norm(apart, axis=1).max()
    if apart_mm > 0.1 * voxel_sizes(affine).min():  # more than rounding in a header
        raise ValueError(
            f"{path}: the affine puts the labels up to {apart_mm:.3g} mm away from the image; "
            "both must lie on the same grid"
        )


def _channels(image: np.ndarray, about: _About, path: Path) -> tuple[str, ...]:
    if about.channels and len(about.channels) != len(image):
        raise ValueError(
            f"{path}: there are {len(image)} modalities, but dataset.json names "
            f"{about.channels}; correct the one that is wrong"
        )
    return about.channels or tuple(f"channel {i}" for i in range(len(image)))


def _label_names(label: np.ndarray, about: _About, path: Path) -> dict[int, str]:
    present = [int(value) for value in np.unique(label) if value != 0]
    if about.label_names and not set(present) <= set(about.label_names):
        raise ValueError(
            f"{path}: the labels are {present}, but dataset.json names {about.label_names}; "
            "correct the one that is wrong"
        )
    return about.label_names or {value: f"label {value}" for value in present}
