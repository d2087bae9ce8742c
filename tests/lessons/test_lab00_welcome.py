"""Lab 00: right answers that look unlike ours pass, and what a student reads when one is wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from labkit.lessons import check, exercises
from labkit.phantoms.mri_signal import TISSUES, inversion_recovery

EXERCISES = exercises("00")


def dice_by_products(prediction, truth):
    both = (prediction * truth).sum()
    return 1 if not prediction.any() and not truth.any() else both / ((prediction.sum() + truth.sum()) / 2)


def dice_with_a_tiny_number(prediction, truth):
    tiny = 1e-8
    return (2 * (prediction & truth).sum() + tiny) / (prediction.sum() + truth.sum() + tiny)


def regions_by_exclusion(label):
    return {"TC": (label > 0) & (label != 2), "ET": label > 2, "WT": label != 0}


def millilitres_by_centimetres(label, spacing_mm):
    return sum(v > 0 for v in label.ravel().tolist()) * np.prod(np.array(spacing_mm) / 10)


@pytest.mark.parametrize(
    "name, answer",
    [
        ("dice", dice_by_products),
        ("dice", dice_with_a_tiny_number),
        ("regions", regions_by_exclusion),
        ("tumour_ml", millilitres_by_centimetres),
    ],
)
def test_a_right_answer_passes_however_it_is_written(name, answer):
    feedback = check(name, EXERCISES[name], answer)
    assert feedback, str(feedback)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_dice_that_forgets_the_empty_masks_meets_them_as_its_counter_example():
    feedback = check("dice", EXERCISES["dice"], lambda p, t: 2 * (p & t).sum() / (p.sum() + t.sum()))
    assert "nothing there, nothing found" in str(feedback) and feedback.misconception.startswith("Two empty")


def test_regions_that_do_not_nest_are_told_the_voxel_that_shows_it():
    feedback = check(
        "regions", EXERCISES["regions"], lambda label: {"ET": label == 4, "WT": label == 2, "TC": label == 1}
    )
    assert "label 4 is in ET but not in TC" in str(feedback) and "overlap" in feedback.misconception


@pytest.mark.parametrize(
    "core",
    [
        lambda label: label == 1 | label == 4,
        lambda label: label == 1 or label == 4,
        lambda label: (label == 1) or (label == 4),
    ],
)
def test_regions_without_brackets_are_told_of_brackets_and_not_of_any_and_all(core):
    feedback = check("regions", EXERCISES["regions"], lambda label: {"ET": label == 4, "TC": core(label)})
    assert "need brackets" in feedback.misconception


@pytest.mark.parametrize("small", [1e-3, 1e-5, 1e-6])
def test_a_small_number_above_and_below_does_not_pass_and_is_named(small):
    feedback = check(
        "dice", EXERCISES["dice"], lambda p, t: (2 * (p & t).sum() + small) / (p.sum() + t.sum() + small)
    )
    assert not feedback and "small number above and below" in feedback.misconception


@pytest.mark.parametrize("wrap", [np.asarray, torch.tensor])
@pytest.mark.parametrize("name", ["dice", "tumour_ml"])
def test_a_number_in_an_array_is_told_how_to_become_one(name, wrap):
    answer = EXERCISES[name].reference
    feedback = check(name, EXERCISES[name], lambda *inputs: wrap(answer(*inputs)))
    assert not feedback and "`.item()` makes a plain number" in str(feedback)


def test_FLAIR_shows_oedema_brighter_than_white_matter_and_fluid_though_its_inversion_alone_does_not():
    """What section 3 of the lab draws and says, by the equations that the patients are made with."""
    signal = {}
    for name in ("white", "oedema", "csf"):
        tissue = TISSUES[name]
        rates = tissue.pd, 1 / tissue.t1_ms, 1 / tissue.t2_ms
        signal[name] = [inversion_recovery(*rates, tr_ms=9000, te_ms=te, ti_ms=2400) for te in (0, 130)]
    at_once, late = ({name: s[i] for name, s in signal.items()} for i in (0, 1))
    assert at_once["csf"] < at_once["oedema"] < at_once["white"]
    assert late["csf"] < late["white"] < late["oedema"]
