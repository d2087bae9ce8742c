"""Small pictures made of arrays; slices are tested with the figures that show them."""

import numpy as np

from labkit.explore import pictures


def test_pictures_stand_beside_each_other_untouched_under_their_names():
    a, b = np.full((10, 20, 3), 7, np.uint8), np.full((10, 30, 3), 9, np.uint8)
    row = pictures.beside({"a": a, "b": b})
    assert (row[-10:, :20, :3] == 7).all() and (row[-10:, -30:, :3] == 9).all()
    assert (row[-10:, :20, 3] == 255).all() and (row[-10:, 20:-30, 3] == 0).all()


def test_names_stand_on_the_page_s_own_ground_light_or_dark():
    words = pictures.beside({"name": np.zeros((10, 90, 3), np.uint8)})[:22]
    assert words[..., 3].max() == 255 and (words[..., 3] == 0).mean() > 0.5
    assert (words[..., :3] == 117).all(), "no rim of another colour"


def test_bars_are_as_high_as_their_values_and_the_used_ones_filled():
    drawn = pictures.bars(np.array([4.0, 2.0, 1.0, 0.0]), used=2, size=(400, 120))
    blue = (drawn == pictures.BLUE).all(-1)
    heights = [blue[:, i * 100 + 50].sum() for i in range(2)]
    assert abs(heights[0] - 2 * heights[1]) <= 3
    assert blue[:, 250].sum() <= 3, "the third is hollow: its outline only"


def test_a_map_keeps_its_values_order_in_lightness():
    drawn = pictures.heat(np.array([[0.0, 0.5, 1.0]]), (10, 30)).astype(int)
    assert drawn.shape == (10, 30, 3)
    lightness = drawn[5].sum(-1)
    assert lightness[5] < lightness[15] < lightness[25]


def test_an_outline_is_white_on_black_and_leaves_the_rest_of_the_map():
    label = np.zeros((20, 20), np.uint8)
    label[5:15, 5:15] = 1
    plain = pictures.heat(np.ones((4, 4)), (80, 80))
    drawn = pictures.heat(np.ones((4, 4)), (80, 80), label)
    changed = (plain != drawn).any(-1)
    inside = pictures.border(np.kron(label, np.ones((4, 4), np.uint8)), 3)
    assert np.array_equal(changed, inside)
    assert {tuple(c) for c in drawn[changed].tolist()} == {(0, 0, 0), (255, 255, 255)}


def test_a_colour_bar_runs_from_0_below_to_1_above():
    drawn = pictures.with_colour_bar(np.zeros((60, 40, 3), np.uint8), ("no", "yes"))[..., :3].astype(int)
    bar = drawn[:, 40 + 8 + 7]
    assert drawn[:, :40].max() == 0 and drawn.shape[1] > 70
    assert bar[0].tolist() == [253, 231, 37] and bar[-1].tolist() == [68, 1, 84]
