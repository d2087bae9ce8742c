"""Lab 11: right answers unlike ours pass, wrong ones fail, and what can't be judged is said in words."""

from __future__ import annotations

import json
import math
import random

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import affine_transform, distance_transform_edt

from labkit import metrics
from labkit.lessons import check, exercises
from labkit.paths import checkout_root
from labkit.phantoms import demo_folder
from labkit.release import build, editions

EXERCISES = exercises("11")


# Right answers


def hu_by_quantile(scans):
    wrong = []
    for name in scans:
        air = np.quantile(np.asarray(scans[name], float).ravel(), 0.05)
        if air < -1100 or air > -900:
            wrong.append(name)
    return wrong


def hu_by_sorting(scans):
    low = {name: np.sort(scan, None)[scan.size // 20] for name, scan in scans.items()}
    return tuple(name for name, air in low.items() if not -1100 <= air <= -900)


def window_by_interp(hu, centre, width):
    return np.interp(hu, [centre - width / 2, centre + width / 2], [0.0, 1.0]).astype(np.float32)


def window_by_masks(hu, centre, width):
    out = hu.astype(np.float64)
    out -= centre
    out /= width
    out += 0.5
    out[out < 0] = 0
    out[out > 1] = 1
    return out


def split_the_last(patient_of, n_test):
    patients = list(dict.fromkeys(patient_of.values()))
    test = [scan for scan in patient_of if patient_of[scan] in patients[-n_test:]]
    return [scan for scan in patient_of if scan not in test], test


def split_by_random(patient_of, n_test):
    for_test = random.Random(7).sample(sorted(set(patient_of.values())), n_test)
    return [[s for s, p in patient_of.items() if (p in for_test) is wanted] for wanted in (False, True)]


def label_by_scipy(label, step, shape):
    return affine_transform(label, step, output_shape=shape, order=0, mode="nearest")


def label_voxel_by_voxel(label, step, shape):
    out = np.zeros(shape, label.dtype)
    for place in np.ndindex(*shape):
        old = (min(int(i * s + 0.5), n - 1) for i, s, n in zip(place, step, label.shape, strict=True))
        out[place] = label[tuple(old)]
    return out


def best_by_sorting(rows, budget):
    fits = sorted((r for r in rows if not r["tuned"] > budget), key=lambda r: -sum(r["validation"]))
    return [fits[0]["name"], np.mean(fits[0]["test"])]


def dice_by_nanmean(predictions, truths, voxel_ml):
    dices = [metrics.dice(P, T) if T.any() else math.nan for P, T in zip(predictions, truths, strict=True)]
    false = sum(int(P.sum()) for P, d in zip(predictions, dices, strict=True) if math.isnan(d))
    present = [d for d in dices if d == d]
    return (sum(present) / len(present) if present else math.nan), false * voxel_ml


@pytest.mark.parametrize(
    "name, answer",
    [
        ("not_in_hu", hu_by_quantile),
        ("not_in_hu", hu_by_sorting),
        ("windowed", window_by_interp),
        ("windowed", window_by_masks),
        ("split_by_patient", split_the_last),
        ("split_by_patient", split_by_random),
        ("nearest_label", label_by_scipy),
        ("nearest_label", label_voxel_by_voxel),
        ("best_within", best_by_sorting),
        ("dice_of_region", dice_by_nanmean),
    ],
)
def test_a_right_answer_passes_however_it_is_written(name, answer):
    feedback = check(name, EXERCISES[name], answer)
    assert feedback, str(feedback)


# Wrong ones that are not in the list of mistakes


def hu_as_numbers_of_scans(scans):
    return [i for i, scan in enumerate(scans.values()) if abs(np.percentile(scan, 5) + 1000) > 100]


def window_in_bytes(hu, centre, width):
    return (255 * np.clip((hu - centre + width / 2) / width, 0, 1)).astype(np.uint8)


def split_by_scans_of_a_share(patient_of, n_test):
    scans = sorted(patient_of)
    cut = len(scans) // 2
    return scans[:cut], scans[cut:]


def label_by_the_nearest_foreground(label, step, shape):
    grown = label[tuple(distance_transform_edt(label == 0, return_indices=True)[1])]
    return label_by_scipy(grown, step, shape)


def best_by_the_sum_of_both(rows, budget):
    fits = [row for row in rows if row["tuned"] <= budget]
    best = max(fits, key=lambda row: np.mean(row["validation"]) + np.mean(row["test"]))
    return best["name"], float(np.mean(best["test"]))


def dice_of_all_marked(predictions, truths, voxel_ml):
    mean, _ = dice_by_nanmean(predictions, truths, voxel_ml)
    return mean, float(sum(P.sum() for P in predictions) * voxel_ml)


@pytest.mark.parametrize(
    "name, answer",
    [
        ("not_in_hu", hu_as_numbers_of_scans),
        ("windowed", window_in_bytes),
        ("split_by_patient", split_by_scans_of_a_share),
        ("nearest_label", label_by_the_nearest_foreground),
        ("best_within", best_by_the_sum_of_both),
        ("dice_of_region", dice_of_all_marked),
    ],
)
def test_a_wrong_answer_that_nobody_foresaw_fails(name, answer):
    assert not check(name, EXERCISES[name], answer)


@pytest.mark.parametrize(
    "name, answer, words",
    [
        ("windowed", lambda hu, centre, width: hu.tolist(), "return a NumPy array with the shape of hu"),
        ("windowed", window_in_bytes, "a type with fractions, not uint8"),
        ("split_by_patient", lambda patient_of, n_test: 3, "return two lists of names"),
        ("split_by_patient", lambda patient_of, n_test: list(patient_of), "return two lists of names"),
        (
            "split_by_patient",
            lambda patient_of, n_test: (set(patient_of), set()),
            "return two lists of names",
        ),
        ("split_by_patient", lambda patient_of, n_test: (["Ann"], ["Ben"]), "'Ann' is no scan"),
        ("best_within", lambda rows, budget: "a", "return name, dice"),
        ("dice_of_region", lambda predictions, truths, voxel_ml: 0.5, "return two numbers"),
    ],
)
def test_what_cannot_be_judged_is_told_in_words_and_not_by_an_error_of_the_check(name, answer, words):
    feedback = check(name, EXERCISES[name], answer)
    assert not feedback and words in str(feedback)
    assert "Error" not in str(feedback)


def test_a_split_that_leaks_says_which_patient_is_in_both_parts():
    feedback = check(
        "split_by_patient", EXERCISES["split_by_patient"], lambda of, n: (list(of)[:-1], list(of)[1:])
    )
    assert "patients in both parts" in str(feedback) and "Ann" in str(feedback)


def test_linear_labels_are_named_in_each_of_their_spellings():
    def rounded(label, step, shape):
        found = affine_transform(label.astype(np.float32), step, output_shape=shape, order=1, mode="nearest")
        return np.round(found).astype(np.uint8)

    feedback = check("nearest_label", EXERCISES["nearest_label"], rounded)
    assert "names have no mean" in feedback.misconception


def test_what_the_first_exercise_finds_in_the_demo_folder_is_the_scan_that_is_broken_there():
    sent = {sent.name: sent for sent in demo_folder.TRAINING if sent.name in ("kidney-01_1", "kidney-06_1")}
    scans = {name: np.asarray(demo_folder.scanned(one)[0].dataobj) for name, one in sent.items()}
    assert EXERCISES["not_in_hu"].reference(scans) == ["kidney-06_1"]


def test_the_reference_split_of_the_demo_folder_tests_on_the_patient_without_a_tumour():
    patient_of = {sent.name: sent.name.split("_")[0] for sent in demo_folder.TRAINING if sent.slope == 1}
    _, test = EXERCISES["split_by_patient"].reference(patient_of, 3)
    (without,) = (sent.name for sent in demo_folder.TRAINING if sent.without_tumour)
    assert without in test


# The lab on scans of one's own


@pytest.fixture
def few_slices(tmp_path):
    """41 scans without a unit, of sixteen slices each, as a prostate has."""
    folder, rng = tmp_path / "scans", np.random.default_rng(0)
    for room in ("imagesTr", "labelsTr"):
        (folder / room).mkdir(parents=True)
    for i in range(41):
        label = np.zeros((24, 20, 16), np.uint8)
        label[6:14, 4:12, 3:12], label[10:18, 8:16, 6:14] = 1, 2
        image = (300.0 + 200 * label + rng.normal(0, 40, label.shape)).astype(np.int16)
        for room, voxels in (("imagesTr", image), ("labelsTr", label)):
            nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / room / f"p{i:02d}.nii.gz")
    about = {"modality": {"0": "T2"}, "labels": {"0": "background", "1": "inner", "2": "outer"}}
    (folder / "dataset.json").write_text(json.dumps(about))
    return folder


@pytest.mark.slow
def test_the_lab_runs_on_a_folder_of_ones_own_and_speaks_of_what_lies_in_it(
    few_slices, tmp_path, monkeypatch
):
    monkeypatch.setenv("LABKIT_QUICK", "1")
    lab = editions.instructor(checkout_root() / "notebooks" / "11_your_scans.py")
    (cell,) = (cell for cell in lab.cells if 'DATA = "demo"' in cell.source)
    cell.source = cell.source.replace('DATA = "demo"', f"DATA = {str(few_slices)!r}")
    build.execute(lab, tmp_path)
    outputs = [output for cell in lab.cells for output in cell.get("outputs", ())]
    said = "\n".join(str(output.get("text") or output.get("data")) for output in outputs)
    assert "40 labelled scans, the first of 41: p00" in said
    assert "contrasts without a unit have no windows of their own" in said
    assert "solid and dotted." in said and "the broken one" not in said
    assert "1 is *inner*" in said and "rim of label 1, inner, lies around it" in said
    assert ("as bright as inner." in said) or ("a whole inner or its border" in said)
    assert "after labkit's delta: largest difference of the backbone 0.0e+00" in said
