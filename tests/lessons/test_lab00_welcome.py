"""Lab 00: right answers that look unlike ours pass, and what a student reads when one is wrong."""

from __future__ import annotations

import numpy as np
import pytest

from labkit.lessons import check, exercises

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
