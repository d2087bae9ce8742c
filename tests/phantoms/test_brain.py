"""The digital brain patients: same seed, same bits; right way up; tumours and what imitates them."""

import functools
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from labkit.phantoms import brain
from labkit.phantoms.body import on_grid
from labkit.phantoms.brain import SPLITS, brain_patient, brain_patients, ghost_slices, make_patient, split

# Mean of each class over the mean of normal-appearing brain in one real case: T1, T1ce, T2, FLAIR.
REAL = {1: (0.54, 0.68, 2.39, 1.76), 2: (0.87, 0.83, 1.79, 2.09), 4: (0.65, 1.60, 2.15, 2.01)}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A cache of our own; and each patient is grown once, however often it is scanned."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_CACHE", str(folder))
        patch.setattr(brain, "make_body", functools.cache(brain.make_body))
        yield folder


@pytest.fixture(scope="module")
def bodies(cache):
    return [brain.make_body(seed) for seed in range(12)]


@pytest.fixture(scope="module")
def cohort(bodies):
    """Six patients, ghosts included: fractions, image, label."""
    scans = [make_patient(seed, 2.0, moving=True) for seed in range(6)]
    return [(body.fractions, scan["image"], scan["label"]) for body, scan in zip(bodies, scans, strict=False)]


def brain_of(fractions):
    return fractions["white"] + fractions["grey"] > 0.5


def test_a_patient_has_four_contrasts_on_a_two_millimetre_grid_and_says_it_is_synthetic():
    case = brain_patient(7)
    assert case.image.shape == (4, 80, 96, 96) and case.image.dtype == np.float32
    assert case.label.shape == (80, 96, 96) and case.label.dtype == np.uint8
    assert case.spacing_mm == (2.0, 2.0, 2.0) and case.channels == ("T1", "T1ce", "T2", "FLAIR")
    assert case.synthetic and case.name == "brain-0007 (synthetic)" and set(case.label_names) == {1, 2, 4}
    assert set(np.unique(case.label)) <= {0, 1, 2, 4}


def test_the_cached_patient_equals_the_patient_made_by_another_process(cache):
    made, read = brain_patient(3, spacing_mm=4), brain_patient(3, spacing_mm=4)
    (cache / "another").mkdir()
    for template in cache.glob("brain-template-*.npz"):  # takes long to read, and is no patient
        shutil.copy(template, cache / "another")
    code = (
        "import sys; from labkit.phantoms.brain import brain_patient; case = brain_patient(3, 4)\n"
        "sys.stdout.buffer.write(case.image.tobytes() + case.label.tobytes())"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        env={
            **os.environ,
            "LABKIT_CACHE": str(cache / "another"),
            "OMP_NUM_THREADS": "2",
            "PYTHONHASHSEED": "5",
        },
    ).stdout
    expected = made.image.tobytes() + made.label.tobytes()
    assert expected == read.image.tobytes() + read.label.tobytes()
    assert expected == elsewhere


def test_a_coarse_grid_shows_the_same_patient(bodies):
    for body in bodies:
        coarse = labels_on(body, 4.0)
        twice = coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2)  # each coarse voxel covers 2 x 2 x 2 fine ones
        both = ((twice > 0) & (body.label > 0)).sum()
        assert 2 * both / ((twice > 0).sum() + (body.label > 0).sum()) > 0.8
        assert set(np.unique(coarse)) == set(np.unique(body.label))
        assert (coarse > 0).sum() * 0.064 == pytest.approx((body.label > 0).sum() * 0.008, rel=0.1)


@pytest.mark.parametrize("spacing_mm", [1.0, 1.5, 3.0])
def test_every_grid_has_its_shape_and_the_same_millilitres(bodies, spacing_mm):
    label = labels_on(bodies[0], spacing_mm)
    assert label.shape == tuple(round(extent / spacing_mm) for extent in (160, 192, 192))
    ml = (label > 0).sum() * spacing_mm**3 / 1000
    assert ml == pytest.approx((bodies[0].label > 0).sum() * 0.008, rel=0.1)


def test_a_scan_on_a_coarse_grid_says_so_and_shows_the_same_brain():
    fine, coarse = brain_patient(5, ghosts=False), brain_patient(5, 4.0, ghosts=False)
    assert coarse.spacing_mm == (4.0, 4.0, 4.0) and coarse.image.shape == (4, 40, 48, 48)
    means = fine.image.reshape(4, 40, 2, 48, 2, 48, 2).mean((2, 4, 6))
    inside = (coarse.image > 0).all(0) & (means > 0).all(0)
    assert (coarse.image > 0).all(0).sum() == pytest.approx((fine.image > 0).all(0).sum() / 8, rel=0.03)
    for one, other in zip(means, coarse.image, strict=True):
        assert np.corrcoef(one[inside], other[inside])[0, 1] > 0.8


def labels_on(body, spacing_mm):
    return on_grid(replace(body, fractions={}), spacing_mm).label


def test_ghosts_change_their_slices_and_nothing_else():
    for seed, spacing_mm in ((2, 2.0), (4, 2.0), (4, 4.0)):
        moving, still = brain_patient(seed, spacing_mm), brain_patient(seed, spacing_mm, ghosts=False)
        assert (moving.label == still.label).all()
        changed = np.flatnonzero((moving.image != still.image).any((0, 2, 3)))
        assert tuple(changed) == ghost_slices(seed, spacing_mm)
        assert 8 <= len(changed) <= 14 and np.diff(changed).min() > 1


def test_a_ghost_is_as_bright_as_the_tumour_and_lies_off_it_inside_the_brain():
    moving, still = brain_patient(4), brain_patient(4, ghosts=False)
    flair, without = moving.image[3], still.image[3]
    where = flair > 1.5 * without
    where &= ndimage.uniform_filter(where.astype(float), (0, 5, 5)) > 0.6  # single voxels are noise
    assert not (where & (moving.label > 0)).any() and (without[where] > 0).all()
    assert ((flair > 0) == (without > 0)).all()
    assert flair[where].mean() > 0.8 * flair[moving.label == 2].mean()
    for s in ghost_slices(4):
        assert where[s].sum() * 0.04 > 1.5  # cm2
        assert not where[[s - 1, s + 1]].any()


def test_different_seeds_are_different_patients():
    assert (brain_patient(3, 4).label != brain_patient(4, 4).label).any()
    assert (brain_patient(3, 4).image != brain_patient(4, 4).image).mean() > 0.1


def test_the_brain_lies_inside_the_grid_and_near_its_centre(cohort):
    for _, image, _ in cohort:
        inside = (image > 0).all(0)
        assert (inside == (image > 0).any(0)).all()
        where = np.argwhere(inside)
        assert (where.min(0) > 0).all() and (where.max(0) < np.array(inside.shape) - 1).all()
        assert np.abs((where.min(0) + where.max(0) + 1) / 2 - np.array(inside.shape) / 2).max() <= 3


def test_the_lowest_slices_are_the_cerebellum_which_lies_behind(cohort):
    for _, image, _ in cohort:
        inside = image[0] > 0
        low, high = np.flatnonzero(inside.any((1, 2)))[[4, -5]]
        rows = np.argwhere(inside.any((0, 2))).mean()
        assert np.argwhere(inside[low])[:, 0].mean() > rows + 5  # row 0 is anterior
        assert inside[low].sum() > 0 and inside[high].sum() > 0


def test_class_intensities_relative_to_normal_brain_resemble_a_real_case(cohort):
    for value, real in REAL.items():
        relative = [
            image[:, label == value] / image[:, brain_of(fractions) & (label == 0)].mean(1, keepdims=True)
            for fractions, image, label in cohort
        ]
        np.testing.assert_allclose(np.concatenate(relative, 1).mean(1), real, rtol=0.25)


def test_no_single_contrast_separates_the_classes(cohort):
    flair = [image[3] / image[3][brain_of(f) & (label == 0)].mean() for f, image, label in cohort]
    oedema = np.concatenate([x[label == 2] for x, (_, _, label) in zip(flair, cohort, strict=True)])
    lesion = np.concatenate(
        [x[(f["lesion"] > 0.6) & (label == 0)] for x, (f, _, label) in zip(flair, cohort, strict=True)]
    )
    core = np.concatenate([x[label == 1] for x, (_, _, label) in zip(flair, cohort, strict=True)])
    assert (lesion > np.quantile(oedema, 0.1)).mean() > 0.4
    assert np.quantile(oedema, 0.25) < np.median(core) < np.quantile(oedema, 0.9)


def test_cerebrospinal_fluid_is_bright_on_t2_and_dark_on_flair(cohort):
    for fractions, image, label in cohort:
        normal = image[:, brain_of(fractions) & (label == 0)].mean(1)
        fluid = image[:, (fractions["csf"] > 0.9) & (label == 0)].mean(1)
        assert fluid[2] > 1.8 * normal[2] and fluid[3] < 0.4 * normal[3]


def test_veins_enhance_like_the_rim_are_not_labelled_and_cross_slices(cohort):
    enhancing, veins = [], []
    for fractions, image, label in cohort:
        normal = image[1][brain_of(fractions) & (label == 0)].mean()
        blood = fractions["blood"] > 0.5
        enhancing.append(image[1][label == 4] / normal)
        veins.append(image[1][fractions["blood"] > 0.9] / normal)
        assert not (blood & (label == 4)).any()
        tubes, count = ndimage.label(blood, np.ones((3, 3, 3)))
        heights = [np.ptp(np.flatnonzero((tubes == i).any((1, 2)))) + 1 for i in range(1, count + 1)]
        assert sum(height >= 5 for height in heights) >= 5  # tubes of at least 10 mm
        dots, areas = np.unique(ndimage.label(blood[45])[0], return_counts=True)
        assert len(dots) > 3 and np.median(areas[1:]) <= 12  # dots in one slice
    assert np.concatenate(veins).mean() == pytest.approx(np.concatenate(enhancing).mean(), rel=0.15)


def test_tumours_are_of_realistic_and_different_sizes(bodies):
    whole = np.array([(body.label > 0).sum() * 0.008 for body in bodies])  # ml
    assert whole.min() > 20 and whole.max() < 200
    assert np.quantile(whole, 0.9) > 2.5 * np.quantile(whole, 0.1)


def test_the_core_lies_inside_oedema_and_the_enhancing_rim_around_the_necrosis(cohort):
    for _, _, label in cohort:
        core = np.isin(label, (1, 4))
        assert 0.1 < core.sum() / (label > 0).sum() < 0.8
        if (label == 4).any():
            depth = ndimage.distance_transform_edt(core)
            assert depth[label == 4].mean() < depth[label == 1].mean()


def test_tumours_spare_the_fluid(cohort):
    for fractions, _, label in cohort:
        fluid_ml = (fractions["csf"] * (label > 0)).sum() * 0.008
        assert fluid_ml < 0.06 * (label > 0).sum() * 0.008


def test_some_patients_do_not_enhance_and_some_have_several_foci(bodies):
    silent = sum(not (body.label == 4).any() for body in bodies)
    several = sum(
        (np.bincount(ndimage.label(np.isin(body.label, (1, 4)))[0].ravel())[1:] >= 4).sum() > 1
        for body in bodies
    )
    assert 1 <= silent <= 4 and 1 <= several <= 4  # of 12


def test_the_tissue_of_every_brain_voxel_adds_up_to_one(cohort):
    for fractions, image, _ in cohort:
        total = sum(fractions.values())
        np.testing.assert_allclose(total[image[0] > 0], 1, atol=1e-4)
        assert all(part.min() >= 0 for part in fractions.values())


def test_splits_are_fixed_disjoint_and_as_large_as_promised():
    assert [len(SPLITS[name]) for name in ("train", "validation", "test")] == [40, 10, 20]
    assert len(set(sum(SPLITS.values(), ()))) == 70
    assert split("test")[0] == 50
    assert split("validation")[0] == 40
    assert [case.name for case in brain_patients("train", 2, 4)] == [
        "brain-0000 (synthetic)",
        "brain-0001 (synthetic)",
    ]
    still = brain_patients("train", 2, 4, ghosts=False)
    assert all((case.image == brain_patient(i, 4, ghosts=False).image).all() for i, case in enumerate(still))


@pytest.mark.parametrize("seed", [-1, 1.5, "7", None, True])
def test_a_seed_that_is_no_whole_number_is_refused(seed):
    with pytest.raises(ValueError, match="whole number from 0 upwards"):
        brain_patient(seed)


@pytest.mark.parametrize("spacing", [0, 0.5, 9, float("nan")])
def test_a_spacing_that_is_out_of_range_is_refused(spacing):
    with pytest.raises(ValueError, match="between 1 and 4"):
        brain_patient(0, spacing)


def test_an_unknown_split_is_refused_with_the_names_there_are():
    with pytest.raises(ValueError, match="train, validation, test"):
        split("dev")


@pytest.mark.parametrize("n", [0, -1, 41])
def test_more_patients_than_there_are_is_refused(n):
    with pytest.raises(ValueError, match="train has 40 patients, not"):
        brain_patients("train", n)
