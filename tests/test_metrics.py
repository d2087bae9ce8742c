"""Dice and HD95 against MONAI's, and what they say where MONAI says NaN."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist

from labkit.metrics import (
    BRATS_REGIONS,
    dice,
    dice_by_region,
    hd95,
    lesion_wise,
    mean_by_region,
    regions_of,
    score,
)
from labkit.training.evaluate import mean_dice

pytestmark = pytest.mark.filterwarnings("ignore:.*(deprecated|is all 0)")  # MONAI's, about its own code


def batch(mask):
    return torch.as_tensor(np.asarray(mask))[None, None].float()  # (1, 1, ...)


def monai_dice(P, T, **how):
    from monai.metrics import compute_dice  # seconds, which only the process that compares has to wait

    return float(compute_dice(batch(P), batch(T), include_background=True, **how))


def monai_hd95(P, T, spacing_mm):
    from monai.metrics import compute_hausdorff_distance

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
    from monai.metrics import DiceHelper

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
    for region in ("WT", "TC"):
        np.testing.assert_equal(scores[region], {"dice": 1.0, "hd95": 0.0, "false_mm3": np.nan})
    assert scores["ET"]["dice"] == 0 and scores["ET"]["hd95"] == pytest.approx(np.sqrt(16**2 + 10**2 + 10**2))


ABSENT = [  # enhancing voxels in the truth, in the prediction: scores
    ("absent and not found", 0, 0, dict(dice=np.nan, hd95=np.nan, false_mm3=0.0, false_lesions=0)),
    ("absent and found", 0, 5, dict(dice=np.nan, hd95=np.nan, false_mm3=10.0, false_lesions=1)),
    ("present and missed", 5, 0, dict(dice=0.0, false_mm3=np.nan, false_lesions=0)),
    ("present and found", 5, 5, dict(dice=1.0, hd95=0.0, false_mm3=np.nan, false_lesions=0)),
]


@pytest.mark.parametrize("name, there, found, expected", ABSENT, ids=[case[0] for case in ABSENT])
def test_a_region_that_a_patient_does_not_have_is_no_test_of_its_dice(name, there, found, expected):
    truth, prediction = np.full((1, 4, 9), 2, np.uint8), np.full((1, 4, 9), 2, np.uint8)
    truth[0, 1, 1 : 1 + there], prediction[0, 1, 1 : 1 + found] = 4, 4
    scores = score(prediction, truth, (2, 1, 1), BRATS_REGIONS, lesions=True)["ET"]
    np.testing.assert_equal({key: scores[key] for key in expected}, expected)
    assert np.isnan(scores["lesion_dice"]) == (there == 0)


def test_means_leave_out_patients_without_the_region():
    rows = [
        {"region": "ET", "dice": 0.4},
        {"region": "ET", "dice": np.nan},
        {"region": "WT", "dice": 0.8},
        {"region": "WT", "dice": 0.6},
        {"region": "TC", "dice": np.nan},
    ]
    np.testing.assert_equal(mean_by_region(rows), {"ET": 0.4, "WT": 0.7, "TC": np.nan})
    assert mean_dice(rows) == pytest.approx(0.55), "the mean over regions follows: TC was nowhere"


def test_the_labels_of_brats_are_scored_by_its_regions():
    assert regions_of({1: "core", 2: "oedema", 4: "enhancing"}) == BRATS_REGIONS


@pytest.mark.parametrize(
    "names",
    [
        ("necrotic and non-enhancing core", "oedema", "enhancing tumour"),
        ("NCR/NET", "ED", "ET"),
        ("Necrosis", "peritumoral edema", "GD-enhancing tumor"),
    ],
)
def test_the_regions_of_brats_go_by_the_names_of_labels(names):
    assert regions_of(dict(zip((1, 2, 4), names, strict=True))) == BRATS_REGIONS


@pytest.mark.parametrize(
    "names",
    [
        ("spleen", "right kidney", "gallbladder"),
        ("necrotic core", "enhancing tumour", "oedema"),  # each name has another's number
        ("necrotic core", "oedema", "non-enhancing tumour"),
    ],
)
def test_other_labels_1_2_and_4_are_regions_of_their_own(names):
    assert regions_of(dict(zip((1, 2, 4), names, strict=True))) == dict(
        zip(names, ((1,), (2,), (4,)), strict=True)
    )


def test_plain_labels_are_regions_of_their_own():
    regions = regions_of({0: "background", 2: "posterior", 1: "anterior"})
    assert regions == {"anterior": (1,), "posterior": (2,)}
    truth = np.zeros((4, 4, 4), np.int64)
    truth[0], truth[3] = 1, 2
    assert score(truth, truth, (1, 1, 1), regions)["posterior"]["dice"] == 1


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
    whole = np.where(truth == 4, 2, truth)
    assert dice_by_region(whole, whole, {1: "anterior", 2: "posterior"}) == {
        "anterior": 1.0,
        "posterior": 1.0,
    }


def test_a_mean_by_region_is_over_patients():
    rows = [dict(region="ET", dice=1.0), dict(region="WT", dice=0.5), dict(region="ET", dice=0.0)]
    assert mean_by_region(rows) == {"ET": 0.5, "WT": 0.5}


def row(*voxels):
    """A mask of one row of voxels."""
    return np.array(voxels, bool)[None, None]


def spread(*runs, length=60):
    """A row of voxels with ones in the given (start, stop)."""
    mask = np.zeros((1, 1, length), bool)
    for start, stop in runs:
        mask[..., start:stop] = True
    return mask


# At 5 mm along the row a voxel holds 125 mm^3, and nothing grows: every component is a lesion.
BY_HAND = [  # prediction, truth, Dice, HD95, false lesions
    ("a false one", row(1, 1, 1, 1, 0, 0, 1, 0), row(1, 1, 1, 1, 0, 0, 0, 0), 0.5, 187, 1),
    ("a missed one", row(1, 1, 1, 1, 0, 0, 0, 0), row(1, 1, 1, 1, 0, 0, 1, 0), 0.5, 187, 0),
    ("only false", row(0, 0, 1, 0, 1), row(0, 0, 0, 0, 0), 0, 374, 2),
    ("all missed", row(0, 0, 0, 0, 0), row(0, 0, 1, 0, 1), 0, 374, 0),
    ("nothing", row(0, 0, 0, 0, 0), row(0, 0, 0, 0, 0), 1, 0, 0),
    ("one touches two", row(1, 1, 1, 1, 1), row(1, 1, 0, 1, 1), 4 / 7, 14, 0),
    ("two touch one", row(1, 1, 0, 1, 1), row(1, 1, 1, 1, 1), 8 / 9, 4, 0),
]


@pytest.mark.parametrize("name, P, T, lesion_dice, lesion_hd95, false", BY_HAND, ids=[b[0] for b in BY_HAND])
def test_each_lesion_has_a_vote_by_hand(name, P, T, lesion_dice, lesion_hd95, false):
    expected = {"lesion_dice": lesion_dice, "lesion_hd95": lesion_hd95, "false_lesions": false}
    assert lesion_wise(P, T, (5, 5, 5)) == pytest.approx(expected)


def test_a_tumour_and_five_ghosts_score_well_by_voxels_and_badly_by_lesions():
    T, P = np.zeros((2, 20, 60, 60), bool)
    T[:10, :20, :20] = P[:10, :20, :20] = True  # 4,000 voxels
    for i in range(5):
        P[15, 10 * i : 10 * i + 5, 30:50] = True  # 100 each
    assert dice(P, T) == pytest.approx(8000 / 8500)
    assert lesion_wise(P, T, (2, 2, 2)) == pytest.approx(
        {"lesion_dice": 1 / 6, "lesion_hd95": 374 * 5 / 6, "false_lesions": 5}
    )


@pytest.mark.parametrize("mm, gap, one", [(1, 6, True), (1, 7, False), (2, 2, True), (2, 3, False)])
def test_lesions_whose_3_mm_surroundings_meet_are_one(mm, gap, one):
    """The surroundings meet when nothing lies between them: 6 voxels at 1 mm, at 2 mm 2."""
    T = np.zeros((12, 12, 60), bool)
    T[2:8, 2:8, 2:10] = T[2:8, 2:8, 10 + gap : 18 + gap] = True
    P = T.copy()
    P[..., 10 + gap :] = False  # half is found
    expected = pytest.approx(2 / 3) if one else 0.5
    assert lesion_wise(P, T, (mm,) * 3)["lesion_dice"] == expected


@pytest.mark.parametrize("mm, voxels, counts", [(1, 50, False), (1, 51, True), (2, 6, False), (2, 7, True)])
def test_true_lesions_of_50_cubic_millimetres_have_no_vote_and_shield_what_touches_them(mm, voxels, counts):
    T = spread((5, 5 + voxels))
    assert lesion_wise(np.zeros_like(T), T, (mm,) * 3)["lesion_dice"] == (0 if counts else 1)
    beside = spread((5 + voxels, 6 + voxels))
    assert lesion_wise(beside, T, (mm,) * 3)["false_lesions"] == 0
    assert lesion_wise(beside, np.zeros_like(T), (mm,) * 3)["false_lesions"] == 1  # however small


def connected(mask):
    """Components by flooding from voxel to voxel, over faces, edges and corners."""
    offsets = list(np.ndindex(3, 3, 3))
    left, parts = set(map(tuple, np.argwhere(mask).tolist())), []
    while left:
        part, edge = set(), {left.pop()}
        while edge:
            part |= edge
            near = {tuple(v[a] + o[a] - 1 for a in range(3)) for v in edge for o in offsets}
            edge = near & left
            left -= edge
        parts.append(part)
    return parts


def step(voxels):
    """Growth by one step to the 18 nearest voxels."""
    offsets = [tuple(i - 1 for i in o) for o in np.ndindex(3, 3, 3)]
    offsets = [o for o in offsets if sum(map(abs, o)) <= 2]
    return {tuple(v[a] + o[a] for a in range(3)) for v in voxels for o in offsets}


def lesion_wise_of_sets(P, T):
    """The challenge's rules at 1 mm, on sets of voxels: three steps, lesions merged pair by pair."""
    predicted = connected(P)
    lesions = [(part, step(step(step(part)))) for part in connected(T)]
    merged = []
    for part, grown in lesions:
        close = [m for m in merged if cdist(list(m[1]), list(grown), "chebyshev").min() <= 1]
        merged = [m for m in merged if m not in close]
        merged.append((part.union(*(m[0] for m in close)), grown.union(*(m[1] for m in close))))
    dices, distances, used = [], [], set()
    for part, grown in merged:
        mine = [i for i, p in enumerate(predicted) if p & grown]
        used |= set(mine)
        if len(part) <= 50:
            continue
        found = set().union(*(predicted[i] for i in mine))
        dices.append(2 * len(found & part) / (len(found) + len(part)))
        masks = np.zeros((2, *T.shape), bool)
        for mask, voxels in zip(masks, (found, part), strict=True):
            for voxel in voxels:
                mask[voxel] = True
        distances.append(monai_hd95(*masks, (1, 1, 1)) if mine else 374)
    false = len(predicted) - len(used)
    n = len(dices) + false
    return {
        "lesion_dice": sum(dices) / n if n else 1,
        "lesion_hd95": (sum(distances) + 374 * false) / n if n else 0,
        "false_lesions": false,
    }


@pytest.mark.parametrize("seed", range(4))
def test_lesion_wise_scores_are_those_of_the_rules_spelled_out_on_sets_of_voxels(seed):
    shape = (16, 30, 28)
    T = blobs(seed, shape, threshold=0.048, smooth=2.0)
    P = np.roll(T, 1, axis=2) & ~blobs(seed + 10, shape, threshold=0.03, smooth=1.5)
    P |= blobs(seed + 20, shape, threshold=0.066, smooth=1.5)
    expected = lesion_wise_of_sets(P, T)
    assert lesion_wise(P, T, (1, 1, 1)) == pytest.approx(expected, rel=1e-5)
    assert 0 < expected["lesion_dice"] < 1 and expected["false_lesions"]


def test_scores_of_lesions_stand_beside_those_of_regions_on_request():
    truth = np.zeros((8, 10, 10), np.uint8)
    truth[2:6, 2:8, 2:8], truth[3:5, 3:7, 3:7] = 2, 4
    plain = score(truth, truth, (2, 2, 2), BRATS_REGIONS)
    assert "lesion_dice" not in plain["ET"]
    both = score(truth, truth, (2, 2, 2), BRATS_REGIONS, lesions=True)
    perfect = {"lesion_dice": 1, "lesion_hd95": 0, "false_lesions": 0}
    np.testing.assert_equal(both, {region: values | perfect for region, values in plain.items()})
    short = score(truth, truth, (2, 2, 2), BRATS_REGIONS, hausdorff=False, lesions=True)
    assert list(short["ET"]) == ["dice", "false_mm3", "lesion_dice", "false_lesions"]


def test_a_kidney_is_scored_with_its_tumours_and_cysts_as_in_kits():
    """KiTS19: kidney with tumour, tumour. KiTS21 and later: kidney with masses, masses, tumour."""
    assert regions_of({1: "kidney", 2: "tumour"}) == {"kidney": (1, 2), "tumour": (2,)}
    later = regions_of({1: "kidney", 2: "tumour", 3: "cyst"})
    assert later == {"kidney": (1, 2, 3), "masses": (2, 3), "tumour": (2,)}
