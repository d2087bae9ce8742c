"""Folders of scans, whichever layout they have: Medical Segmentation Decathlon, nnU-Net, BraTS or KiTS."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from types import ModuleType

from labkit.scans import brats, kits, msd
from labkit.scans.case import Case
from labkit.scans.nifti import SUFFIXES


def read_folder(
    folder: str | Path, names: Iterable[str] | None = None, spacing_mm: float | Sequence[float] | None = None
) -> tuple[list[Case], dict[str, str]]:
    """All usable cases of a folder, and the problems of the others: name -> one sentence.

    `names` chooses cases, by default all; `spacing_mm` as in `labkit.scans.msd.read_case`.
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
            f"{folder}: it has {what} that labkit reads: imagesTr/ and labelsTr/ (Decathlon, nnU-Net), "
            "NAME/NAME_flair.nii.gz or NAME/NAME-t2f.nii.gz (BraTS), case_00000/imaging.nii.gz (KiTS); "
            "name the folder that holds the patients of one"
        )
    return fitting[0]


def digest(folder: str | Path) -> str:
    """Twelve hexadecimal digits that tell folders of scans apart: of the names, sizes, first and last bytes
    of all NIfTI files in it but unlabelled test images. The last bytes of a packed file are a checksum of it
    all.

    ValueError: there is no such folder, or no file in it.
    """
    folder = Path(folder)
    scans = sorted(
        (path.relative_to(folder).as_posix(), path)
        for path in (folder.rglob("*.nii*") if folder.is_dir() else ())
        if path.name.endswith(SUFFIXES) and not path.name.startswith(".") and path.parent.name != "imagesTs"
    )
    if not scans:
        raise ValueError(f"{folder}: there is no such folder, or no .nii.gz or .nii in it")
    seen = sha256()
    for name, path in scans:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            first = file.read(4096)
            file.seek(max(0, size - 4096))
            seen.update(f"{name}\n{size}\n".encode() + first + file.read())
    return seen.hexdigest()[:12]


def split(
    names: Iterable[str],
    seed: int = 0,
    validation: float = 0.15,
    test: float = 0.2,
    patient_of: Callable[[str], str] = str,
) -> dict[str, list[str]]:
    """Names by part, {"train": .., "validation": .., "test": ..}; a patient is in one part only.

    `validation` and `test` are fractions of the patients (one patient at least, if above 0). `patient_of`
    takes a name to its patient where patients have several scans; by default every name is its own patient.
    The same names and seed give the same parts on every machine, in whatever order the names come.

    ValueError: fractions below 0, or ones that leave no patient to train on.
    """
    names = sorted(set(names))
    # ordered by hash, since the stream of a random generator may change with its version
    patients = sorted(set(map(patient_of, names)), key=lambda p: sha256(f"{seed} {p}".encode()).digest())
    n_validation, n_test = (max(round(f * len(patients)), 1) if f > 0 else 0 for f in (validation, test))
    if not (validation >= 0 and test >= 0 and n_validation + n_test < len(patients)):
        raise ValueError(
            f"{len(patients)} patients cannot be split with validation={validation} and "
            f"test={test}; use fractions from 0 that leave at least one patient to train on"
        )
    held_out = dict.fromkeys(patients[:n_test], "test")
    held_out |= dict.fromkeys(patients[n_test : n_test + n_validation], "validation")
    parts = {"train": [], "validation": [], "test": []}
    for name in names:
        parts[held_out.get(patient_of(name), "train")].append(name)
    return parts
