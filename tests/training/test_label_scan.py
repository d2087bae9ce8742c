"""A scan in files of its own, turned as scanners turn them, labelled by a network that the kit carries."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from labkit import tuning
from labkit.explore import deltas
from labkit.methods import LoRA
from labkit.metrics import dice
from labkit.networks.segmenter import segmenter
from labkit.phantoms.brain import brain_patients
from labkit.scans.slices import to_volume
from labkit.training import label_scan
from labkit.training.evaluate import predict
from labkit.training.sliding_window import predict_windows

DELTA = deltas.place("volumes-lora")


@pytest.fixture(scope="module")
def case():
    return brain_patients("test", 1)[0]


@pytest.fixture(scope="module")
def files(case, tmp_path_factory):
    """The patient's channels as NIfTI files with axes right, anterior, inferior."""
    folder, found = tmp_path_factory.mktemp("scan"), []
    for channel, voxels in zip(case.channels, case.image, strict=True):
        turned = voxels[::-1, ::-1, ::-1].transpose(2, 1, 0)  # (x to the right, y to the front, z down)
        affine = np.diag([2.0, 2.0, -2.0, 1.0])
        affine[:3, 3] = -90, -126, 87
        found.append(folder / f"{channel}.nii.gz")
        nib.save(nib.Nifti1Image(np.ascontiguousarray(turned), affine), found[-1])
    return found


def test_the_labels_lie_on_the_scans_own_grid_and_are_those_of_the_network(case, files, tmp_path):
    said = label_scan.label_scan(DELTA, files, tmp_path / "labels.nii.gz")
    image, labels = nib.load(files[0]), nib.load(tmp_path / "labels.nii.gz")
    assert labels.shape == image.shape and np.allclose(labels.affine, image.affine)
    assert labels.get_data_dtype() == np.uint8
    found = np.asarray(labels.dataobj).transpose(2, 1, 0)[::-1, ::-1, ::-1]
    assert np.array_equal(found, predict(deltas.network("volumes-lora"), to_volume(case), 4))
    assert dice(found > 0, case.label > 0) > 0.5
    assert said == pytest.approx({value: (found == value).sum() * 8 / 1000 for value in (1, 2, 4)})


def test_windows_and_flips_are_those_of_the_sliding_window(case, files, tmp_path):
    said = label_scan.label_scan(DELTA, files, tmp_path / "labels.nii.gz", windows=True, flips="W")
    model = deltas.network("volumes-lora")
    found = predict_windows(model, to_volume(case), 4, model.size, "W")
    assert said == pytest.approx({value: (found == value).sum() * 8 / 1000 for value in (1, 2, 4)})
    assert dice(found > 0, case.label > 0) > 0.5


def test_nothing_is_overwritten(files, tmp_path):
    (tmp_path / "labels.nii").write_text("mine")
    with pytest.raises(ValueError, match="nothing is overwritten"):
        label_scan.label_scan(DELTA, files, tmp_path / "labels.nii")
    assert (tmp_path / "labels.nii").read_text() == "mine"


def test_what_does_not_fit_is_said_in_a_sentence(files, tmp_path):
    with pytest.raises(ValueError, match="4 channels, but 3 files"):
        label_scan.label_scan(DELTA, files[:3], tmp_path / "a.nii.gz")
    moved = nib.load(files[1])
    nib.save(nib.Nifti1Image(np.asarray(moved.dataobj)[:-1], moved.affine), tmp_path / "cut.nii.gz")
    with pytest.raises(ValueError, match="same grid"):
        label_scan.label_scan(DELTA, [files[0], tmp_path / "cut.nii.gz", *files[2:]], tmp_path / "a.nii.gz")
    with pytest.raises(ValueError, match="no readable delta"):
        label_scan.label_scan(tmp_path / "none.safetensors", files, tmp_path / "a.nii.gz")
    with pytest.raises(ValueError, match="does not say which network"):
        label_scan.label_scan(deltas.place("rank-lora"), files, tmp_path / "a.nii.gz")
    assert not list(tmp_path.glob("a.nii*"))


def test_a_delta_saved_with_its_labels_finds_its_network_again(tmp_path):
    model = tuning.tune(segmenter(classes=2, in_chans=1, decoder="linear"), LoRA(r=2, targets=("q",)))
    tuning.save(model, tmp_path / "mine.safetensors", labels=[0, 7], slices=1)
    again, about = label_scan.network_of(tmp_path / "mine.safetensors")
    assert again.tuned_by == LoRA(r=2, targets=("q",)) and about["labels"] == [0, 7]
    assert about["network"]["decoder"] == "linear"
