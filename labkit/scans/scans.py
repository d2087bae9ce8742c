"""What folders of scans have in common: volumes that must share a grid, cases that may be broken."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine, voxel_sizes

from labkit.scans.case import Case
from labkit.scans.hounsfield import in_hu, window
from labkit.scans.nifti import SUFFIXES, intensities, load, resample, stem_of, whole_numbers
from labkit.scans.preprocessing import Preprocessing, is_ct

TOLERANCE = 0.1  # of a voxel: more than rounding in a header


@dataclass(frozen=True)
class Scan:
    """One file, turned to the axes of `Case`."""

    path: Path
    voxels: np.ndarray  # (S, H, W)
    affine: np.ndarray

    @property
    def spacing_mm(self) -> np.ndarray:
        return voxel_sizes(self.affine)


def only_file(folder: Path, stems: Iterable[str], what: str, hint: str = "") -> Path:
    """The one file in `folder` that is called one of `stems`, packed or not.

    ValueError: there is none, or several, of which only one can be meant.
    """
    stems = list(stems)
    found = [path for stem in stems for end in SUFFIXES if (path := folder / f"{stem}{end}").is_file()]
    if not found:
        expected = " or ".join(f"{stem}.nii.gz" for stem in stems)
        raise ValueError(f"{folder}: there is no {what}; expected {expected} (or .nii){hint}")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{folder}: there are {len(found)} files for the {what}, {names}; keep one of them")
    return found[0]


def read_channels(path: Path) -> list[Scan]:
    """An image by channel, float32. ValueError: a damaged file, no volume, values that are not finite."""
    voxels, affine = load(path)
    return [Scan(path, channel, affine) for channel in intensities(voxels, path)]


def read_image(path: Path) -> Scan:
    """An image of one channel. ValueError: as `read_channels`; there are several."""
    channels = read_channels(path)
    if len(channels) > 1:
        raise ValueError(
            f"{path}: there are {len(channels)} volumes in it, each of {channels[0].voxels.shape} slices, "
            "rows and columns; expected one, (x, y, z)"
        )
    return channels[0]


def read_label(path: Path) -> Scan:
    """Labels, uint8. ValueError: as for images; no whole numbers from 0 to 255; no foreground."""
    voxels, affine = load(path)
    label = whole_numbers(voxels, path)
    if label.ndim == 4:
        raise ValueError(f"{path}: the shape is {label.shape}; expected one volume of labels, (x, y, z)")
    return Scan(path, label, affine)


def check_same_grid(scan: Scan, first: Scan) -> None:
    """ValueError: the two volumes differ in shape, or lie elsewhere or another way round."""
    if scan.voxels.shape != first.voxels.shape:
        raise ValueError(
            f"{scan.path}: it has {scan.voxels.shape} slices, rows and columns, but {first.path.name} has "
            f"{first.voxels.shape}; all files of a case must lie on the same grid"
        )
    corners = list(product(*[(0, n - 1) for n in first.voxels.shape]))
    apart = apply_affine(first.affine, corners) - apply_affine(scan.affine, corners)  # (8, 3) mm
    apart_mm = np.linalg.norm(apart, axis=1).max()
    if apart_mm > TOLERANCE * first.spacing_mm.min():
        raise ValueError(
            f"{scan.path}: its affine puts it up to {apart_mm:.3g} mm away from {first.path.name}, moved or "
            "the other way round; all files of a case must lie on the same grid"
        )


def prepared(images: list[Scan], preprocessing: Preprocessing) -> tuple[np.ndarray, np.ndarray]:
    """One file per channel as the network sees the scan: (C, S, H, W) float32, and its spacing in mm.

    ValueError: the files do not share a grid, or a CT that is to be windowed holds no HU.
    """
    first, target_mm = images[0], preprocessing.resampled_mm
    for scan in images[1:]:
        check_same_grid(scan, first)
    image = np.stack(
        [
            windowed(scan, preprocessing.window_hu) if is_ct(channel) else scan.voxels
            for scan, channel in zip(images, preprocessing.channels, strict=True)
        ]
    )
    if target_mm is None or same_spacing(first, target_mm):
        return np.ascontiguousarray(image), first.spacing_mm
    image = np.stack([resample(channel, first.spacing_mm, target_mm, order=1) for channel in image])
    return image, np.asarray(target_mm)


def windowed(scan: Scan, window_hu: tuple[float, float] | None) -> np.ndarray:
    """The voxels of a CT, cut off at the ends of the window. ValueError: that would cut what is no HU."""
    found = window(scan.voxels, window_hu)
    return found if np.array_equal(found, scan.voxels) else window(in_hu(scan.voxels, scan.path), window_hu)


def same_spacing(scan: Scan, target_mm: tuple[float, float, float]) -> bool:
    return np.allclose(target_mm, scan.spacing_mm, rtol=1e-3)


def to_case(name: str, images: list[Scan], label: Scan, preprocessing: Preprocessing) -> Case:
    """Images and labels on one grid as a case, prepared as `preprocessing` says.

    ValueError: as `prepared`; the labels lie on another grid, or the new one loses all of them.
    """
    check_same_grid(label, images[0])
    image, spacing_mm = prepared(images, preprocessing)
    voxels, target_mm = label.voxels, preprocessing.resampled_mm
    if target_mm is not None and not same_spacing(images[0], target_mm):
        voxels = resample(voxels, images[0].spacing_mm, target_mm, order=0)
        if not voxels.any():
            raise ValueError(
                f"{label.path}: the foreground is lost at {target_mm} mm; use a finer spacing_mm, or leave "
                "this case out"
            )
    return Case(
        name,
        image,
        np.ascontiguousarray(voxels),
        tuple(map(float, spacing_mm)),
        preprocessing.channels,
        preprocessing.label_names,
        window_hu=preprocessing.window_hu,
        resampled_mm=target_mm,
    )


def read_all(
    names: Iterable[str], read: Callable[[str], Case], title: str
) -> tuple[list[Case], dict[str, str]]:
    """All usable cases, and the problems of the others: name -> one sentence."""
    from tqdm.auto import tqdm

    cases, problems = [], {}
    for name in tqdm(list(names), desc=f"reading {title}", unit="case"):
        try:
            cases.append(read(name))
        except ValueError as error:
            problems[name] = str(error)
    # a label that one patient happens to lack is still a label of the data set
    label_names = {value: text for case in cases for value, text in case.label_names.items()}
    return [replace(case, label_names=dict(sorted(label_names.items()))) for case in cases], problems


def volumes_in(folder: Path) -> list[str]:
    """Stems of the NIfTI files in a folder, without those that macOS adds ("._NAME.nii.gz")."""
    stems = {
        stem_of(path.name)
        for path in folder.iterdir()
        if path.name.endswith(SUFFIXES) and not path.name.startswith(".")
    }
    return sorted(stems)
