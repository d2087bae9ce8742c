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


def prostates(folder):
    """41 scans without a unit, of sixteen slices each, as a prostate has; 24 rows and 20 columns."""
    for room in ("imagesTr", "labelsTr"):
        (folder / room).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(41):
        label = np.zeros((24, 20, 16), np.uint8)
        label[6:14, 4:12, 3:12], label[10:18, 8:16, 6:14] = 1, 2
        image = (300.0 + 200 * label + rng.normal(0, 40, label.shape)).astype(np.int16)
        for room, voxels in (("imagesTr", image), ("labelsTr", label)):
            nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / room / f"p{i:02d}.nii.gz")
    about = {"modality": {"0": "T2"}, "labels": {"0": "background", "1": "inner", "2": "outer"}}
    (folder / "dataset.json").write_text(json.dumps(about))


def two_contrasts(folder):
    """Seven unpacked scans of two channels in a file, flat voxels, labels 1 and 3, which the first lacks; and
    one without labels beside a file that macOS left."""
    for room in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / room).mkdir(parents=True)
    rng, affine = np.random.default_rng(0), np.diag([1.5, 1.5, 4, 1])
    for i in range(8):
        label = np.zeros((31, 27, 9 + i), np.uint8)
        label[6:20, 4:16, 1:7] = 1
        label[9:13, 8:12, 2:6] = 3 if i else 1
        image = np.stack([50.0 * label, 90.0 - 20 * label], -1) + rng.normal(0, 8, (*label.shape, 2))
        image = nib.Nifti1Image(image.astype(np.float32), affine)
        if i == 7:
            nib.save(image, folder / "imagesTs" / "q7.nii")
            (folder / "imagesTs" / "._q7.nii").write_bytes(b"Mac OS X")
            continue
        nib.save(image, folder / "imagesTr" / f"q{i}.nii")
        nib.save(nib.Nifti1Image(label, affine), folder / "labelsTr" / f"q{i}.nii")
    about = {"modality": {"0": "T2", "1": "ADC"}, "labels": {"0": "background", "1": "gland", "3": "lesion"}}
    (folder / "dataset.json").write_text(json.dumps(about))


def hearts(folder):
    """Six scans of one slice, one label, and nothing that says what they are."""
    for room in ("imagesTr", "labelsTr"):
        (folder / room).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(6):
        label = np.zeros((40, 33, 1), np.uint8)
        label[8 + i : 25, 10:20] = 1
        image = (20.0 + 60 * label + rng.normal(0, 9, label.shape)).astype(np.float32)
        for room, voxels in (("imagesTr", image), ("labelsTr", label)):
            nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / room / f"h{i}.nii.gz")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            prostates,
            (
                "40 labelled scans, the first of 41: p00",
                "contrasts without a unit have no windows of their own",
                "solid and dotted.",
                "and 1 is *inner*",
                "rim of label 1, inner, lies around it",
                "T2; no window; each at its own spacing",
                "1 inner, 2 outer",
            ),
        ),
        (
            two_contrasts,
            (
                "7 labelled scans: q0",
                "31x27x9",
                "1.5x1.5x4",
                "On the way from 0 to 3 lies 1, and 1 is *gland*",
                "test patients without lesion",
                "T2, ADC; no window",
                "q7.nii: axes",
                "same grid: True",
                "1 gland, 3 lesion",
            ),
        ),
        (
            hearts,
            (
                "name: not said",
                "Your scans have one label, *label 1*",
                "The only one is label 1",
                "channel 0; no window",
                "same grid: True",
            ),
        ),
    ],
)
def test_the_lab_runs_on_a_folder_of_ones_own_and_speaks_of_what_lies_in_it(
    make, said, tmp_path, monkeypatch
):
    make(tmp_path / "scans")
    monkeypatch.setenv("LABKIT_QUICK", "1")
    lab = editions.instructor(checkout_root() / "notebooks" / "11_your_scans.py")
    (cell,) = (cell for cell in lab.cells if 'DATA = "demo"' in cell.source)
    cell.source = cell.source.replace('DATA = "demo"', f"DATA = {str(tmp_path / 'scans')!r}")
    build.execute(lab, tmp_path)
    outputs = [output for cell in lab.cells for output in cell.get("outputs", ())]
    shown = "\n".join(str(output.get("text") or output.get("data")) for output in outputs)
    for words in (*said, "after labkit's delta: largest difference of the backbone 0.0e+00"):
        assert words in shown
    for words in ("kidney-", "the broken one", "None HU", "as bright as kidney", "a whole kidney"):
        assert words not in shown
