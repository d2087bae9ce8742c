"""Small pictures made of arrays; slices are tested with the figures that show them."""

import numpy as np

from labkit.explore import pictures


def test_pictures_stand_beside_each_other_untouched_under_their_names():
    a, b = np.full((10, 20, 3), 7, np.uint8), np.full((10, 30, 3), 9, np.uint8)
    row = pictures.beside({"a": a, "b": b})
    assert (row[-10:, :20] == 7).all() and (row[-10:, -30:] == 9).all() and (row[:22] != 255).any()


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
