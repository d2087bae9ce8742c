"""A small folder of scans to practise on: digital CT of kidneys as a hospital might send them, laid out as in
the Medical Segmentation Decathlon. Synthetic, no real patient.

    OUT/imagesTr/kidney-01_1.nii.gz ...    twelve scans of eleven patients, HU as int16
    OUT/labelsTr/kidney-01_1.nii.gz ...    1 kidney, cysts included; 2 tumour
    OUT/imagesTs/kidney-12_1.nii.gz        a scan that nobody has labelled
    OUT/dataset.json                       names, labels, licence

A folder for a course needs what real ones have. The name of a scan is its patient's and a number: kidney-04
has two. Spacing is 3 or 4 mm, and files are stored along other axes, as their headers say. kidney-03_1 does
not reach the tumour, so that there are kidneys and no tumour in it.

**One scan is broken on purpose: kidney-06_1**, its image. Its numbers are half of what they should be, as
after a wrong rescale slope: air has -500, not -1000 HU. Nothing in its header tells, and readers take it.
"""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from tqdm.auto import tqdm

from labkit.phantoms.kidney import LABEL_NAMES, kidney_patient

AT_ONCE = 2  # patients that are drawn at the same time; the array libraries let go of the interpreter
PACKED = 4  # gzip's level; 9 takes three times as long, and noise gets no smaller by it
LICENCE = "Apache-2.0; synthetic, no real patient"
ABOUT = (
    "Digital CT of kidneys with tumours, made by labkit to practise on. One scan is broken on purpose: find "
    "it before you train. Not for clinical use."
)


@dataclass(frozen=True)
class Sent:
    """A scan of the folder."""

    name: str  # patient_scan
    seed: int  # of `kidney_patient`; none is in its splits, which the kit's tables and deltas are made of
    spacing_mm: float
    axes: str  # towards which the file's axes run, as in nibabel: "LPS" is left, posterior, superior
    slope: float = 1.0  # what the HU are multiplied by
    without_tumour: bool = False  # the scan does not reach it


TRAINING = (
    Sent("kidney-01_1", 100, 3, "LPS"),
    Sent("kidney-02_1", 101, 3, "RAS"),
    Sent("kidney-03_1", 102, 3, "LPS", without_tumour=True),
    Sent("kidney-04_1", 103, 3, "LPS"),
    Sent("kidney-04_2", 103, 4, "RAS"),
    Sent("kidney-05_1", 104, 4, "LPS"),
    Sent("kidney-06_1", 105, 3, "LPS", slope=0.5),
    Sent("kidney-07_1", 106, 3, "RAS"),
    Sent("kidney-08_1", 107, 3, "LPS"),
    Sent("kidney-09_1", 108, 4, "LPS"),
    Sent("kidney-10_1", 109, 3, "RAS"),
    Sent("kidney-11_1", 110, 3, "LPS"),
)
UNLABELLED = Sent("kidney-12_1", 111, 4, "RAS")


def demo_folder(out: str | Path) -> Path:
    """Make the folder `out` and return it; the same bytes each time.

    ValueError: `out` is there already; nothing is overwritten, and a folder that is not whole is never left.
    """
    out = Path(out)
    if out.exists():
        raise ValueError(f"{out} is there already; name a new folder, nothing is overwritten.")
    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
    try:
        everyone = (*TRAINING, UNLABELLED)
        patients = [tuple(scans) for _, scans in groupby(everyone, key=lambda sent: sent.seed)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            made = zip(everyone, chain.from_iterable(pool.map(all_scanned, patients)), strict=True)
            for sent, (image, label) in tqdm(made, "scans", len(everyone), unit="scan", leave=False):
                write(part / ("imagesTs" if sent is UNLABELLED else "imagesTr"), sent, image)
                if sent is not UNLABELLED:
                    write(part / "labelsTr", sent, label)
        (part / "dataset.json").write_text(json.dumps(described(), indent=2) + "\n", encoding="utf-8")
        part.chmod(0o755)  # mkdtemp's folders are for their owner only
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return out


def all_scanned(patient: Sequence[Sent]) -> list[tuple[nib.Nifti1Image, nib.Nifti1Image]]:
    """The scans of one patient, one after another, so that he is drawn once."""
    return [scanned(sent) for sent in patient]


def scanned(sent: Sent) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
    """Image (int16) and label (uint8) of a scan, along the axes of its file."""
    case = kidney_patient(sent.seed, sent.spacing_mm, window_hu=None)
    kept = slice(0, None)
    if sent.without_tumour:
        kept = longest_run(~(case.label == 2).any((1, 2)))
    image = np.rint(case.image[0, kept] * sent.slope).astype(np.int16)
    return tuple(in_file(voxels, sent, kept.start) for voxels in (image, case.label[kept]))


def longest_run(true: np.ndarray) -> slice:
    """Where a row of booleans is true for longest."""
    ends = np.flatnonzero(np.diff(np.concatenate([[0], true, [0]])))
    start, stop = max(ends.reshape(-1, 2).tolist(), key=lambda run: run[1] - run[0])
    return slice(start, stop)


def in_file(voxels: np.ndarray, sent: Sent, first: int) -> nib.Nifti1Image:
    """Voxels (S, H, W) on the axes of `Case` as a file along the scan's; `first` is their lowest slice."""
    mm = sent.spacing_mm
    affine = np.zeros((4, 4))  # voxel (s, h, w) -> mm to the patient's right, front and head: RAS
    affine[[2, 1, 0], [0, 1, 2]] = mm, -mm, -mm  # row 0 is in front, column 0 the patient's right
    affine[:, 3] = (voxels.shape[2] * mm / 2, voxels.shape[1] * mm / 2, first * mm, 1)
    file = nib.Nifti1Image(voxels, affine)
    turned = file.as_reoriented(ornt_transform(io_orientation(affine), axcodes2ornt(sent.axes)))
    turned.header.set_xyzt_units("mm")
    return turned


def write(folder: Path, sent: Sent, file: nib.Nifti1Image) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{sent.name}.nii.gz").write_bytes(gzip.compress(file.to_bytes(), PACKED, mtime=0))


def described() -> dict:
    """What dataset.json says, in the Decathlon's words."""
    return {
        "name": "demo-kidney",
        "description": ABOUT,
        "licence": LICENCE,
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background"} | {str(value): name for value, name in LABEL_NAMES.items()},
        "numTraining": len(TRAINING),
        "numTest": 1,
        "training": [
            {"image": f"./imagesTr/{sent.name}.nii.gz", "label": f"./labelsTr/{sent.name}.nii.gz"}
            for sent in TRAINING
        ],
        "test": [f"./imagesTs/{UNLABELLED.name}.nii.gz"],
    }
