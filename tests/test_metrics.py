"""Dice and HD95 against MONAI's, and what they say where MONAI says NaN."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import DiceHelper, compute_dice, compute_hausdorff_distance
from scipy.ndimage import gaussian_filter

from labkit.metrics import BRATS_REGIONS, dice, dice_by_region, hd95, mean_by_region, regions_of, score

pytestmark = pytest.mark.filterwarnings("ignore:.*(deprecated|is all 0)")  # MONAI's, about its own code


def batch(mask):
    return torch.as_tensor(np.asarray(mask))[None, None].float()  # (1, 1, ...)


def monai_dice(P, T, **how):
    return float(compute_dice(batch(P), batch(T), include_background=True, **how))


def monai_hd95(P, T, spacing_mm):
    return float(
        compute_hausdorff_distance(
            batch(P), batch(T), include_background=True, percentile=95, spacing=list(spacing_mm)
        )
    )


def blobs(seed, shape=(24, 40, 36), threshold=0.05, smooth=3.0):
    """Irregular connected shapes, some of them cut by the border of the volume."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    return gaussian_filter(noise, smooth, mode="wrap") > threshold * (3 / smooth) ** 1.5


def pairs():
    """Name, prediction, truth, spacing: random and realistic, in two and three dimensions."""
    rng = np.random.default_rng(7)
    truth = blobs(1)
    spaces = [(1.0, 1.0, 1.0), (5.0, 0.7, 0.9), (2.0, 2.0, 1.5)]
    for spacing_mm in spaces:
        yield "shifted", np.roll(truth, (1, 3, -2), axis=(0, 1, 2)), truth, spacing_mm
        yield "speckled", truth ^ (rng.random(truth.shape) < 0.01), truth, spacing_mm
        yield "another", blobs(2), truth, spacing_mm
        yield "noise", rng.random(truth.shape) < 0.5, rng.random(truth.shape) < 0.1, spacing_mm
        yield "full", np.ones_like(truth), truth, spacing_mm
    corner, centre = np.zeros((2, 24, 40, 36), bool)
    corner[0, 0, 0], centre[12, 20, 18] = True, True
    yield "two voxels", corner, centre, (3.0, 1.0, 2.0)
    yield "one slice", truth[:1], np.roll(truth, 2, axis=1)[:1], (5.0, 1.0, 1.0)
    yield "plane", truth[5], blobs(3)[5], (0.5, 2.0)


PAIRS = list(pairs())


@pytest.mark.parametrize("name, P, T, spacing_mm", PAIRS, ids=[f"{p[0]}-{p[3]}" for p in PAIRS])
def test_dice_and_hd95_equal_monai(name, P, T, spacing_mm):
    assert dice(P, T) == pytest.approx(monai_dice(P, T), rel=1e-6)
    helper = DiceHelper(include_background=True, reduction="none", apply_argmax=False, get_not_nans=False)
    assert dice(P, T) == pytest.approx(float(helper(batch(P), batch(T))), rel=1e-6)
    assert hd95(P, T, spacing_mm) == pytest.approx(monai_hd95(P, T, spacing_mm), rel=1e-5)


def test_both_are_symmetric_and_perfect_on_themselves():
    P, T = blobs(1), blobs(2)
    assert dice(P, T) == dice(T, P) and hd95(P, T, (3, 1, 2)) == hd95(T, P, (3, 1, 2))
    assert dice(T, T) == 1 and hd95(T, T, (3, 1, 2)) == 0


def test_values_computed_by_hand():
    P, T = np.zeros((2, 6, 6), int)
    P[1, 1:5], T[1, 3:5] = 1, 1  # 4 and 2 pixels in a row, 2 shared
    assert dice(P, T) == pytest.approx(2 * 2 / (4 + 2))
    # from P to T: 2, 1, 0, 0 columns of 3 mm; their 95th percentile lies at .85 between 1 and 2
    assert hd95(P, T, (1, 3)) == pytest.approx(3 * 1.85)


def test_a_mask_touching_the_border_of_the_volume_has_its_surface_there():
    T = np.ones((4, 4, 4), bool)
    P = T.copy()
    P[0] = False
    assert hd95(P, T, (2, 1, 1)) == pytest.approx(monai_hd95(P, T, (2, 1, 1))) == 2


def test_integer_and_boolean_masks_and_tensors_score_the_same():
    P, T = blobs(1), blobs(2)
    assert dice(P, T) == dice(P.astype(np.uint8), T.astype(float)) == dice(torch.tensor(P), torch.tensor(T))


def test_both_masks_empty_is_a_perfect_score():
    empty = np.zeros((155, 24, 24), bool)
    assert dice(empty, empty) == 1 == monai_dice(empty, empty, ignore_empty=False)
    assert hd95(empty, empty, (1, 1, 1)) == 0
    assert np.isnan(monai_dice(empty, empty)) and np.isnan(monai_hd95(empty, empty, (1, 1, 1)))


@pytest.mark.parametrize("missed", [True, False])
def test_one_mask_empty_costs_the_diagonal_of_the_volume(missed):
    empty, full = np.zeros((155, 240, 240), bool), np.zeros((155, 240, 240), bool)
    full[70:80, 100:120, 100:120] = True
    P, T = (empty, full) if missed else (full, empty)
    assert dice(P, T) == 0
    assert hd95(P, T, (1, 1, 1)) == pytest.approx(373.12866, abs=1e-4)
    assert hd95(P, T, (2, 1, 1)) == pytest.approx(np.sqrt(310**2 + 2 * 240**2))


def test_monai_gives_no_number_where_one_mask_is_empty():
    """Its mean leaves such a case out: a region missed altogether would then cost nothing."""
    empty, full = np.zeros((8, 8, 8), bool), np.ones((8, 8, 8), bool)
    for P, T in ((empty, full), (full, empty)):
        assert not np.isfinite(monai_hd95(P, T, (1, 1, 1)))
        assert monai_dice(P, T, ignore_empty=False) == dice(P, T) == 0
    assert np.isnan(monai_dice(full, empty))


def test_no_two_masks_are_farther_apart_than_an_empty_one():
    corner, other = np.zeros((2, 5, 6, 7), bool)
    corner[0, 0, 0], other[-1, -1, -1] = True, True
    assert hd95(corner, other, (3, 1, 2)) < hd95(corner, np.zeros_like(corner), (3, 1, 2))


def test_score_counts_the_labels_of_each_brats_region():
    truth = np.zeros((8, 10, 10), np.uint8)
    truth[2:6, 2:8, 2:8], truth[3:5, 3:7, 3:7], truth[3:5, 4:6, 4:6] = 2, 4, 1
    prediction = np.where(truth == 4, 1, truth)  # takes enhancing tumour for necrosis
    scores = score(prediction, truth, (2, 1, 1), BRATS_REGIONS)
    assert list(scores) == ["ET", "WT", "TC"]
    assert scores["WT"] == scores["TC"] == {"dice": 1.0, "hd95": 0.0}
    assert scores["ET"] == {"dice": 0.0, "hd95": pytest.approx(np.sqrt(16**2 + 10**2 + 10**2))}


def test_the_labels_of_brats_are_scored_by_its_regions():
    assert regions_of({1: "core", 2: "oedema", 4: "enhancing"}) == BRATS_REGIONS


def test_plain_labels_are_regions_of_their_own():
    regions = regions_of({0: "background", 2: "posterior", 1: "anterior"})
    assert regions == {"anterior": (1,), "posterior": (2,)}
    truth = np.zeros((4, 4, 4), np.int64)
    truth[0], truth[3] = 1, 2
    assert score(truth, truth, (1, 1, 1), regions)["posterior"] == {"dice": 1.0, "hd95": 0.0}


BALL = np.ones((3, 4, 5), bool)
MISTAKES = [
    (lambda: dice(BALL, BALL[:2]), r"prediction \(3, 4, 5\) and truth \(2, 4, 5\) differ in shape"),
    (lambda: score(BALL * 1, BALL[0] * 1, (1, 1, 1), BRATS_REGIONS), r"\(3, 4, 5\) and truth \(4, 5\)"),
    (lambda: dice(BALL * 0.7, BALL), "prediction must be a mask of 0 and 1"),
    (lambda: hd95(BALL, BALL * 4, (1, 1, 1)), "truth must be a mask of 0 and 1"),
    (lambda: dice(BALL * np.nan, BALL), "prediction must be a mask"),
    (lambda: score(BALL * 0.7, BALL * 1, (1, 1, 1), BRATS_REGIONS), "integer labels, not float64"),
    (lambda: hd95(BALL, BALL, (1, 1)), "3 positive numbers"),
    (lambda: hd95(BALL, BALL, (1, 0, 1)), "3 positive numbers"),
    (lambda: hd95(BALL, BALL, (1, np.nan, 1)), "3 positive numbers"),
    (lambda: regions_of({1: "cyst", 2: "cyst"}), "two labels share a name"),
]


@pytest.mark.parametrize("mistake, sentence", MISTAKES)
def test_bad_input_is_one_sentence(mistake, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        mistake()
    assert "\n" not in str(error.value)


def test_dice_by_region_is_that_of_score_and_other_labels_are_regions_of_their_own():
    rng = np.random.default_rng(0)
    truth, prediction = rng.choice([0, 1, 2, 4], (2, 4, 5, 6)).astype(np.uint8)
    expected = score(prediction, truth, (1, 1, 1), BRATS_REGIONS)
    names = {1: "core", 2: "oedema", 4: "enhancing"}
    assert dice_by_region(prediction, truth, names) == {r: v["dice"] for r, v in expected.items()}
    assert dice_by_region(truth % 2, truth % 2, {1: "anterior", 2: "posterior"}) == {
        "anterior": 1.0,
        "posterior": 1.0,
    }


def test_a_mean_by_region_is_over_patients():
    rows = [dict(region="ET", dice=1.0), dict(region="WT", dice=0.5), dict(region="ET", dice=0.0)]
    assert mean_by_region(rows) == {"ET": 0.5, "WT": 0.5}
