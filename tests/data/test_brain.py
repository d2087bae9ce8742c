"""The digital brain patients: same seed, same bits; right way up; tumours and what imitates them."""

import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from labkit.data import brain
from labkit.data.brain import SPLITS, brain_patient, brain_patients, make_patient, make_tissue, split

# Mean of each class over the mean of normal-appearing brain in one real case: T1, T1ce, T2, FLAIR.
REAL = {1: (0.54, 0.68, 2.39, 1.76), 2: (0.87, 0.83, 1.79, 2.09), 4: (0.65, 1.60, 2.15, 2.01)}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def cohort():
    """Six patients: fractions, image, label."""
    return [(make_tissue(seed, 2.0)[0], *make_patient(seed, 2.0)) for seed in range(6)]


@pytest.fixture(scope="module")
def small_cohort():
    """The training patients' labels and fractions on a coarse, fast grid."""
    return [make_tissue(seed, 4.0) for seed in split("train")]


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
    code = (
        "import sys; from labkit.data.brain import brain_patient; case = brain_patient(3, 4)\n"
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


def test_columns_run_from_the_patients_right_to_left():
    from nilearn.datasets import load_mni152_wm_template

    world = load_mni152_wm_template(resolution=1)
    voxel = np.linalg.inv(world.affine) @ (
        30,
        -20,
        30,
        1,
    )  # 30 mm to the right, 20 behind, 30 above the origin
    x, y, z = np.round(voxel[:3]).astype(int)
    ours = brain.template()["white"][z + 3, world.shape[1] - 1 - y - 22, world.shape[0] - 1 - x - 2]
    assert ours == pytest.approx(world.get_fdata()[x, y, z], abs=0.005)
    assert world.shape[0] - 1 - x - 2 < 96


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


def test_tumours_are_of_realistic_and_different_sizes(small_cohort):
    whole = np.array([(label > 0).sum() * 0.064 for _, _, label in small_cohort])  # ml
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


def test_some_patients_do_not_enhance_and_some_have_several_foci(small_cohort):
    silent = sum(not (label == 4).any() for _, _, label in small_cohort)
    several = sum(
        (np.bincount(ndimage.label(np.isin(label, (1, 4)))[0].ravel())[1:] >= 4).sum() > 1
        for _, _, label in small_cohort
    )
    assert 2 <= silent <= 12 and 2 <= several <= 16


def test_the_tissue_of_every_brain_voxel_adds_up_to_one(cohort):
    for fractions, image, _ in cohort:
        total = sum(fractions.values())
        np.testing.assert_allclose(total[image[0] > 0], 1, atol=1e-4)
        assert all(part.min() >= 0 for part in fractions.values())


def test_splits_are_fixed_disjoint_and_as_large_as_promised():
    assert [len(SPLITS[name]) for name in ("train", "validation", "test")] == [40, 10, 20]
    assert len(set(sum(SPLITS.values(), ()))) == 70
    assert split("test")[0] == 50
    assert [case.name for case in brain_patients("validation", 2, 4)] == [
        "brain-0040 (synthetic)",
        "brain-0041 (synthetic)",
    ]


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
