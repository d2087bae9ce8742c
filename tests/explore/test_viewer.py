import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from labkit.explore import pictures, plots
from labkit.explore.viewer import viewer
from labkit.metrics import REGION_NAMES, dice_by_region
from labkit.scans.case import Case

WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def case():
    label = np.zeros((8, 20, 12), np.uint8)
    label[2:6, 5:12, 2:6] = 2
    label[3, 6:9, 3:5] = 1
    label[5, 5:14, 2:6] = 4
    image = np.random.default_rng(0).uniform(0, 100, (2, *label.shape)).astype(np.float32)
    names = {1: "necrotic core", 2: "oedema", 4: "enhancing tumour"}
    return Case("patient", image, label, (3.0, 1.0, 2.0), ("T1", "FLAIR"), names, synthetic=True)


@pytest.fixture
def prediction(case):
    return np.roll(case.label, 1, axis=2)


@pytest.fixture
def live(monkeypatch):
    monkeypatch.delenv("LABKIT_HEADLESS", raising=False)


def shown(widget):
    return np.asarray(Image.open(io.BytesIO(widget.image.value)))


@pytest.mark.parametrize(
    ("control", "value"),
    [("slice", 3), ("plane", "sagittal"), ("channel", 0), ("window", (20, 60)), ("overlay", "truth"),
     ("overlay", "difference"), ("opacity", 90), ("labels", "contours")],
)  # fmt: skip
def test_every_control_repaints(case, prediction, control, value):
    widget = viewer(case, prediction)
    before = widget.image.value
    getattr(widget, control).value = value
    assert widget.image.value != before


def test_the_picture_is_the_slice_asked_for(case):
    widget = viewer(case)
    widget.plane.value, widget.slice.value, widget.opacity.value = "coronal", 7, 0
    black, white = pictures.intensity_range(case.image[1])
    expected = np.clip((case.image[1][::-1, 7] - black) / (white - black), 0, 1) * 255
    picture = shown(widget)[..., 0].astype(float)
    h, w = (n // m for n, m in zip(picture.shape, expected.shape, strict=True))
    centres = picture[h // 2 :: h, w // 2 :: w]
    assert np.abs(centres - expected)[1:-2, 2:-2].mean() < 10  # letters and scale bar lie at the sides


def test_the_words_name_slice_channel_layer_and_areas(case, prediction):
    widget = viewer(case, prediction)
    widget.slice.value = 3
    words = widget.words.value
    assert "Axial slice 3 of 0 to 7 (9 mm from the first), FLAIR. Prediction:" in words
    assert "necrotic core 0.1 cm², oedema 0.4 cm²" in words  # 6 and 22 voxels of 1 x 2 mm
    widget.overlay.value = "difference"
    assert "missed" in widget.words.value and "missed" in widget.legend.value
    widget.slice.value = 0
    assert "nothing here" in widget.words.value


def test_turning_to_another_plane_goes_to_its_fullest_slice(case):
    widget = viewer(case)
    assert (widget.slice.value, widget.slice.max) == (5, 7)
    widget.plane.value = "sagittal"
    assert (widget.slice.value, widget.slice.max) == (2, 11)
    widget.slice.value = 11
    widget.plane.value = "axial"
    assert (widget.slice.value, widget.slice.max) == (5, 7)


def test_a_contrast_window_of_no_width_still_paints(case):
    widget = viewer(case)
    widget.window.value = (40, 40)
    assert shown(widget).any()


def test_without_a_prediction_only_the_truth_can_be_laid_over(case, prediction):
    assert viewer(case).overlay.options == ("truth",)
    assert viewer(case, prediction).overlay.options == ("truth", "prediction", "difference")


def test_dice_of_the_whole_volume_stands_beside_the_picture(case, prediction):
    _, panel = viewer(case, prediction).children[1].children
    page = panel.children[-1].value
    for name, value in dice_by_region(prediction, case.label, case.label_names).items():
        assert f"{name} {REGION_NAMES[name]}" in page and f"{value:.3f}" in page


def test_every_control_has_a_label(case, prediction):
    widget = viewer(case, prediction)
    names = ("plane", "slice", "channel", "window", "overlay", "labels", "opacity")
    assert all(getattr(widget, name).description for name in names)


def test_only_a_synthetic_patient_is_called_synthetic(case):
    assert "synthetic" in viewer(case).heading.value
    assert "synthetic" not in viewer(replace(case, synthetic=False)).heading.value


def test_names_from_a_data_set_cannot_bring_markup(case):
    widget = viewer(replace(case, name="<b>x", label_names={1: "<i>", 2: "b", 4: "c"}))
    assert "<b>x" not in widget.heading.value and "<i>" not in widget.legend.value + widget.words.value


def test_without_a_browser_it_is_a_picture_with_words_and_no_widget(case, prediction, monkeypatch):
    monkeypatch.setenv("LABKIT_HEADLESS", "1")
    bundle, _ = viewer(case, prediction)._repr_mimebundle_()
    assert bundle.keys() == {"text/html", "image/png", "text/plain"}
    assert "<img alt=" in bundle["text/html"] and plots.scores(case, prediction) in bundle["text/plain"]
    assert Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).width > 500


def test_in_a_browser_it_is_a_widget_and_leaves_a_picture_for_other_readers(case, live):
    bundle, metadata = viewer(case)._repr_mimebundle_()
    assert bundle.keys() == {WIDGET, "text/html", "image/png", "text/plain"}
    assert "Axial slice 5" in bundle["text/plain"] == metadata["image/png"]["alt"]


def test_a_prediction_with_class_numbers_for_labels_is_refused(case):
    with pytest.raises(ValueError, match="turn class numbers back"):
        viewer(case, np.where(case.label == 4, 3, case.label))


def test_the_still_picture_has_its_whole_legend_inside(case, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "show", lambda figure, alt: drawn.append(figure))
    names = {1: "necrotic and non-enhancing core", 2: "oedema", 4: "enhancing tumour"}
    viewer(replace(case, label_names=names)).static()
    (figure,) = drawn
    (legend,) = figure.legends
    left, right = legend.get_window_extent().intervalx
    assert 0 <= left and right <= figure.bbox.width
    assert [text.get_text() for text in legend.texts] == list(names.values())
