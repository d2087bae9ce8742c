"""Folders of BraTS: one folder per patient, one file per contrast (Baid et al., 2021, arXiv:2107.02314).

    folder/NAME/NAME_flair.nii.gz, _t1, _t1ce, _t2, _seg     2019 to 2021; enhancing tumour is label 4
    folder/NAME/NAME-t2f.nii.gz, -t1n, -t1c, -t2w, -seg      2023; it is label 3, and here turned into 4

Patients may lie one folder deeper, as in HGG/ and LGG/. Values stay as they are: the paper's standardisation
inside the brain is that of `labkit.scans.slices.to_volume`, for outside these files are 0.

Folders of the challenge on children (BraTS-PED-00001-000) are refused: their files are called as those of
adults, and their labels mean other tissues (Kazerooni et al., 2024, arXiv:2404.15009).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from labkit.scans.case import BRATS_CHANNELS, BRATS_LABELS, Case
from labkit.scans.nifti import SUFFIXES, target_spacing
from labkit.scans.preprocessing import Preprocessing
from labkit.scans.scans import Scan, only_file, read_all, read_image, read_label, to_case, volumes_in

OLD = {"T1": "_t1", "T1ce": "_t1ce", "T2": "_t2", "FLAIR": "_flair"}
NEW = {"T1": "-t1n", "T1ce": "-t1c", "T2": "-t2w", "FLAIR": "-t2f"}
CONTRASTS = (*OLD.values(), *NEW.values())
CHILDREN = re.compile(r"BraTS[-_ ]?\d*[-_ ]?PED", re.IGNORECASE)  # BraTS-PED-00001-000, BraTS2023-PED-...
HINT = "; BraTS 2020 calls that of patient 355 W39_1998.09.19_Segm.nii: rename it"


def brats_cases(folder: str | Path) -> list[str]:
    """Names of the patients, as paths below the folder: "HGG/BraTS19_2013_2_1". ValueError: none there."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder")
    names = [path.relative_to(folder).as_posix() for path in patients_below(folder)]
    if not names:
        raise ValueError(
            f"{folder}: there are no patients of BraTS in it; expected NAME/NAME_flair.nii.gz and so on, or "
            "NAME/NAME-t2f.nii.gz and so on"
        )
    return sorted(names)


def patients_below(folder: Path) -> list[Path]:
    """Folders at most two levels down with contrasts in them, or called BraTS... and without folders."""
    inside = folders_in(folder)
    inside += [path for parent in inside for path in folders_in(parent)]
    return [
        path
        for path in inside
        if any(stem.endswith(CONTRASTS) for stem in volumes_in(path))
        or (path.name.lower().startswith("brats") and not any(below.is_dir() for below in path.iterdir()))
    ]


def folders_in(folder: Path) -> list[Path]:
    """Those that may be a patient's: not what macOS adds (__MACOSX), nor a folder called as a file."""
    return [
        path
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith((".", "__")) and not path.name.endswith(SUFFIXES)
    ]


def read_case(folder: str | Path, name: str, spacing_mm: float | Sequence[float] | None = None) -> Case:
    """One patient: contrasts in the order T1, T1ce, T2, FLAIR, labels 1, 2 and 4, whatever the year.

    `spacing_mm` as in `labkit.scans.msd.read_case`. ValueError: a contrast or the labels are missing, there
    twice or damaged; files of one patient lie on different grids; labels that are none of that year's, or a
    child's.
    """
    folder, target_mm = Path(folder) / name, target_spacing(spacing_mm)
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder; expected one folder per patient")
    if CHILDREN.search(f"{folder.parent.name} {name}"):
        raise ValueError(
            f"{folder}: by its name, this is a patient of the challenge on children (BraTS-PED), where label "
            "1 is enhancing and 2 non-enhancing tumour, 3 a cyst and 4 oedema, not as in adults; lay the "
            "scans out as in the Decathlon, with a dataset.json that names these labels"
        )
    stem = Path(name).name
    new = any(there.endswith((*NEW.values(), "-seg")) for there in volumes_in(folder))
    if new and any(there.endswith((*OLD.values(), "_seg")) for there in volumes_in(folder)):
        raise ValueError(
            f"{folder}: some files are called as in BraTS 2019 to 2021, others as in 2023, so that it is not "
            "known what label 3 or 4 means; keep those of one year"
        )
    endings = NEW if new else OLD
    paths = [
        only_file(folder, [f"{stem}{endings[channel]}"], f"{channel} image") for channel in BRATS_CHANNELS
    ]
    labels = only_file(folder, [f"{stem}{'-' if new else '_'}seg"], "label file", "" if new else HINT)
    label = in_values_of_2020(read_label(labels), new)
    preprocessing = Preprocessing(BRATS_CHANNELS, dict(BRATS_LABELS), resampled_mm=target_mm)
    return to_case(name, [read_image(path) for path in paths], label, preprocessing)


def in_values_of_2020(label: Scan, new: bool) -> Scan:
    """Enhancing tumour as 4. ValueError: a value the year does not have."""
    known = {1, 2, 3} if new else {1, 2, 4}
    if wrong := set(np.unique(label.voxels).tolist()) - known - {0}:
        why = (
            "files called -seg, of 2023, have 3 for enhancing tumour (4 is the resection cavity of 2024)"
            if new
            else "files called _seg, of 2019 to 2021, have 4 for enhancing tumour"
        )
        raise ValueError(
            f"{label.path}: the labels {sorted(wrong)} are not among {sorted(known)}: {why}; turn them into "
            "one of these, or leave this case out"
        )
    return (
        replace(label, voxels=np.where(label.voxels == 3, 4, label.voxels).astype(np.uint8)) if new else label
    )


def read_cases(
    folder: str | Path, names: Iterable[str] | None = None, spacing_mm: float | Sequence[float] | None = None
) -> tuple[list[Case], dict[str, str]]:
    """All usable patients, and the problems of the others: as `labkit.scans.msd.read_cases`."""
    target_spacing(spacing_mm)
    names = brats_cases(folder) if names is None else names
    return read_all(names, lambda name: read_case(folder, name, spacing_mm), Path(folder).name)
