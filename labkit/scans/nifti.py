"""NIfTI files: voxels turned to the axes of `Case`, checked, and resampled to another spacing.

Whatever can be wrong with a file ends in one ValueError that names it.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

SUFFIXES = (".nii.gz", ".nii")
# superior, posterior, left: slice 0 lowest, row 0 anterior, column 0 the patient's right
AXES = axcodes2ornt("SPL")


MM = {1: 1000.0, 3: 0.001}  # a header's codes of metre and micrometre


def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels of a NIfTI file, turned to the axes of `Case`, (S, H, W) or (S, H, W, C); their affine in mm."""
    file, voxels = opened(path)
    turn = ornt_transform(nib.io_orientation(file.affine), AXES)
    to_mm = np.diag([*[MM.get(int(file.header["xyzt_units"]) & 7, 1.0)] * 3, 1.0])
    return apply_orientation(voxels, turn), to_mm @ file.affine @ inv_ornt_aff(turn, voxels.shape[:3])


def opened(path: Path) -> tuple[nib.Nifti1Image, np.ndarray]:
    """A NIfTI file with a header that makes sense, and its voxels as they are stored."""
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)  # verifies the checksum, as nibabel does not
        # the first number is the size of the header, which tells the two versions of NIfTI apart
        version_2 = 540 in (int.from_bytes(content[:4], order) for order in ("little", "big"))
        kind = nib.Nifti2Image if version_2 else nib.Nifti1Image
        file = kind.from_bytes(content)
        voxels = np.asanyarray(file.dataobj)  # the stored type, or float64 where the header asks for scaling
        pixdim = kind.header_class.from_fileobj(BytesIO(content), check=False)["pixdim"]
    except Exception as error:  # gzip, zlib, struct, numpy and nibabel each have their own for a damaged file
        raise ValueError(f"{path}: not an intact NIfTI file; fetch it anew ({reason(error)})") from error
    if voxels.ndim not in (3, 4) or voxels.size == 0:
        raise ValueError(f"{path}: the shape is {voxels.shape}; expected (x, y, z) or (x, y, z, modality)")
    if voxels.dtype.kind not in "iuf":
        raise ValueError(f"{path}: the voxels are of type {voxels.dtype}; expected whole or real numbers")
    check_affine(file, pixdim, path)
    return file, voxels


def on_grid_of(path: Path, labels: np.ndarray) -> nib.Nifti1Image:
    """Labels (S, H, W) uint8 on the axes of `Case`, as a file on the grid that `load` read at `path`.

    The way back is the inverse of the way in, computed from the same affine: computed from that of the turned
    voxels it would be another one where an axis lies at 45 degrees, and two axes are as near. What the header
    says of the grid (sform and qform, their codes, units) is kept.
    """
    file, _ = opened(path)
    voxels = apply_orientation(labels, ornt_transform(AXES, nib.io_orientation(file.affine)))
    found = type(file)(voxels, file.affine, file.header, dtype=np.uint8)
    found.header.extensions.clear()
    for said, of_labels in (("scl_slope", np.nan), ("scl_inter", np.nan), ("cal_min", 0), ("cal_max", 0)):
        found.header[said] = of_labels
    return found


def check_affine(file: nib.Nifti1Image, pixdim: np.ndarray, path: Path) -> None:
    """ValueError: the header does not say how voxels lie in the patient."""
    axes = file.affine[:3, :3]  # mm per voxel step, one axis per column
    without_sform = file.header["sform_code"] == 0
    no_spacing = without_sform and not (pixdim[1:4] > 0).all()  # nibabel takes a zero pixdim for 1 mm
    if (
        no_spacing
        or not np.isfinite(file.affine).all()
        or abs(np.linalg.det(axes)) <= 1e-3 * np.prod(np.linalg.norm(axes, axis=0))
    ):
        raise ValueError(
            f"{path}: the affine is singular, not finite or has zero spacing; repair the header "
            f"(axes {axes.round(3).tolist()}, pixdim {pixdim[1:4]})"
        )
    if without_sform and file.header["qform_code"] == 0:
        raise ValueError(
            f"{path}: the header does not say which axis is which (sform_code and qform_code are 0); fetch "
            "the file anew, or write it again with its affine"
        )


def intensities(image: np.ndarray, path: Path) -> np.ndarray:
    image = image[..., None] if image.ndim == 3 else image
    image = np.ascontiguousarray(np.moveaxis(image, -1, 0), dtype=np.float32)  # (C, S, H, W)
    if bad := int((~np.isfinite(image)).sum()):
        raise ValueError(f"{path}: {bad} voxels are NaN or infinite; replace them, or leave this case out")
    return image


def whole_numbers(label: np.ndarray, path: Path) -> np.ndarray:
    label = label[..., 0] if label.ndim == 4 and label.shape[3] == 1 else label
    # where the header stretches 0..2 over the 256 integers of a byte, 1 comes back as 0.996
    good = (np.abs(label - np.rint(label)) < 0.01) & (label > -0.5) & (label < 255.5)
    if not good.all():
        raise ValueError(
            f"{path}: labels must be whole numbers 0 to 255, but {label[~good][0]:g} is among "
            "them; was it resampled with interpolation, or is it an image?"
        )
    label = np.ascontiguousarray(np.rint(label), dtype=np.uint8)
    if not label.any():
        raise ValueError(f"{path}: there is no foreground, every label is 0; leave this case out")
    return label


def resample(
    volume: np.ndarray,
    from_mm: Sequence[float],
    to_mm: Sequence[float],
    order: int,
    shape: tuple[int, ...] | None = None,
) -> np.ndarray:
    """A volume (S, H, W) at another spacing, its first voxel in its place; `shape` by default covers it."""
    from scipy.ndimage import affine_transform

    step = np.divide(to_mm, from_mm)  # old voxels per new one
    shape = shape or tuple(int(n) for n in np.rint((np.array(volume.shape) - 1) / step) + 1)
    return affine_transform(volume, step, output_shape=shape, order=order, mode="nearest")


def stem_of(file_name: str) -> str:
    return file_name.removesuffix(".gz").removesuffix(".nii")


def target_spacing(spacing_mm: float | Sequence[float] | None) -> tuple[float, float, float] | None:
    if spacing_mm is None:
        return None
    target = np.asarray(spacing_mm, dtype=float)
    if target.shape not in ((), (3,)) or not (np.isfinite(target) & (target > 0)).all():
        raise ValueError(f"spacing_mm must be one positive number, or three for S, H, W, not {spacing_mm}")
    return tuple(np.broadcast_to(target, 3).tolist())


def reason(error: Exception) -> str:
    """Kind and first line of an error."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
