"""A scan in files of its own, turned as scanners turn them, labelled by a network that the kit carries."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from labkit import tuning
from labkit.explore import deltas
from labkit.methods import Head, LoRA
from labkit.metrics import dice
from labkit.networks.segmenter import segmenter
from labkit.paths import data_dir
from labkit.phantoms.brain import brain_patients
from labkit.phantoms.kidney import kidney_patient
from labkit.scans import nifti
from labkit.scans.scans import prepared, read_image
from labkit.scans.slices import to_volume
from labkit.training import label_scan
from labkit.training.evaluate import predict
from labkit.training.fit import Recipe, fit, fresh
from labkit.training.sliding_window import predict_windows

DELTA = deltas.place("volumes-lora")
LAPTOP = Recipe()


@pytest.fixture(scope="module")
def case():
    """Twenty slices of a patient, the ones with most tumour among them."""
    whole = brain_patients("test", 1)[0]
    middle = int((whole.label > 0).sum((1, 2)).argmax())
    few = slice(middle - 10, middle + 10)
    return replace(whole, image=whole.image[:, few], label=whole.label[few])


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


def test_one_file_that_holds_all_channels_is_labelled_like_a_file_for_each(files, tmp_path):
    """As in the Decathlon's brain tumours and prostates, which `labkit train` takes, too."""
    channels = [nib.load(file) for file in files]
    whole = np.stack([np.asarray(file.dataobj) for file in channels], -1)
    nib.save(nib.Nifti1Image(whole, channels[0].affine), tmp_path / "scan.nii.gz")
    said = label_scan.label_scan(DELTA, files, tmp_path / "of_four.nii.gz")
    assert label_scan.label_scan(DELTA, [tmp_path / "scan.nii.gz"], tmp_path / "of_one.nii.gz") == said
    of_four, of_one = (nib.load(tmp_path / f"of_{n}.nii.gz") for n in ("four", "one"))
    assert of_one.shape == of_four.shape == whole.shape[:3] and np.allclose(of_one.affine, of_four.affine)
    assert np.array_equal(of_one.dataobj, of_four.dataobj)
    nib.save(nib.Nifti1Image(whole[..., :3], channels[0].affine), tmp_path / "three.nii.gz")
    with pytest.raises(ValueError, match="4 channels, but .*three.nii.gz holds 3; give a file for each"):
        label_scan.label_scan(DELTA, [tmp_path / "three.nii.gz"], tmp_path / "none.nii.gz")


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


def kept(model, case, path, recipe=LAPTOP):
    tuning.save(model, path, **label_scan.about_of(case, recipe))
    return path


def written(path, voxels, spacing_mm=3.0):
    """(S, H, W) on the axes of `Case` as a NIfTI file."""
    affine = np.diag([-spacing_mm, -spacing_mm, spacing_mm, 1.0])  # to the left, to the back, upwards
    nib.save(nib.Nifti1Image(np.ascontiguousarray(voxels.transpose(2, 1, 0)), affine), path)
    return path


def labels_of(path):
    return np.asarray(nib.load(path).dataobj).transpose(2, 1, 0)


@pytest.fixture(scope="module")
def kidney():
    return kidney_patient(0)


@pytest.fixture(scope="module")
def ct_network(kidney):
    """Has seen a CT for a few steps: its labels depend on what it is shown."""
    model = fresh(Head(), kidney, 0, decoder="linear")
    fit(model, [to_volume(kidney)], Recipe(steps=20, batch_size=4), progress=False)
    return model


def test_a_ct_network_labels_raw_hu_as_windowed_voxels(kidney, ct_network, tmp_path):
    delta = kept(ct_network, kidney, tmp_path / "ct.safetensors")
    raw = written(tmp_path / "raw.nii.gz", kidney_patient(0, window_hu=None).image[0])
    windowed = written(tmp_path / "windowed.nii.gz", kidney.image[0])
    for path in (raw, windowed):
        label_scan.label_scan(delta, [path], tmp_path / f"labels-{path.name}")
    found = labels_of(tmp_path / "labels-raw.nii.gz")
    assert np.array_equal(found, labels_of(tmp_path / "labels-windowed.nii.gz"))
    assert np.array_equal(found, predict(ct_network, to_volume(kidney), 1)) and found.any()
    shifted = written(tmp_path / "shifted.nii.gz", kidney_patient(0, window_hu=None).image[0] + 1100)
    with pytest.raises(ValueError, match="shifted.nii.gz: the lowest value is .* in HU air is about -1000"):
        label_scan.label_scan(delta, [shifted], tmp_path / "none.nii.gz")


def test_a_delta_of_an_older_kit_is_used_and_what_it_does_not_say_is_said(
    kidney, ct_network, tmp_path, capsys
):
    tuning.save(ct_network, tmp_path / "old.safetensors", labels=[0, 1, 2], slices=1)
    scan = written(tmp_path / "ct.nii.gz", kidney.image[0])
    label_scan.label_scan(tmp_path / "old.safetensors", [scan], tmp_path / "old.nii.gz")
    assert re.search("old.safetensors is of an older kit .* wrong for CT", capsys.readouterr().err)
    delta = kept(ct_network, kidney, tmp_path / "new.safetensors")
    label_scan.label_scan(delta, [scan], tmp_path / "new.nii.gz")
    assert "older" not in capsys.readouterr().err
    assert np.array_equal(labels_of(tmp_path / "old.nii.gz"), labels_of(tmp_path / "new.nii.gz"))


def test_a_preprocessing_that_cannot_be_read_is_refused(ct_network, tmp_path):
    path = tmp_path / "odd.safetensors"
    tuning.save(ct_network, path, labels=[0, 1, 2], slices=1, preprocessing={"channels": ["CT"]})
    with pytest.raises(ValueError, match="odd.safetensors: expected channels, label_names"):
        label_scan.network_of(path)


def test_a_scan_is_resampled_as_those_of_training_and_its_labels_lie_on_its_own_grid(
    kidney, ct_network, tmp_path
):
    coarse = replace(kidney, resampled_mm=(6.0, 6.0, 6.0))
    delta = kept(ct_network, coarse, tmp_path / "coarse.safetensors")
    scan = written(tmp_path / "ct.nii.gz", kidney.image[0])
    said = label_scan.label_scan(delta, [scan], tmp_path / "labels.nii.gz")
    found = labels_of(tmp_path / "labels.nii.gz")
    assert found.shape == kidney.label.shape
    image, spacing_mm = prepared([read_image(scan)], coarse.preprocessing)
    assert image.shape == (1, 33, 49, 49) and tuple(spacing_mm) == (6, 6, 6)
    seen = replace(coarse, image=image, label=np.zeros(image.shape[1:], np.uint8), spacing_mm=(6.0,) * 3)
    again, _ = label_scan.network_of(delta)
    assert np.array_equal(found[::2, ::2, ::2], predict(again, to_volume(seen))[:32, :48, :48])
    assert said == pytest.approx({value: (found == value).sum() * 27 / 1000 for value in (1, 2)})


def test_files_in_another_order_are_refused_by_their_names(case, files, tmp_path):
    model = fresh(Head(), case, 0, decoder="linear")
    delta = kept(model, case, tmp_path / "brain.safetensors")
    t1, t1ce, t2, flair = files
    with pytest.raises(ValueError, match="T2.nii.gz: by its name this is T2, .* order T1, T1ce, T2, FLAIR"):
        label_scan.label_scan(delta, [t1, t2, t1ce, flair], tmp_path / "a.nii.gz")
    channels = ("T1", "T1ce", "T2", "FLAIR")
    for names in (
        ("x_t1.nii", "x_t1ce.nii", "x_t2.nii", "x_flair.nii"),
        ("x-t1n.nii.gz", "x-t1c.nii.gz", "x-t2w.nii.gz", "x-t2f.nii.gz"),
        ("a.nii", "b_.nii", "scan_0002.nii", "4.nii"),
    ):
        label_scan.check_order([Path(name) for name in names], channels)
    with pytest.raises(ValueError, match="x-t2f.nii: by its name this is FLAIR, but .* place of T1;"):
        label_scan.check_order([Path("x-t2f.nii")] * 4, channels)
    label_scan.label_scan(delta, files, tmp_path / "a.nii.gz")


def test_a_network_trained_on_crops_labels_in_windows_unasked(kidney, ct_network, tmp_path):
    delta = kept(ct_network, kidney, tmp_path / "crops.safetensors", Recipe(crop=True))
    scan = written(tmp_path / "ct.nii.gz", np.pad(kidney.image[0][:4], ((0, 0), (0, 40), (0, 40))))
    for out, windows in (("unasked", False), ("asked", True)):
        label_scan.label_scan(delta, [scan], tmp_path / f"{out}.nii", windows)
    whole = kept(ct_network, kidney, tmp_path / "whole.safetensors")
    label_scan.label_scan(whole, [scan], tmp_path / "scaled.nii")
    unasked, asked, scaled = (labels_of(tmp_path / f"{n}.nii") for n in ("unasked", "asked", "scaled"))
    assert np.array_equal(unasked, asked) and not np.array_equal(unasked, scaled)


# --- the way back


def rotated(axis, degrees):
    turn = Rotation.from_euler("xyz"[axis], degrees, degrees=True).as_matrix()
    return turn.round(12)  # so that 45 degrees are a tie


WAYS_ROUND = [
    np.eye(3)[list(order)] * signs for order in permutations(range(3)) for signs in product((1, -1), repeat=3)
]
WAYS_ROUND += [
    rotated(axis, degrees) * (1, flip, 1)
    for axis in range(3)
    for degrees in (45, -45, 135, 83, 44.999, 45.001, 50)
    for flip in (1, -1)
]


def test_labels_come_back_to_the_voxels_they_were_found_in_whichever_way_round(tmp_path):
    voxels = np.random.default_rng(0).integers(0, 3, (9, 7, 5)).astype(np.uint8)
    for axes in WAYS_ROUND:
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = axes * (1, 2, 3), (10, -20, 30)
        nib.save(nib.Nifti1Image(voxels, affine), tmp_path / "scan.nii")
        turned, _ = nifti.load(tmp_path / "scan.nii")
        back = nifti.on_grid_of(tmp_path / "scan.nii", turned)
        assert np.array_equal(np.asarray(back.dataobj), voxels), axes


@pytest.mark.parametrize("codes", [(1, 1), (2, 1), (0, 1), (4, 0)])
def test_the_label_map_keeps_sform_and_qform_and_their_codes(tmp_path, codes):
    sform, qform = np.diag([1, 2, 3, 1.0]), np.diag([1, 2, 3, 1.0])
    sform[:3, 3] = (10, -5, 3)
    scan = nib.Nifti1Image(np.ones((9, 7, 5), np.int16), sform)
    scan.set_sform(sform, code=codes[0])
    scan.set_qform(qform, code=codes[1])
    scan.header.set_xyzt_units("mm", "sec")
    scan.header.set_slope_inter(2.0, 1.0)
    scan.header["cal_max"] = 255
    nib.save(scan, tmp_path / "scan.nii.gz")
    found = np.random.default_rng(0).integers(0, 5, (5, 7, 9)).astype(np.uint8)
    (tmp_path / "labels.nii").write_bytes(nifti.on_grid_of(tmp_path / "scan.nii.gz", found).to_bytes())
    scan, labels = nib.load(tmp_path / "scan.nii.gz"), nib.load(tmp_path / "labels.nii")
    assert (int(labels.header["sform_code"]), int(labels.header["qform_code"])) == codes
    for one, other in ((scan.affine, labels.affine), (scan.get_qform(), labels.get_qform())):
        assert np.allclose(one, other)
    assert labels.get_data_dtype() == np.uint8 and labels.header["cal_max"] == 0
    assert set(np.unique(np.asarray(labels.dataobj))) == set(range(5)), "no slope of the scan's is left"


def test_a_delta_saved_with_its_labels_finds_its_network_again(tmp_path):
    model = tuning.tune(segmenter(classes=2, in_chans=1, decoder="linear"), LoRA(r=2, targets=("q",)))
    tuning.save(model, tmp_path / "mine.safetensors", labels=[0, 7], slices=1)
    again, about = label_scan.network_of(tmp_path / "mine.safetensors")
    assert again.tuned_by == LoRA(r=2, targets=("q",)) and about["labels"] == [0, 7]
    assert about["network"]["decoder"] == "linear"


def test_a_network_on_weights_of_a_file_is_found_again_with_that_file_alone(tmp_path):
    weights = data_dir() / "backbones" / "tiny.safetensors"
    model = tuning.tune(segmenter("tiny", in_chans=4, classes=4, weights=weights), LoRA(r=2)).eval()
    path = tmp_path / "mine.safetensors"
    tuning.save(model, path, labels=[0, 1, 2, 4], slices=1)
    again, _ = label_scan.network_of(path, weights)
    x = torch.randn(1, 1, 4, 96, 96)
    assert torch.equal(again(x), model(x))
    with pytest.raises(ValueError, match="whose weights lie in a file; give it too"):
        label_scan.network_of(path)
    with pytest.raises(ValueError, match="kit's own weights; leave .* out"):
        label_scan.network_of(DELTA, weights)


def test_a_network_on_random_weights_is_found_again_by_its_seed(tmp_path):
    model = tuning.tune(segmenter("tiny", in_chans=1, classes=2, weights=None, seed=3), Head()).eval()
    path = tmp_path / "mine.safetensors"
    tuning.save(model, path, labels=[0, 1], slices=1)
    again, _ = label_scan.network_of(path)
    x = torch.randn(1, 1, 1, 96, 96)
    assert torch.equal(again(x), model(x))
