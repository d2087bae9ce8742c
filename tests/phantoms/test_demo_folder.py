"""The folder to practise on: read by the kit, honest headers, one scan broken, nothing overwritten."""

from __future__ import annotations

import json
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from labkit.phantoms import demo_folder, kidney
from labkit.phantoms.kidney import SPLITS, kidney_patient
from labkit.scans.folders import read_folder
from labkit.scans.msd import msd_cases, read_case

BROKEN = "kidney-06_1"
SCANS = {sent.name: sent for sent in demo_folder.TRAINING}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return demo_folder.demo_folder(tmp_path_factory.mktemp("demo") / "kidneys")


def test_the_kit_reads_every_scan_of_the_folder_and_finds_no_fault(folder):
    cases, problems = read_folder(folder, spacing_mm=3)
    assert problems == {} and [case.name for case in cases] == list(SCANS)
    assert {case.channels for case in cases} == {("CT",)}
    assert {tuple(case.label_names.values()) for case in cases} == {("kidney", "tumour")}
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 60e6


def test_the_folder_says_its_licence_and_that_a_scan_is_broken_but_not_which(folder):
    said = (folder / "dataset.json").read_text(encoding="utf-8")
    assert json.loads(said)["licence"] == demo_folder.LICENCE and "synthetic" in demo_folder.LICENCE
    assert "broken on purpose" in json.loads(said)["description"]
    assert said.count(BROKEN) == 2  # as image and label, like any other


def test_a_patient_who_was_scanned_twice_is_drawn_once(tmp_path, monkeypatch):
    drawn = []

    def air(seed):
        drawn.append(seed)
        nothing = np.zeros((64, 96, 96), np.float32)
        return kidney.Body(nothing - 1000, nothing, nothing)

    kidney.body_of.cache_clear()
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kidney, "make_body", air)
    monkeypatch.setattr(demo_folder, "AT_ONCE", 1)  # a second thread would overtake it: air is soon drawn
    demo_folder.demo_folder(tmp_path / "kidneys")
    kidney.body_of.cache_clear()
    assert sorted(drawn) == list(range(100, 112))


@pytest.mark.parametrize("name", ["kidney-01_1", "kidney-02_1", "kidney-04_2"])
def test_a_file_is_the_patient_whatever_axes_and_spacing_it_is_stored_in(folder, name):
    sent, case = SCANS[name], read_case(folder, name, window_hu=None)
    patient = kidney_patient(sent.seed, sent.spacing_mm, window_hu=None)
    np.testing.assert_array_equal(case.image, patient.image)
    np.testing.assert_array_equal(case.label, patient.label)
    assert case.spacing_mm == patient.spacing_mm


def test_files_are_stored_along_more_than_one_set_of_axes_and_at_two_spacings(folder):
    files = [nib.load(path) for path in (folder / "imagesTr").iterdir()]
    assert {"".join(nib.aff2axcodes(file.affine)) for file in files} == {"LPS", "RAS"}
    assert {file.header.get_zooms()[0] for file in files} == {3, 4}


def test_one_scan_alone_is_broken_and_holds_half_of_its_hounsfield_units(folder):
    air = {
        name: np.percentile(nib.load(folder / "imagesTr" / f"{name}.nii.gz").dataobj, 5)
        for name in msd_cases(folder)
    }
    assert [name for name, hu in air.items() if abs(hu + 1000) > 50] == [BROKEN]
    patient = kidney_patient(SCANS[BROKEN].seed, window_hu=None)
    found = read_case(folder, BROKEN, window_hu=None)
    np.testing.assert_allclose(found.image, patient.image / 2, atol=0.51)
    np.testing.assert_array_equal(found.label, patient.label)


def test_one_patient_has_two_scans_and_one_scan_has_kidneys_without_a_tumour(folder):
    patients = [name.split("_")[0] for name in SCANS]
    assert sorted(name for name in set(patients) if patients.count(name) > 1) == ["kidney-04"]
    present = {name: set(np.unique(read_case(folder, name).label).tolist()) for name in SCANS}
    assert [name for name, labels in present.items() if labels != {0, 1, 2}] == ["kidney-03_1"]
    assert present["kidney-03_1"] == {0, 1}


def test_nobody_of_the_folder_is_in_the_kits_own_tables_and_networks():
    seeds = {sent.seed for sent in (*demo_folder.TRAINING, demo_folder.UNLABELLED)}
    assert not seeds & {seed for part in SPLITS.values() for seed in part}


def test_a_folder_that_is_there_is_refused_and_stays_as_it_was(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    told = subprocess.run(
        [sys.executable, "-m", "labkit", "demo-folder", mine], capture_output=True, text=True
    )
    assert told.returncode == 2 and told.stderr.strip().endswith("nothing is overwritten.")
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "notes.txt"]


def test_a_folder_that_could_not_be_finished_is_not_left_half_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(demo_folder, "write", full)
    monkeypatch.setattr(demo_folder, "TRAINING", demo_folder.TRAINING[:1])
    with pytest.raises(OSError, match="the disk is full"):
        demo_folder.demo_folder(tmp_path / "kidneys")
    assert list(tmp_path.iterdir()) == []
