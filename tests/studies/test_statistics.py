"""Intervals hold for other seeds and other patients: by simulation, where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from labkit.studies.statistics import contributions, difference, estimate

TRUTH = np.array([0.4, 0.7, 0.6])  # of three regions


def drawn(rng, seeds=3, patients=20, of_seeds=1.0, of_patients=5.0, rest=2.0, absent=0.0):
    """Scores (seeds, 3, patients) around TRUTH, in hundredths; a share of the patients lacks region 0."""
    y = rng.normal(0, of_seeds, (seeds, 1, 1)) + rng.normal(0, of_patients, (1, 1, patients))
    y = TRUTH[:, None] + (y + rng.normal(0, rest, (seeds, 3, patients))) / 100
    y[:, 0, rng.random(patients) < absent] = np.nan
    return y


@pytest.mark.parametrize(
    "how",
    [
        dict(),
        dict(of_seeds=0.0),
        dict(of_seeds=3.0),
        dict(of_seeds=5.0, of_patients=1.0, rest=1.0),
        dict(seeds=1, of_seeds=0.0),
        dict(seeds=5, patients=52),
        dict(absent=0.15),
    ],
)
def test_of_a_thousand_intervals_95_in_a_hundred_hold_the_truth(how):
    rng = np.random.default_rng(0)
    held = [abs((e := estimate(drawn(rng, **how))).mean - TRUTH.mean()) <= e.half for _ in range(1000)]
    assert 0.93 <= np.mean(held) <= 0.97


def test_patients_alone_would_hold_the_truth_far_less_often():
    """The control: seeds averaged before the interval is taken, as is often done."""
    rng = np.random.default_rng(0)
    held = []
    for _ in range(200):
        of_patients = drawn(rng, of_seeds=3.0).mean((0, 1))
        half = stats.t.ppf(0.975, 19) * of_patients.std(ddof=1) / np.sqrt(20)
        held.append(abs(of_patients.mean() - TRUTH.mean()) <= half)
    assert np.mean(held) < 0.85


def test_with_one_seed_the_interval_is_students_over_patients():
    a, b = np.array([[[0.8, 0.6, 0.9, 0.7]]]), np.array([[[0.78, 0.56, 0.88, 0.62]]])
    apart = difference(a, b)
    interval = stats.ttest_rel(a.ravel(), b.ravel()).confidence_interval()
    assert (apart.low, apart.high) == pytest.approx(tuple(interval)) and apart.seeds == 1


def test_a_difference_is_taken_over_the_seeds_that_both_have():
    rng = np.random.default_rng(0)
    a, b = drawn(rng), drawn(rng)
    assert difference(a, b[:2]) == difference(a[:2], b[:2])
    assert difference(a, a) == estimate(np.zeros((3, 3, 20)))


def test_what_patients_add_has_the_mean_over_regions_of_the_patients_who_have_them():
    values = drawn(np.random.default_rng(0), absent=0.3)
    assert np.isnan(values).any()
    assert contributions(values).mean() == pytest.approx(np.nanmean(values, axis=(0, 2)).mean())
    whole = values[:, 1:]
    assert contributions(whole).mean(0) == pytest.approx(whole.mean((0, 1)))


def test_a_region_that_nobody_has_is_left_out():
    values = drawn(np.random.default_rng(0))
    values[:, 0] = np.nan
    assert estimate(values).mean == pytest.approx(values[:, 1:].mean())
