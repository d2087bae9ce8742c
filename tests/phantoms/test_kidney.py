"""The digital abdomens: same seed, same bits; right way up; CT numbers of tissues; breathing and labels."""

import functools
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from labkit.phantoms import breathing, kidney
from labkit.phantoms.kidney import (
    SPLITS,
    breathing_slices,
    kidney_patient,
    kidney_patients,
    make_patient,
    split,
)
from labkit.scans.hounsfield import WINDOW_HU, window
from labkit.scans.slices import to_volume

SEEDS = range(4)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A cache of our own; and each patient is drawn once, however often it is scanned."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_CACHE", str(folder))
        patch.setattr(kidney, "make_body", functools.cache(kidney.make_body))
        yield folder


@pytest.fixture(scope="module")
def cohort(cache):
    """Four patients in one breath-hold, all HU kept."""
    return [kidney_patient(seed, breathing=False, window_hu=None) for seed in SEEDS]


def test_a_patient_is_one_ct_channel_in_hu_and_says_it_is_synthetic(cohort):
    case = kidney_patient(1)
    assert case.image.shape == (1, 64, 96, 96) and case.image.dtype == np.float32
    assert case.label.shape == (64, 96, 96) and case.label.dtype == np.uint8
    assert case.spacing_mm == (3.0, 3.0, 3.0) and case.channels == ("CT",)
    assert case.synthetic and case.name == "kidney-0001 (synthetic)"
    assert case.label_names == {1: "kidney", 2: "tumour"}
    assert (case.image.min(), case.image.max()) == WINDOW_HU
    assert cohort[1].image.min() < -900 and cohort[1].image.max() > 350


def test_the_cached_patient_equals_the_patient_made_by_another_process(cache):
    made, read = kidney_patient(0), kidney_patient(0)
    code = (
        "import sys; from labkit.phantoms.kidney import kidney_patient; case = kidney_patient(0)\n"
        "sys.stdout.buffer.write(case.image.tobytes() + case.label.tobytes())"
    )
    env = {
        **os.environ,
        "LABKIT_CACHE": str(cache / "another"),
        "OMP_NUM_THREADS": "2",
        "PYTHONHASHSEED": "5",
    }
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=env).stdout
    assert (made.image == read.image).all() and (made.label == read.label).all()
    assert made.image.tobytes() + made.label.tobytes() == elsewhere


def test_breathing_changes_its_slices_and_nothing_else(cohort):
    for seed, still in zip(SEEDS, cohort, strict=True):
        moved = kidney_patient(seed, window_hu=None)
        assert (moved.label == still.label).all()
        changed = np.flatnonzero((moved.image != still.image).any((0, 2, 3)))
        assert tuple(changed) == breathing_slices(seed)
        assert 2 <= len(changed) <= 10 and np.diff(changed).min() > 1


def test_a_slice_out_of_place_shows_tumour_that_neither_it_nor_a_neighbour_has():
    counts = []
    tumour = np.zeros((64, 8, 8), bool)
    for row in range(20, 34):
        tumour[row, : 2 + min(row - 20, 33 - row)] = True
    area = tumour.sum((1, 2))
    hu = np.arange(64 * 64, dtype=np.float32).reshape(64, 8, 8)
    for seed in range(40):
        seen, breaths = breathing.breathe(np.random.default_rng(seed), hu, tumour, 3.0)
        slices = np.array([b.slice for b in breaths])
        counts.append(len(slices))
        assert np.diff(slices).min() > 1
        for b in breaths:
            assert (seen[b.slice] == hu[b.source]).all()
            assert not area[b.slice - 1 : b.slice + 2].any() and area[b.source] >= 0.4 * area.max()
            assert 9 <= 3 * abs(b.slice - b.source) <= 40
        assert (np.delete(seen, slices, 0) == np.delete(hu, slices, 0)).all()
    assert min(counts) >= 5 and max(counts) <= 10 and len(set(counts)) >= 3


def test_where_no_slice_is_far_enough_from_the_tumour_nothing_is_moved():
    hu, tumour = np.zeros((20, 4, 4), np.float32), np.ones((20, 4, 4), bool)
    seen, breaths = breathing.breathe(np.random.default_rng(0), hu, tumour, 3.0)
    assert breaths == () and (seen == hu).all()


def test_tissues_measure_what_the_literature_says(cohort):
    for case in cohort:
        hu = case.image[0]
        inner = ndimage.binary_erosion(case.label == 1)
        assert 130 < np.median(hu[inner]) < 215  # nephrographic phase
        core = case.label == 2
        core = ndimage.binary_erosion(core) if ndimage.binary_erosion(core).any() else core
        assert 15 < np.median(hu[core]) < 125
        assert (hu[:, :2] < -800).mean() > 0.95  # air in front of the patient
        assert 0.04 < ((hu > -125) & (hu < -80)).mean() < 0.4  # fat


def test_the_spine_lies_behind_the_liver_on_the_patients_right_and_the_gas_in_front(cohort):
    for case in cohort:
        hu = case.image[0]
        bone = ndimage.gaussian_filter(np.where(hu > 250, 1.0, 0), 1)
        assert np.argwhere(bone > 0.5)[:, 1].mean() > 52  # of 96 rows
        both = np.argwhere(case.label > 0)
        assert both[:, 1].mean() > 48 and (both[:, 2] < 40).any() and (both[:, 2] > 56).any()
        upper = ndimage.uniform_filter(hu[-12:], 5)
        soft = (upper > 80) & (upper < 140)
        assert soft[:, :48, :44].sum() > soft[:, :48, 52:].sum()
        belly = ndimage.binary_fill_holes(hu[20] > -300)
        gas = belly & (hu[20] < -600)
        if gas.sum() > 10:
            assert np.argwhere(gas)[:, 0].mean() < 50


def test_kidneys_and_tumours_have_realistic_sizes(cohort):
    kidneys, tumours = [], []
    for case in cohort:
        label = case.label
        kidneys.append((label > 0).sum() * 0.027)
        tumours.append((label == 2).sum() * 0.027)
        parts, n = ndimage.label(label > 0)
        sizes = np.sort(np.bincount(parts.ravel())[1:])[::-1]
        assert n >= 2 and sizes[1] * 0.027 > 60  # ml: two kidneys, apart
        for part in np.argsort(np.bincount(parts.ravel())[1:])[::-1][:2] + 1:
            heights = np.flatnonzero((parts == part).any((1, 2)))
            assert 85 <= 3 * (np.ptp(heights) + 1) <= 190  # mm
    assert all(180 < ml < 700 for ml in kidneys) and all(3 < ml < 320 for ml in tumours)


def test_another_grid_shows_the_same_patient(cohort):
    for spacing_mm in (2.0, 6.0):
        arrays = make_patient(2, spacing_mm, False)
        assert arrays["label"].shape == tuple(round(extent / spacing_mm) for extent in (192, 288, 288))
        ml = [(arrays["label"] == v).sum() * spacing_mm**3 / 1000 for v in (1, 2)]
        same = [(cohort[2].label == v).sum() * 0.027 for v in (1, 2)]
        np.testing.assert_allclose(ml, same, rtol=0.12)


def test_what_tumours_measure_other_tissue_measures_more_often():
    body = kidney.make_body(2)
    tumour = body.hu[body.tumour > 0.9]
    elsewhere = body.hu[(body.tumour + body.kidney < 0.01) & (body.hu > -50)]
    low, high = np.quantile(tumour, [0.2, 0.8])
    assert ((elsewhere > low) & (elsewhere < high)).sum() > len(tumour)


def test_after_the_window_air_is_background_and_fat_is_not(cohort):
    case = kidney_patient(0)
    volume = to_volume(case)
    assert (volume.image[:, 0][:, 0] == 0).all()
    fat = (case.image[0] > -115) & (case.image[0] < -90)
    assert volume.image[:, 0].numpy()[fat].max() < -0.5
    assert set(volume.target.unique().tolist()) == {0, 1, 2}


def test_splits_are_fixed_disjoint_and_as_large_as_promised():
    assert [len(SPLITS[name]) for name in ("train", "validation", "test")] == [40, 10, 20]
    assert len(set(sum(SPLITS.values(), ()))) == 70 and split("test")[0] == 50
    assert [case.name for case in kidney_patients("train", 2)] == [
        "kidney-0000 (synthetic)",
        "kidney-0001 (synthetic)",
    ]
    assert (kidney_patients("train", 1, breathing=False)[0].image != kidney_patient(0).image).any()
    assert (kidney_patient(0).label != kidney_patient(1).label).any()


@pytest.mark.parametrize("seed", [-1, 1.5, "7", None, True])
def test_a_seed_that_is_no_whole_number_is_refused(seed):
    with pytest.raises(ValueError, match="whole number from 0 upwards"):
        kidney_patient(seed)


@pytest.mark.parametrize("spacing", [0, 1, 9, float("nan")])
def test_a_spacing_that_is_out_of_range_is_refused(spacing):
    with pytest.raises(ValueError, match="between 1.5 and 6"):
        kidney_patient(0, spacing)


@pytest.mark.parametrize("ends", [(1, 0), (0,), (0, np.nan), 5, (0, 1, 2)])
def test_a_window_that_makes_no_sense_is_refused(ends):
    with pytest.raises(ValueError, match="window_hu must be the lowest and the highest"):
        window(np.zeros(3), ends)


@pytest.mark.parametrize("n", [0, -1, 41])
def test_more_patients_than_there_are_is_refused(n):
    with pytest.raises(ValueError, match="train has 40 patients, not"):
        kidney_patients("train", n)


def test_an_unknown_split_is_refused_with_the_names_there_are():
    with pytest.raises(ValueError, match="train, validation, test"):
        split("dev")
