"""Folders of scans, whichever layout they have: Medical Segmentation Decathlon, BraTS or KiTS."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

from labkit.data import brats, kits, msd
from labkit.data.case import Case


def read_folder(
    folder: str | Path, names: Iterable[str] | None = None, spacing_mm: float | Sequence[float] | None = None
) -> tuple[list[Case], dict[str, str]]:
    """All usable cases of a folder, and the problems of the others: name -> one sentence.

    `names` chooses cases, by default all; `spacing_mm` as in `labkit.data.msd.read_case`.
    ValueError: the folder is of no known layout or of several, or `spacing_mm` makes no sense.
    """
    return layout_of(folder).read_cases(folder, names, spacing_mm)


def layout_of(folder: str | Path) -> ModuleType:
    """The module that reads such folders: msd, brats or kits. ValueError: none, or more than one."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder")
    found = {
        msd: (folder / "imagesTr").is_dir(),
        kits: any(kits.is_case(path) for path in kits.home(folder).iterdir()),
        brats: bool(brats.patients_below(folder)),
    }
    fitting = [module for module, fits in found.items() if fits]
    if len(fitting) != 1:
        what = "none of the layouts" if not fitting else f"the layouts of {len(fitting)} data sets,"
        raise ValueError(
            f"{folder}: it has {what} that labkit reads: imagesTr/ and labelsTr/ (Decathlon), "
            "NAME/NAME_flair.nii.gz or NAME/NAME-t2f.nii.gz (BraTS), case_00000/imaging.nii.gz (KiTS); "
            "name the folder that holds the patients of one"
        )
    return fitting[0]
