"""MethodComparison on deltas that the kit carries: points, errors and words are those of the networks."""

import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from labkit.explore import comparison, deltas, pictures, shown
from labkit.explore.comparison import BOTH, FIRST, SECOND, MethodComparison, kinds, learned, trained
from labkit.explore.explorer import Explorer
from labkit.metrics import dice_by_region
from labkit.scans.case import BRATS_CHANNELS, BRATS_LABELS, Case
from labkit.scans.hounsfield import WINDOW_HU
from labkit.scans.slices import to_volume
from labkit.tuning import count

NAMES = ("probe", "prompts-deep-10", "rank-lora")


def small(seed):
    rng = np.random.default_rng(seed)
    label = np.zeros((3, 96, 96), np.uint8)
    label[1, 30:50, 30:50] = 1
    image = rng.normal(0, 60, (1, *label.shape)).astype(np.float32)
    image[:, 1, 30:45, 30:45] += 150
    return Case(f"small {seed}", image, label, (3.0,) * 3, ("CT",), {1: "a", 2: "b"}, window_hu=WINDOW_HU)


def brain():
    image = np.random.default_rng(0).uniform(1, 2, (4, 3, 96, 96)).astype(np.float32)
    label = np.zeros((3, 96, 96), np.uint8)
    label[1, 30:50, 30:50] = 4
    return Case("brain", image, label, (2.0,) * 3, BRATS_CHANNELS, dict(BRATS_LABELS))


@pytest.fixture(scope="module")
def explorer():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_HEADLESS", "1")
        opened = MethodComparison([small(0), small(1)], {"single slices": NAMES})
        for name in NAMES:  # as if it had rested
            opened.volume(name, 0)
        opened._draw_points()
        yield opened


@pytest.fixture(autouse=True)
def others_stay(monkeypatch):
    """What a test opens does not close the explorer that all tests share."""
    monkeypatch.setattr(shown, "OPEN", {})


@pytest.fixture(autouse=True)
def first_patient(request):
    if "explorer" in request.fixturenames:
        explorer = request.getfixturevalue("explorer")
        explorer.patient.value, explorer.slice.value = 0, 1


def test_what_is_shown_is_what_the_network_finds(explorer):
    for name in NAMES:
        with torch.inference_mode():
            classes = trained(name)(to_volume(explorer.cases[0]).image)
        expected = np.array([0, 1, 2])[classes.argmax(1).numpy()]
        assert (explorer.whole(name, 0) == expected).mean() > 0.99  # rounding may turn a tie


def test_an_update_kept_as_factors_gives_its_whole_network():
    model, update = trained("rank-lora"), deltas.update("rank-lora")
    start = dict(deltas.start().named_parameters())["backbone.blocks.2.mlp.fc1.weight"]
    found = dict(model.named_parameters())["backbone.blocks.2.mlp.fc1.weight"]
    torch.testing.assert_close(found, start + update.factors["2.fc1"].at(16))


def test_a_point_stands_at_what_learned_and_at_the_dice_of_the_patient(explorer):
    case = explorer.cases[0]
    for name, value in explorer.scores().items():
        dices = dice_by_region(explorer.whole(name, 0), case.label, case.label_names)
        assert value == pytest.approx(np.nanmean(list(dices.values())))
    assert learned("probe") == count(deltas.network("probe")).tuned
    assert learned("rank-full") == sum(p.numel() for p in deltas.start().parameters())
    assert learned("rank-lora") > learned("prompts-deep-10") > learned("probe")


def test_points_lie_right_of_and_above_each_other_as_their_numbers_do(explorer):
    _, _, at = explorer._drawn
    scores = explorer.scores()
    by_size, by_dice = sorted(NAMES, key=learned), sorted(NAMES, key=scores.get)
    assert sorted(NAMES, key=lambda name: at[name][0]) == by_size
    assert [at[name][1] for name in by_dice] == sorted((at[name][1] for name in NAMES), reverse=True)


def test_where_a_point_lies_there_is_ink(explorer):
    _, plain, at = explorer._drawn
    for x, y in at.values():
        assert plain[round(y), round(x)].tolist() == [0, 114, 178]


def test_the_two_closest_are_shown_at_first():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_HEADLESS", "1")
        rows = dict(zip(NAMES, (32, 48, 47), strict=True))  # of the label, which has 20 from the 30th on

        def found(self, key, own=0):
            name, patient, index = key
            cut = self.cases[patient].label[index].copy()
            cut[rows[name] :] = 0
            return cut, None

        patch.setattr(Explorer, "_compute", found)
        opened = MethodComparison([small(0)], {"single slices": NAMES})
    assert {opened.method.value, opened.other.value} == {"prompts-deep-10", "rank-lora"}


def test_who_errs_is_counted_voxel_by_voxel(explorer):
    explorer.method.value, explorer.other.value = "probe", "rank-lora"
    truth = explorer.cases[0].label
    wrong = [explorer.whole(name, 0) != truth for name in ("probe", "rank-lora")]
    who = explorer.who(0)
    assert np.array_equal(who == BOTH, wrong[0] & wrong[1])
    assert np.array_equal(who == FIRST, wrong[0] & ~wrong[1])
    assert np.array_equal(who == SECOND, ~wrong[0] & wrong[1])
    said = [int(n.replace(",", "")) for n in re.findall(r"([\d,]+) in [AB] alone", explorer.describe())]
    assert said == [(who == FIRST).sum(), (who == SECOND).sum()]
    explorer.method.value, explorer.other.value = "rank-lora", "probe"
    assert np.array_equal(explorer.who(0) == FIRST, who == SECOND)


def test_choosing_repaints_picture_points_and_words(explorer, monkeypatch):
    monkeypatch.delenv("LABKIT_HEADLESS")  # a still draws its points when it is asked for
    monkeypatch.setattr(explorer, "ahead_at_rest", False)
    explorer.method.value, explorer.other.value = "probe", "rank-lora"
    before = (explorer.image.value, explorer.points.value, explorer.said.value)
    explorer.method.value = "prompts-deep-10"
    after = (explorer.image.value, explorer.points.value, explorer.said.value)
    assert all(old != new for old, new in zip(before, after, strict=True))
    assert f"A, prompts-deep-10: {learned('prompts-deep-10'):,} numbers learned" in explorer.said.value


def test_on_another_patient_only_what_was_computed_is_a_point(explorer):
    explorer.method.value, explorer.other.value = "probe", "rank-lora"
    explorer.found.pop(("prompts-deep-10", 1), None)
    explorer.patient.value = 1
    assert set(explorer.scores()) == {"probe", "rank-lora"}
    points = explorer.points.value
    explorer.volume("prompts-deep-10", 1)
    explorer._came(("prompts-deep-10", 1, 0))
    assert "prompts-deep-10" in explorer.scores() and explorer.points.value != points


def test_at_rest_every_network_is_asked_for_on_every_patient(explorer):
    wanted = [key[:2] for key in explorer._wanted()]
    assert wanted[: len(NAMES)] == [(name, 0) for name in NAMES]
    assert set(wanted) == {(name, patient) for name in NAMES for patient in (0, 1)}


def test_another_kind_brings_its_own_networks(monkeypatch):
    monkeypatch.setenv("LABKIT_HEADLESS", "1")
    opened = MethodComparison([small(0)], {"one": NAMES[:2], "other": ("rank-lora", "probe")})
    opened.kind.value = "other"
    assert (opened.method.value, opened.other.value) == ("rank-lora", "probe")
    assert opened.nearby() == ["rank-lora", "probe"] and "A, rank-lora" in opened.said.value


def test_each_kind_is_shown_on_patients_of_its_organ(monkeypatch):
    monkeypatch.setenv("LABKIT_HEADLESS", "1")
    own = {"kidney": [small(0), small(1)], "brain": [brain()]}
    monkeypatch.setattr(deltas, "patients", lambda organ, split, n: own[organ])
    opened = MethodComparison(of_kind={"k": NAMES[:2], "b": ("volumes-head", "volumes-lora")})
    assert opened.cases == own["kidney"] and "enhancing" not in opened.legend.value
    opened.patient.value = 1
    opened.kind.value = "b"
    assert opened.cases == own["brain"] and opened.patient.options == (("brain", 0),)
    assert "enhancing" in opened.legend.value and "Dice ET" in opened.said.value
    opened.kind.value = "k"
    assert [name for name, _ in opened.patient.options] == ["small 0", "small 1"]
    brains = {"b": ("volumes-head", "volumes-lora")}
    assert MethodComparison(of_kind=brains).cases == own["brain"]
    with pytest.raises(ValueError, match="MethodComparison know a brain"):
        MethodComparison([small(0)], of_kind=brains)


def test_runs_of_slices_are_read_as_they_were_trained(explorer, monkeypatch):
    made = deltas.Made(deltas.DELTAS["probe"].method, deltas.Recipe(slices=4))
    monkeypatch.setitem(deltas.DELTAS, "volumes-head", made)
    monkeypatch.setitem(explorer.networks, "volumes-head", ("a network", "its twin"))
    asked = []
    monkeypatch.setattr(comparison, "predict", lambda model, volume, run: asked.append((model, run)))
    explorer.volume("volumes-head", 1)
    explorer.found.pop(("volumes-head", 1))
    assert asked == [("a network", 4)]


def test_a_click_on_a_point_makes_it_a_and_one_beside_all_does_nothing(explorer):
    explorer.method.value, explorer.other.value = "probe", "rank-lora"
    _, plain, at = explorer._drawn
    x, y = at["prompts-deep-10"]
    click = {"click": [(x + 3) / plain.shape[1], (y - 3) / plain.shape[0]]}
    explorer.points._handle_custom_msg(click, [])
    assert explorer.method.value == "prompts-deep-10"
    explorer.points._handle_custom_msg({"click": [0.99, 0.01]}, [])
    assert explorer.method.value == "prompts-deep-10"
    assert f"rank-lora {learned('rank-lora'):,}, " in explorer.points.alt


def test_the_kinds_are_those_of_the_files_that_are_there(monkeypatch, tmp_path):
    found = kinds()
    assert set(NAMES) <= set(found["kidneys: single slices, linear head"])
    assert not any(name.startswith("volumes-") for name in found["kidneys: single slices, linear head"])
    monkeypatch.setattr(deltas, "place", lambda name: tmp_path / name)
    (tmp_path / "probe").touch()
    assert kinds() == {}  # a single one has nothing to be compared with
    (tmp_path / "rank-lora").touch()
    assert kinds() == {"kidneys: single slices, linear head": ("probe", "rank-lora")}
    (tmp_path / "rank-lora").unlink()
    with pytest.raises(ValueError, match="labkit deltas"):
        MethodComparison([small(0)])


def test_every_control_has_a_label(explorer):
    controls = (explorer.kind, explorer.method, explorer.other, explorer.patient, explorer.slice)
    assert all(control.description for control in controls)


def test_without_a_browser_all_stand_beside_each_other(explorer):
    bundle, _ = explorer._repr_mimebundle_()
    assert bundle.keys() == {"text/html", "image/png", "text/plain"}
    assert all(f"{name} {learned(name):,}" in bundle["text/plain"] for name in NAMES)
    tall = Image.open(io.BytesIO(explorer.static().data))
    assert tall.height > explorer.picture().shape[0] + explorer.scatter().shape[0]


def test_a_colour_means_one_thing():
    labels = pictures.label_colours(BRATS_LABELS).values()
    every = [*labels, *pictures.DIFFERENCE_COLOURS.values(), *comparison.WHO_COLOURS.values()]
    assert len(set(every)) == len(every)


def test_numbers_lie_on_no_other_number_and_on_no_point():
    rng = np.random.default_rng(0)
    points = {str(i): tuple(rng.uniform(0, (240, 120))) for i in range(12)} | {"12": (40, 40), "13": (42, 41)}
    places = list(comparison.label_places(points).values())
    for i, (x, y) in enumerate(places):
        others = places[:i] + places[i + 1 :] + list(points.values())
        assert min(np.hypot(x - a, y - b) for a, b in others) >= 12


def test_both_lists_show_every_network_side_by_side(explorer):
    assert explorer.method.rows == explorer.other.rows == len(NAMES)
    inputs = explorer.children[0].children[0]
    assert inputs.children[1].children == (explorer.method, explorer.other)
    assert {explorer.kind, explorer.patient, explorer.slice} < set(inputs.children)
