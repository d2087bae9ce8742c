import io
import json
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from labkit.explore import drawings, pictures, plots
from labkit.scans.case import Case

BRATS = {1: "necrotic core", 2: "oedema", 4: "enhancing tumour"}
GREY = {"black": 0.0, "white": 1.0, "px_per_mm": 1.0}

# What a person without the middle or the long cones sees, on linear RGB (Viénot, Brettel and Mollon, 1999,
# Color Res Appl 24:243)
BLINDNESS = {
    "none": np.eye(3),
    "deuteranopia": np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]),
    "protanopia": np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]),
}
RGB_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lightness_and_hue(colour, cones):
    """CIELAB of a colour as seen."""
    linear = np.clip(cones @ (np.array(colour) / 255) ** 2.2, 0, 1)
    x, y, z = np.cbrt(RGB_TO_XYZ @ linear / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def a_case(label_names=BRATS, synthetic=True, spacing_mm=(3.0, 1.0, 2.0)):
    """A box of labels in a small volume of unequal sides and spacings."""
    label = np.zeros((6, 20, 14), np.uint8)
    for i, value in enumerate(label_names):
        label[1:5, 4 + 3 * i : 7 + 3 * i, 3:9] = value
    label[2, 4:7, 9] = next(iter(label_names))  # so that one slice is the fullest
    image = np.random.default_rng(0).uniform(0, 100, (2, *label.shape)).astype(np.float32)
    return Case("patient", image, label, spacing_mm, ("T1", "FLAIR"), dict(label_names), synthetic)


def texts(figure):
    from matplotlib.text import Text

    return " ".join(text.get_text() for text in figure.findobj(Text))


@pytest.mark.parametrize("cones", BLINDNESS.values(), ids=BLINDNESS)
@pytest.mark.parametrize("colours", [pictures.label_colours(BRATS), pictures.DIFFERENCE_COLOURS])
def test_colours_are_told_apart_by_the_colour_blind(colours, cones):
    seen = [lightness_and_hue(colour, cones) for colour in colours.values()]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 30


def test_every_label_has_its_own_colour_even_beyond_the_palette():
    colours = pictures.label_colours({value: str(value) for value in range(1, 15)})
    assert len(set(colours.values())) == 14


def test_up_is_up_and_the_patients_right_is_on_the_left():
    volume = np.zeros((4, 5, 6))
    volume[3, 0, 0] = 1  # highest, most anterior, rightmost
    assert pictures.PLANES["axial"].cut(volume, 3)[0, 0] == 1
    assert pictures.PLANES["coronal"].cut(volume, 0)[0, 0] == 1
    assert pictures.PLANES["sagittal"].cut(volume, 0)[0, 0] == 1
    letters = {name: (p.top, p.bottom, p.left, p.right) for name, p in pictures.PLANES.items()}
    assert letters == {
        "axial": tuple("APRL"),
        "coronal": tuple("SIRL"),
        "sagittal": tuple("SIAP"),
    }


@pytest.mark.parametrize(
    ("plane", "mm"), [("axial", (20, 28)), ("coronal", (18, 28)), ("sagittal", (18, 20))]
)
def test_a_picture_has_the_proportions_of_the_patient(plane, mm):
    case, view = a_case(), pictures.PLANES[plane]
    picture = pictures.slice_image(
        view.cut(case.image[0], 2), pixel_mm=view.pixel_mm(case.spacing_mm), **GREY
    )
    assert picture.shape == (*mm, 3) and picture.dtype == np.uint8


def test_opacity_mixes_the_labels_colour_with_the_image():
    label = np.ones((8, 8), np.uint8)
    half = pictures.slice_image(np.ones((8, 8)), label, {1: (255, 0, 100)}, opacity=0.5, **GREY)
    none = pictures.slice_image(np.ones((8, 8)), label, {1: (255, 0, 100)}, opacity=0, **GREY)
    assert half[4, 4].tolist() == [255, 128, 178] and none[4, 4].tolist() == [255, 255, 255]


def test_contours_leave_the_inside_of_a_label_to_the_image():
    label = np.zeros((20, 20), np.uint8)
    label[5:15, 5:15] = 1
    picture = pictures.slice_image(
        np.zeros((20, 20)), label, {1: (255, 0, 0)}, opacity=1, contours=True, **GREY
    )
    painted = picture[..., 0] == 255
    assert painted[5, 5:15].all() and painted[14, 5:15].all() and painted[5:15, 6].all()
    assert not painted[7:13, 7:13].any() and not painted[label == 0].any()


def test_the_border_at_the_edge_of_the_picture_is_drawn_too():
    assert pictures.border(np.ones((9, 9), np.uint8))[0].all()


def test_difference_says_what_kind_of_mistake():
    truth, prediction = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 1])
    expected = [pictures.RIGHT, pictures.ADDED, pictures.MISSED, pictures.RIGHT, pictures.CONFUSED]
    assert pictures.difference(prediction, truth).tolist() == expected


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda label: label[1:], "has shape"),
        (lambda label: label.astype(float), "integer labels"),
        (lambda label: np.where(label == 4, 3, label), "holds label 3 .* turn class numbers back"),
        (lambda label: np.where(label == 4, 256, label.astype(int)), "holds label 256"),
    ],
)
def test_a_prediction_that_does_not_fit_is_refused_in_one_sentence(spoil, complaint):
    case = a_case()
    with pytest.raises(ValueError, match=complaint):
        pictures.checked(case, spoil(case.label))


def test_the_fullest_slice_is_found_and_an_empty_volume_shows_its_middle():
    assert pictures.fullest(a_case().label) == 2
    assert pictures.fullest(np.zeros((6, 20, 14), np.uint8), axis=1) == 10


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_an_image_of_one_value_can_be_shown(value):
    black, white = pictures.intensity_range(np.full((3, 4, 5), value))
    assert white > black


def test_letters_and_scale_bar_are_drawn_and_the_input_stays():
    picture = np.zeros((200, 200, 3), np.uint8)
    drawn = pictures.annotate(picture, pictures.PLANES["axial"], px_per_mm=2)
    assert not picture.any()
    assert drawn[:25].any() and drawn[:, :20].any() and drawn[:, 180:].any()
    assert drawn[188, 120:, 0].nonzero()[0].tolist() == list(range(30, 71))  # 20 mm


@pytest.mark.parametrize("synthetic", [True, False])
def test_figures_name_channels_labels_dice_and_whether_the_patient_is_synthetic(synthetic):
    case = a_case(synthetic=synthetic)
    prediction = np.roll(case.label, 1, axis=2)
    figures = [plots.contrasts(case), plots.comparison(case, {"LoRA": prediction})]
    figures.append(plots.overview(case, prediction))
    for figure in figures:
        assert ("synthetic" in texts(figure)) == synthetic
        assert all(name in texts(figure) for name in [*BRATS.values(), "FLAIR"])
    for figure in figures[1:]:
        assert plots.scores(case, prediction) in texts(figure)


def test_a_slice_outside_the_volume_is_refused():
    with pytest.raises(ValueError, match="slices 0 to 5, not 6"):
        plots.contrasts(a_case(), slice=6)


def drawn(figure):
    """The renderer, after the figure was laid out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.get_renderer()


def test_titles_keep_off_each_other_and_off_the_picture_above():
    case = a_case({1: "kidney", 2: "tumour"}, spacing_mm=(3.0, 1.4, 2.0))
    case.label[case.label == 2] = 0  # "tumour not there" is the longest that is said
    side_by_side = plots.comparison(case, dict.fromkeys(("frozen random", "head", "LoRA"), case.label))
    in_rows = plots.multiples(case, 2, {f"block {i} off": case.label[2] for i in range(6)})
    for figure in (side_by_side, in_rows):
        renderer = drawn(figure)
        panels = [axis for axis in figure.axes if axis.axison]
        titles = [axis.title.get_window_extent(renderer) for axis in panels]
        lowest = figure._suptitle.get_window_extent(renderer).y0
        assert all(title.y1 < lowest for title in titles)
        for one, other in combinations(titles, 2):
            if abs(one.y0 - other.y0) < 1:
                assert max(one.x0, other.x0) - min(one.x1, other.x1) > 10, "pixels between two in a row"
        for title in titles:
            assert not any(title.overlaps(axis.get_window_extent(renderer)) for axis in panels)


def test_flat_planes_leave_no_wide_gaps_between_rows():
    figure = plots.overview(a_case(spacing_mm=(1.0, 5.0, 7.0)))  # coronal and sagittal are a thin strip
    renderer = drawn(figure)
    first, second, third = (figure.axes[i].get_window_extent(renderer) for i in (0, 2, 4))
    assert max(first.y0 - second.y1, second.y0 - third.y1) < 60, "pixels, of a row of about 250"


def test_the_legend_lies_on_no_curve():
    histories = {name: [{"step": i, "loss": np.sin(i)} for i in range(1, 60)] for name in "abcde"}
    figure = plots.curves(histories)
    renderer = drawn(figure)
    legends = [*figure.legends, *filter(None, (axis.get_legend() for axis in figure.axes))]
    axes = [axis.get_window_extent(renderer) for axis in figure.axes]
    assert legends and not any(
        one.get_window_extent(renderer).overlaps(box) for one in legends for box in axes
    )


def test_curves_show_the_runs_and_the_dice_they_looked_at():
    rows = [{"step": i, "loss": 1 / i} for i in range(1, 30)]
    measured = [*rows, {"step": 30, "loss": 0.1, "validation_dice": 0.7}]
    assert len(plots.curves({"head": rows}).axes) == 1
    figure = plots.curves({"head": rows, "LoRA": measured})
    assert [axes.get_title() for axes in figure.axes][1] == "validation Dice"
    assert "LoRA" in texts(figure) and "head" in texts(figure)


def test_smoothing_is_the_mean_of_the_last_tenth():
    np.testing.assert_allclose(plots._smoothed(range(20)), [0, *np.arange(0.5, 19)])


def test_a_shown_figure_carries_its_words_wherever_it_is_read():
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(1, 1))
    bundle, metadata = plots.show(figure, 'a "dot" & a line')._repr_mimebundle_()
    assert 'alt="a &quot;dot&quot; &amp; a line"' in bundle["text/html"]
    assert bundle["text/plain"] == metadata["image/png"]["alt"] == 'a "dot" & a line'
    assert json.dumps(bundle) and not pyplot.get_fignums()  # else the notebook shows it twice
    with pytest.raises(ValueError, match="alt text"):
        plots.show(figure, " ")


def test_png_keeps_every_pixel():
    picture = np.random.default_rng(0).integers(0, 256, (7, 5, 3)).astype(np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(pictures.png(picture)))), picture)


def luminance(colour):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return np.dot([0.2126, 0.7152, 0.0722], linear)


def test_a_figure_has_no_ground_of_its_own_and_words_that_are_read_on_any():
    from matplotlib.colors import to_rgb

    ink = luminance(to_rgb(plots.INK))
    assert 1.05 / (ink + 0.05) >= 4.5 and (ink + 0.05) / 0.05 >= 4.5, "WCAG's ratio on white and on black"
    figure = plots.curves({"a": [{"step": i, "loss": 1.0} for i in range(5)]})
    axis = figure.axes[0]
    axis.text(2, 1, "inside")
    image = np.asarray(Image.open(io.BytesIO(plots.figure_png(figure))))
    assert image[0, 0, 3] == 0 and image[image.shape[0] // 2, image.shape[1] // 2, 3] == 255
    outside = [axis.title, axis.xaxis.label, *axis.get_xticklabels()]
    assert {text.get_color() for text in outside} == {plots.INK}
    assert axis.texts[0].get_color() == "black", "on the white of its axes"
    assert plots.on_white(plots.figure_png(figure)).getpixel((0, 0)) == (255, 255, 255)


def test_in_the_drawing_of_a_block_words_on_boxes_stay_black_and_others_do_not():
    figure = drawings.transformer_block()
    plots.figure_png(figure)
    (axis,) = figure.axes
    colours = {bool(text.get_bbox_patch()): set() for text in axis.texts}
    for text in axis.texts:
        colours[bool(text.get_bbox_patch())].add(text.get_color())
    assert colours[True] == {"black"} and "black" not in colours[False]


def test_errors_in_words_are_areas():
    truth, found = np.zeros((10, 10), np.uint8), np.zeros((10, 10), np.uint8)
    assert plots.errors(found, truth, (10, 10)) == "no error"
    truth[0, :3], found[0, 2], found[5, :2] = 1, 2, 1
    assert plots.errors(found, truth, (10, 10)) == "missed 2.0 cm², too much 2.0 cm², wrong label 1.0 cm²"
