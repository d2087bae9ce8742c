"""The control without a network, on volumes whose best band is known."""

from __future__ import annotations

import numpy as np
import pytest

from labkit.scans.case import Case
from labkit.scans.slices import to_volume
from labkit.training.threshold import best_bands, dices_of_bands, evaluate_bands, in_bins


def volume(seed=0, low=2.0, high=3.0, there=True):
    """One channel of noise; the label is all that is between two of its intensities."""
    image = np.random.default_rng(seed).normal(size=(1, 4, 30, 30)).astype(np.float32)
    label = ((image[0] >= low) & (image[0] < high)).astype(np.uint8) * there
    return to_volume(Case(f"case {seed}", image, label, (1.0, 1.0, 1.0), ("x",), {1: "thing"}))


def test_the_band_that_made_the_label_is_found_and_finds_it_in_others():
    bands = best_bands([volume(0, low=0.5, high=1.5), volume(1, low=0.5, high=1.5)])
    assert bands["thing"].low == pytest.approx(0.5, abs=0.11)
    assert bands["thing"].high == pytest.approx(1.5, abs=0.11)
    (row,) = evaluate_bands(bands, [volume(2, low=0.5, high=1.5)], lesions=True)
    assert row["dice"] > 0.9 and "lesion_dice" in row


def test_every_band_is_scored_as_if_it_were_drawn():
    one = volume(0, low=0.5, high=1.5)
    dices = dices_of_bands(in_bins(one, 0), one.case.label == 1)
    from labkit.training.threshold import Band, edge

    for low, high in ((0, dices.shape[1] - 1), (45, 60), (3, 4)):
        band = Band(0, edge(low), edge(high))
        marked, true = band(one), one.case.label == 1
        expected = 2 * (marked & true).sum() / (marked.sum() + true.sum())
        assert dices[low, high] == pytest.approx(expected)
    assert (dices[np.tril_indices(len(dices))] == 0).all()


def test_patients_without_the_region_have_no_say_and_nobody_having_it_is_an_error():
    with_it = best_bands([volume(0, 0.5, 1.5)])
    assert best_bands([volume(0, 0.5, 1.5), volume(1, there=False)]) == with_it
    with pytest.raises(ValueError, match="No patient to train on has the region thing"):
        best_bands([volume(1, there=False)])
