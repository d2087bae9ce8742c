"""MedTuningExplorer: a slice is read among its neighbours, and what is marked falsely is counted."""

import copy

import numpy as np
import pytest
import torch

from labkit.explore import deltas
from labkit.explore.explorer import run_around
from labkit.explore.med_tuning import MedTuningExplorer, false_components
from labkit.methods import LoRA, MedTuning
from labkit.networks.anatomy import backbone_of
from labkit.scans.case import Case
from labkit.tuning import delta, tune

SOURCES = {"Med-Tuning": "volumes-med_tuning", "LoRA": "volumes-lora"}
METHODS = {"volumes-med_tuning": MedTuning(T=4), "volumes-lora": LoRA(r=2)}
VALUES = np.asarray([0, 1, 2], np.uint8)


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    label = np.zeros((6, 32, 32), np.uint8)
    label[1:4, 8:16, 8:16] = 1
    image = rng.uniform(1, 2, (4, *label.shape)).astype(np.float32)
    return Case("patient", image, label, (2.0,) * 3, tuple("abcd"), {1: "one", 2: "two"}, True)


@pytest.fixture(scope="module")
def networks(vit):
    made = {}
    for name, method in METHODS.items():
        torch.manual_seed(2)
        made[name] = tune(copy.deepcopy(vit), method).eval()
        for p in delta(backbone_of(made[name])).values():
            p.data += 0.3 * torch.randn_like(p)
        for p in made[name].decoder.parameters():
            torch.nn.init.normal_(p, std=0.3)
    return made


@pytest.fixture
def explorer(case, networks, monkeypatch):
    monkeypatch.setenv("LABKIT_HEADLESS", "1")
    monkeypatch.setattr(deltas, "network", lambda name: copy.deepcopy(networks[name]))
    opened = MedTuningExplorer([case], SOURCES)
    yield opened
    opened.ahead.stop()


@pytest.mark.parametrize(
    "index, length, slices, run",
    [
        (3, 1, 6, (3, 4)),
        (3, 2, 6, (2, 4)),
        (3, 4, 6, (1, 5)),
        (0, 4, 6, (0, 4)),
        (5, 4, 6, (2, 6)),
        (1, 4, 3, (0, 3)),
    ],
)
def test_a_run_lies_around_its_slice_and_inside_the_volume(index, length, slices, run):
    assert run_around(index, length, slices) == run


@pytest.mark.parametrize(
    "index, length, run", [(3, 1, (3, 4)), (3, 2, (2, 4)), (3, 4, (1, 5)), (5, 4, (2, 6))]
)
def test_a_slice_shows_what_the_network_makes_of_it_in_its_run(explorer, networks, index, length, run):
    with torch.inference_mode():
        volume = explorer.volumes[0].image[None, slice(*run)]
        expected = networks["volumes-med_tuning"](volume).argmax(2)[0, index - run[0]]
    found = explorer.segment(("volumes-med_tuning", length), 0, index)
    assert np.array_equal(found, VALUES[expected.numpy()])


def test_neighbours_matter_to_med_tuning_and_not_to_a_network_of_slices(explorer):
    alone, among = (explorer.segment(("volumes-med_tuning", n), 0, 3) for n in (1, 4))
    assert (alone != among).any()
    for n in (2, 4):
        same = explorer.segment(("volumes-lora", n), 0, 3) == explorer.segment(("volumes-lora", 1), 0, 3)
        assert same.mean() > 0.999  # rounding may turn a tie


def test_it_opens_where_the_network_of_slices_marks_most_outside_the_truth(explorer, case):
    found = np.stack([explorer.segment(("volumes-lora", 1), 0, i) for i in range(6)])
    outside = ((found > 0) & (case.label == 0)).sum((1, 2))
    assert outside[explorer.slice.value] >= 0.99 * outside.max() and outside.min() < outside.max()


def test_without_such_a_network_it_opens_at_the_largest_tumour(case, networks, monkeypatch):
    monkeypatch.setenv("LABKIT_HEADLESS", "1")
    monkeypatch.setattr(deltas, "network", lambda name: copy.deepcopy(networks[name]))
    assert MedTuningExplorer([case], {"Med-Tuning": "volumes-med_tuning"}).slice.value in (1, 2, 3)


def test_the_words_say_how_much_is_shown_and_what_is_false(explorer, case):
    assert "is shown 4 neighbouring slices" in explorer.describe()
    explorer.shows.value = 1
    found, i = explorer.segment(explorer.choice(), 0, explorer.slice.value), explorer.slice.value
    assert "sees this slice alone" in explorer.describe()
    assert f"{false_components(found, case, i)} in this slice." in explorer.describe()


def test_ahead_it_computes_the_other_lengths_and_then_counts_in_the_whole_patient(
    explorer, monkeypatch, case
):
    monkeypatch.setenv("LABKIT_HEADLESS", "")
    explorer.shows.value = 2
    explorer.ahead.finish()
    assert all(
        (("volumes-med_tuning", n), 0, explorer.slice.value) in explorer.ahead.values for n in (1, 2, 4)
    )
    volume = explorer.whole(("volumes-med_tuning", 2), 0)
    false = sum(false_components(label, case, i) for i, label in enumerate(volume))
    assert f"{false} in all slices of the patient" in explorer.said.value


def piece(case, *corners, side=5):
    found = np.zeros(case.label.shape[1:], np.uint8)
    for y, x in corners:
        found[y : y + side, x : x + side] = 2
    return found


def test_false_pieces_are_large_and_touch_no_tumour_of_this_slice_or_the_next(case):
    assert false_components(piece(case), case, 2) == 0
    assert false_components(piece(case, (20, 20), (0, 20), (10, 10)), case, 2) == 2, "one lies on the tumour"
    assert false_components(piece(case, (10, 10)), case, 4) == 0, "slice 3 has tumour there"
    assert false_components(piece(case, (10, 10)), case, 5) == 1
    assert false_components(piece(case, (20, 20), side=4), case, 2) == 0, "less than 1 cm2"
    assert false_components(piece(case, (20, 20), (25, 25)), case, 2) == 1, "they meet at a corner"


def test_every_control_has_a_label_and_the_static_picture_shows_lengths_and_networks(explorer):
    assert explorer.source.description and explorer.shows.description
    alt = explorer.static().alt
    shown = ("Med-Tuning, 1 slice", "Med-Tuning, 2 slices", "Med-Tuning, 4 slices", "LoRA")
    assert all(f"{name}: one" in alt for name in shown)
