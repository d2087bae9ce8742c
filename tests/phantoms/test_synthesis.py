"""The organ-free pieces of a digital patient do what their names say."""

import numpy as np
import pytest

from labkit.phantoms.shapes import box_of
from labkit.phantoms.synthesis import (
    bias_field,
    grid_mm,
    largest,
    paint_balls,
    pressure_warp,
    regrid,
    rician,
    sample,
    smooth_field,
    spread,
    wandering_path,
)

SHAPE = (40, 48, 48)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_a_smooth_field_has_unit_variance_and_its_scale(rng):
    fine, coarse = (
        np.stack([smooth_field(rng, SHAPE, 2.0, scale) for _ in range(20)]) for scale in (5.0, 20.0)
    )
    assert fine.std() == pytest.approx(1, abs=0.05) and coarse.std() == pytest.approx(1, abs=0.15)
    assert np.diff(fine, axis=1).std() > 3 * np.diff(coarse, axis=1).std()


def test_a_field_is_the_same_on_a_finer_grid():
    coarse = smooth_field(np.random.default_rng(1), (20, 20, 20), 4.0, 16.0)
    fine = smooth_field(np.random.default_rng(1), (40, 40, 40), 2.0, 16.0)
    means = fine.reshape(20, 2, 20, 2, 20, 2).mean((1, 3, 5))
    assert np.abs(means - coarse).max() < 0.1


def test_pressure_points_away_from_the_mass_and_has_length_one_at_most():
    mass = np.linalg.norm(grid_mm(SHAPE, 2.0), axis=0) < 10
    push = pressure_warp(mass, 2.0, reach_mm=8)
    assert np.sqrt((push**2).sum(0)).max() == pytest.approx(1)
    assert push[0, 28, 24, 24] > 0 > push[0, 12, 24, 24]


def test_sampling_at_the_voxels_gives_the_voxels(rng):
    volume = rng.random((5, 6, 7), dtype=np.float32)
    where = np.stack(np.meshgrid(*map(np.arange, volume.shape), indexing="ij")).astype(np.float32)
    np.testing.assert_allclose(sample(volume, where), volume)


@pytest.mark.parametrize("shape, to_mm", [((20, 24, 24), 4.0), ((80, 96, 96), 1.0), ((27, 32, 32), 3.0)])
def test_another_grid_holds_the_same_things_in_the_same_places(shape, to_mm):
    ball = np.clip(
        13 - np.linalg.norm(grid_mm(SHAPE, 2.0) - np.reshape([4, -8, 10], (3, 1, 1, 1)), axis=0), 0, 1
    )
    moved = regrid(ball, 2.0, shape, to_mm)
    assert moved.shape == shape and moved.sum() * to_mm**3 == pytest.approx(ball.sum() * 8, rel=0.01)
    centre = (grid_mm(shape, to_mm) * moved).sum((1, 2, 3)) / moved.sum()
    np.testing.assert_allclose(centre, [4, -8, 10], atol=0.1)


def test_a_coarse_grid_averages_noise_and_does_not_pick_voxels(rng):
    noise = rng.standard_normal((40, 40, 40), dtype=np.float32)
    assert regrid(noise, 2.0, (20, 20, 20), 4.0)[2:-2, 2:-2, 2:-2].std() < 0.4


def test_growth_starts_at_the_seed_stops_at_walls_and_at_its_volume():
    mobility = np.ones((3, 30, 30, 30), np.float32)
    mobility[:, 20] = 0
    start = np.zeros((30, 30, 30), np.float32)
    start[12, 15, 15] = 1
    history = spread(mobility, start, 2.0, volume_mm3=8_000)
    assert np.unravel_index(history.argmax(), history.shape) == (12, 15, 15)
    assert (history[20:] == 0).all() and history[19].max() > 0
    assert 1000 <= (history > 0.5).sum() < 20_000


def test_growth_prefers_the_easy_direction():
    mobility = np.full((3, 40, 40, 40), 0.1, np.float32)
    mobility[1] = 1.0
    start = np.zeros((40, 40, 40), np.float32)
    start[20, 20, 20] = 1
    reached = np.argwhere(largest(spread(mobility, start, 2.0, 20_000), 2000))
    assert np.ptp(reached[:, 1]) > 1.5 * np.ptp(reached[:, 0])


def test_a_path_of_balls_is_a_tube_of_its_radius(rng):
    volume = np.zeros(SHAPE, np.float32)
    path = wandering_path(rng, np.array([-20.0, 0, 0]), np.array([1.0, 0, 0]), 40)
    assert np.linalg.norm(np.diff(path, axis=0), axis=1) == pytest.approx(1)
    paint_balls(volume, path, np.full(len(path), 4.0), 2.0)
    areas = volume.sum((1, 2))[12:28] * 4
    assert 0.7 * np.pi * 16 < areas.mean() < 1.8 * np.pi * 16
    assert volume.min() == 0 and volume.max() == 1


def test_the_box_of_a_mask_holds_all_of_it_and_no_more():
    mask = np.zeros((6, 7, 8), bool)
    mask[1, 2, 7] = mask[4, 3, 0] = True
    assert box_of(mask) == np.s_[1:5, 2:4, 0:8]


def test_balls_outside_the_volume_are_left_out():
    volume = np.zeros((10, 10, 10), np.float32)
    paint_balls(volume, np.array([[500.0, 0, 0], [-500.0, 0, 0]]), np.array([3.0, 3.0]), 2.0)
    assert not volume.any()


def test_rician_noise_is_positive_with_the_rayleigh_mean_in_the_background(rng):
    noisy = rician(rng, np.zeros(100_000, np.float32), 2.0)
    assert noisy.min() >= 0 and noisy.mean() == pytest.approx(2 * np.sqrt(np.pi / 2), rel=0.02)
    assert rician(rng, np.full(100_000, 100, np.float32), 2.0).std() == pytest.approx(2, rel=0.02)


def test_a_bias_field_is_smooth_and_around_one(rng):
    field = bias_field(rng, SHAPE, 4.0, 0.1)
    assert 0.6 < field.min() < 1 < field.max() < 1.6 and np.abs(np.diff(field, axis=0)).max() < 0.05
