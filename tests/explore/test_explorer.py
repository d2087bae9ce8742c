"""What every explorer does: shows what a network computes, computes ahead, says it in words."""

import copy
import io

import ipywidgets as widgets
import numpy as np
import pytest
import torch
from PIL import Image

from labkit.explore.explorer import LOOK, Explorer
from labkit.scans.case import Case


class Two(Explorer):
    """Two networks to choose from."""

    map_name = "a map"
    organ = "brain"  # in four channels

    def __init__(self, cases, networks):
        self.networks = networks
        self.which = widgets.IntSlider(max=1, description="Which", **LOOK)
        self._open(cases, (self.which,))

    def choice(self):
        return self.which.value

    def nearby(self):
        return [0, 1]

    def network(self, choice, own):
        return self.networks[choice][own]

    def see(self, choice, own, x):
        return self.network(choice, own)(x), np.full((4, 4), 0.5 * choice)

    def words(self, choice):
        return f"Network {choice}."

    def shown(self):
        return {"first": 0, "second": 1}


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    label = np.zeros((4, 32, 32), np.uint8)
    label[1:3, 8:20, 8:20] = 1
    image = rng.uniform(1, 2, (4, *label.shape)).astype(np.float32)
    return Case("patient", image, label, (2.0,) * 3, tuple("abcd"), {1: "one", 2: "two"}, True)


@pytest.fixture
def networks(vit):
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = copy.deepcopy(vit).eval()
        for p in model.decoder.parameters():
            torch.nn.init.normal_(p, std=0.3)
        found.append([model, copy.deepcopy(model)])
    return found


@pytest.fixture
def explorer(case, networks, monkeypatch):
    monkeypatch.setenv("LABKIT_HEADLESS", "")
    opened = Two([case], networks)
    yield opened
    opened.ahead.stop()


def pixels(explorer):
    return np.asarray(Image.open(io.BytesIO(explorer.image.value)).convert("RGB"))


def test_what_is_shown_is_what_the_chosen_network_computes(explorer, networks, case):
    for which in (0, 1):
        explorer.which.value = which
        image = explorer.volumes[0].image[explorer.slice.value][None]
        expected = networks[which][0](image)[0].argmax(0).numpy()
        assert np.array_equal(explorer.segment(which, 0, explorer.slice.value), expected)


def test_moving_a_control_repaints_and_says_so(explorer):
    before, said = pixels(explorer), explorer.said.value
    explorer.which.value = 1
    assert not np.array_equal(before, pixels(explorer)) and said != explorer.said.value
    assert "Network 1." in explorer.said.value and "role='status'" in explorer.said.value
    explorer.slice.value += 1
    assert f"Slice {explorer.slice.value}:" in explorer.said.value


def test_at_rest_the_other_choices_and_the_whole_patient_are_computed_to_the_same_bits(explorer, case):
    explorer.ahead.finish()
    assert (1, 0, explorer.slice.value) in explorer.ahead.values
    volume = explorer.whole(0, 0)
    for i, found in enumerate(volume):
        assert np.array_equal(found, explorer._compute((0, 0, i))[0])
    assert "being computed" not in explorer.said.value and "Whole patient: one" in explorer.said.value


def test_until_then_the_words_promise_nothing(explorer):
    explorer.ahead.stop()
    explorer.ahead.values.clear()
    explorer.which.value = 1
    assert "Whole patient: being computed" in explorer.said.value


def test_the_first_slice_is_the_one_with_most_label(explorer, case):
    assert explorer.slice.value in (1, 2) and explorer.slice.max == 3


def test_every_control_has_a_label(explorer):
    assert all(control.description for control in (explorer.which, explorer.patient, explorer.slice))


def test_a_map_of_tokens_stands_beside_the_pictures(explorer):
    width = pixels(explorer).shape[1]
    explorer.see = lambda choice, own, x: (explorer.network(choice, own)(x), None)
    explorer.ahead.stop()
    explorer.ahead.values.clear()
    explorer.which.value = 1
    assert pixels(explorer).shape[1] < width


def test_without_a_browser_the_choices_stand_beside_each_other(explorer, monkeypatch):
    monkeypatch.setenv("LABKIT_HEADLESS", "1")
    bundle, _ = explorer._repr_mimebundle_()
    assert bundle.keys() == {"text/html", "image/png", "text/plain"}
    assert "first: one" in bundle["text/plain"] and "second: one" in bundle["text/plain"]


def test_in_a_browser_it_leaves_a_picture_for_other_readers(explorer):
    bundle, _ = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle and "image/png" in bundle


def test_what_changes_nothing_is_disabled_and_only_that(explorer):
    assert explorer.patient.disabled, "there is one patient"
    assert not explorer.slice.disabled and not explorer.which.disabled
    explorer.idle = lambda: [explorer.which] if explorer.slice.value == 0 else []
    explorer.slice.value = 0
    assert explorer.which.disabled
    explorer.slice.value = 1
    assert not explorer.which.disabled


def test_the_words_say_what_is_wrong_and_who_does_best(explorer, case, networks):
    found, truth = explorer.segment(0, 0, explorer.slice.value), case.label[explorer.slice.value]
    missed_cm2 = ((found == 0) & (truth > 0)).sum() * 0.04
    assert f"missed {missed_cm2:.1f} cm²" in explorer.describe() or not missed_cm2
    explorer.segment = lambda choice, patient, index: truth if choice else np.zeros_like(truth)
    assert "no error" not in explorer.describe()
    explorer.which.value = 1
    assert "no error" in explorer.describe()
    assert "Best by mean Dice: second (1.00), worst: first (0.00)." in explorer.static().alt


def test_the_map_has_the_outline_of_the_truth_and_its_colours_beside_it(explorer, case):
    explorer.which.value = 1
    drawn = pixels(explorer)
    flat = explorer.see  # a map that is the same everywhere
    assert (drawn[30:, -330:] == [68, 1, 84]).all(-1).any(), "the lower end of viridis"
    assert (drawn[:, -330:] == [253, 231, 37]).all(-1).any(), "and its upper end"
    middle = flat(1, 0, explorer.volumes[0].image[:1])[1]
    assert (middle == 0.5).all(), "which the map itself has not"
