"""Folders of KiTS: CT of patients with a kidney tumour (Heller et al., 2019, arXiv:1904.00445).

    folder/case_00000/imaging.nii.gz
    folder/case_00000/segmentation.nii.gz         or aggregated_MAJ_seg.nii.gz, the majority of KiTS21

The cases may also lie in folder/data or folder/dataset, as in its repositories. Labels: 1 kidney, 2 tumour,
and from KiTS21 on 3 cyst. Arrays are stored (slice, row, column), highest slice first; the affine says so,
and what is read by it is turned to the axes of `Case`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from labkit.scans.case import Case
from labkit.scans.hounsfield import WINDOW_HU, in_hu
from labkit.scans.nifti import target_spacing
from labkit.scans.preprocessing import Preprocessing
from labkit.scans.scans import only_file, read_all, read_image, read_label, to_case

LABEL_NAMES = {1: "kidney", 2: "tumour", 3: "cyst"}
LABELS = ("segmentation", "aggregated_MAJ_seg")
CASE = re.compile(r"case_\d{5}")


def kits_cases(folder: str | Path) -> list[str]:
    """Names of the cases, "case_00000" and so on. ValueError: there are none."""
    if not Path(folder).is_dir():
        raise ValueError(f"{folder}: there is no such folder")
    found = sorted(path.name for path in home(Path(folder)).iterdir() if is_case(path))
    if not found:
        raise ValueError(
            f"{folder}: there are no cases of KiTS in it; expected case_00000/imaging.nii.gz ..."
        )
    return found


def home(folder: Path) -> Path:
    """The folder that holds the cases: this one, or data or dataset in it."""
    for place in (folder, folder / "data", folder / "dataset"):
        if place.is_dir() and any(is_case(path) for path in place.iterdir()):
            return place
    return folder


def is_case(path: Path) -> bool:
    return path.is_dir() and CASE.fullmatch(path.name) is not None


def read_case(
    folder: str | Path,
    name: str,
    spacing_mm: float | Sequence[float] | None = None,
    window_hu: tuple[float, float] | None = WINDOW_HU,
) -> Case:
    """One case, HU cut off at the ends of `window_hu` (None: not at all).

    `spacing_mm` as in `labkit.scans.msd.read_case`. ValueError: image or labels are missing, there twice or
    damaged, lie on different grids or do not say which way round; values that are no HU; labels above 3.
    """
    folder, target_mm = home(Path(folder)) / name, target_spacing(spacing_mm)
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder; expected one folder per case")
    paths = only_file(folder, ["imaging"], "image"), only_file(folder, LABELS, "label file")
    image, label = read_image(paths[0]), read_label(paths[1])
    present = set(np.unique(label.voxels).tolist()) - {0}
    if wrong := present - set(LABEL_NAMES):
        raise ValueError(f"{label.path}: the labels {sorted(wrong)} are not among {LABEL_NAMES}")
    in_hu(image.voxels, image.path)
    names = {value: text for value, text in LABEL_NAMES.items() if value in present | {1, 2}}
    return to_case(name, [image], label, Preprocessing(("CT",), names, window_hu, target_mm))


def read_cases(
    folder: str | Path,
    names: Iterable[str] | None = None,
    spacing_mm: float | Sequence[float] | None = None,
    window_hu: tuple[float, float] | None = WINDOW_HU,
) -> tuple[list[Case], dict[str, str]]:
    """All usable cases, and the problems of the others: as `labkit.scans.msd.read_cases`."""
    target_spacing(spacing_mm)
    names = kits_cases(folder) if names is None else names
    return read_all(names, lambda name: read_case(folder, name, spacing_mm, window_hu), Path(folder).name)
