"""The picture of every explorer: its words, its wheel and its click, as the kernel sees them."""

import importlib.resources
import re

import ipywidgets as widgets
import numpy as np
import pytest

from labkit.explore import pictures
from labkit.explore.live import LivePicture
from labkit.explore.rank import RankExplorer
from labkit.explore.shown import _inside
from labkit.explore.viewer import viewer


def test_the_wheel_moves_the_slider_and_the_slider_tells_the_picture_its_ends():
    picture, slider = LivePicture(), widgets.IntSlider(value=3, max=9)
    picture.follow(slider)
    assert (picture.index, picture.last) == (3, 9)
    picture.index = 4  # what the browser sets at a notch
    assert slider.value == 4
    slider.max, slider.value = 5, 5
    assert (picture.index, picture.last) == (5, 5)


def test_its_script_lies_in_the_package():
    script = importlib.resources.files("labkit.explore").joinpath("live.js").read_text()
    assert script == str(LivePicture()._esm) and not re.search(r"https?://|import ", script), "works offline"


def test_every_picture_of_an_explorer_has_words_for_a_screen_reader(ct, monkeypatch):
    monkeypatch.setenv("LABKIT_HEADLESS", "1")
    opened = RankExplorer([ct])
    found = [one for one in _inside(opened) if isinstance(one, LivePicture)]
    assert len(found) == 2 and not [one for one in _inside(opened) if isinstance(one, widgets.Image)]
    assert all(one.alt for one in found)
    before = opened.image.alt
    assert opened.said.value.find(before.split("Slice")[1][:10]) > 0
    opened.rank.value = 4
    assert opened.image.alt.startswith("Rank 4 of") and opened.image.alt != before
    assert "4 of 16" in opened.spectrum.alt
    assert "Whole patient" not in opened.image.alt, "that stands beside it"


def test_a_click_on_the_wheel_s_picture_is_offered_where_it_does_something(case, ct, monkeypatch):
    monkeypatch.setenv("LABKIT_HEADLESS", "1")
    assert viewer(case).image.clickable and not RankExplorer([ct]).image.clickable


def click(widget, x, y):
    """What the browser says of a click."""
    widget.image._handle_custom_msg({"click": [x, y]}, [])


@pytest.fixture
def seen(case):
    return viewer(case)


def test_a_click_lays_a_cross_and_the_other_planes_open_there(seen, case):
    plain = seen.image.value
    click(seen, 35.5 / 96, 40.5 / 96)
    assert seen.cross == (1, 40, 35) and seen.image.value != plain
    value = case.image[seen.channel.value, 1, 40, 35]
    assert f"At the cross: FLAIR {value:.4g}, enhancing tumour." in seen.words.value
    assert "At the cross" in seen.image.alt
    seen.plane.value = "coronal"
    assert seen.slice.value == 40 and seen.cross == (1, 40, 35)
    seen.plane.value = "sagittal"
    assert seen.slice.value == 35
    seen.slice.value = 60
    assert seen.cross == (1, 40, 60), "it moves along"
    seen.plane.value = "axial"
    assert seen.slice.value == 1
    click(seen, 60.5 / 96, 40.5 / 96)
    assert seen.cross is None and seen.image.value == plain and "cross" not in seen.words.value


def test_in_a_plane_that_is_shown_from_below_a_click_finds_its_voxel():
    shape = (8, 20, 12)
    for plane in pictures.PLANES.values():
        for voxel in np.ndindex(shape):
            x, y = plane.place(shape, voxel)
            assert plane.voxel(shape, voxel[plane.axis], x, y) == voxel
    image = np.zeros(shape)
    image[6, 4, 3] = 1
    coronal = pictures.PLANES["coronal"]
    rows, columns = np.nonzero(coronal.cut(image, 4))
    assert coronal.voxel(shape, 4, (columns[0] + 0.5) / 12, (rows[0] + 0.5) / 8) == (6, 4, 3)
    assert coronal.voxel(shape, 4, 1.0, 1.0) == (0, 4, 11), "the last pixel is inside"


def test_the_lines_meet_at_the_place_and_leave_it_free():
    drawn = pictures.crossed(np.full((100, 200, 3), 90, np.uint8), 0.25, 0.5)
    assert (drawn[50, 50] == 90).all() and (drawn[50, 150] == 255).all() and (drawn[5, 50] == 255).all()
