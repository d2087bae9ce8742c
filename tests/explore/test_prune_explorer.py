"""PruneExplorer: what it shows is the network with that share removed, and its bars are true."""

import copy

import numpy as np
import pytest
import torch

from labkit.efficient import prune
from labkit.efficient.counting import macs, matrices
from labkit.explore.prune import WAYS, PruneExplorer, gauges, merged
from labkit.networks.segmenter import Segmenter


@pytest.fixture(scope="module")
def explorer(case):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_HEADLESS", "1")
        yield PruneExplorer([case])


def at(explorer, way, share):
    explorer.way.value, explorer.share.value = way, share
    return explorer


def by_hand(way, share):
    model = merged("volumes-lora")
    if way == "units":
        prune.drop_mlp_units(model.backbone, share)
    else:
        masks = {"global": prune.globally, "layer": prune.per_layer}[way](matrices(model.backbone), share)
        prune.mask(model.backbone, masks)
    return model


@pytest.mark.parametrize("way", WAYS.values())
def test_it_shows_the_network_with_that_share_removed(explorer, middle, case, way):
    assert at(explorer, way, 0).way.disabled and not at(explorer, way, 70).way.disabled
    expected = middle(by_hand(way, 0.7), case)
    assert np.array_equal(explorer.segment(explorer.choice(), 0, 1), expected)
    assert np.array_equal(explorer._compute_ahead((explorer.choice(), 0, 1))[0], expected)


def test_masks_empty_places_and_leave_the_file_as_it_is(explorer):
    whole = explorer.cost(("global", 0))
    for way in ("global", "layer"):
        cost = explorer.cost((way, 80))
        assert cost["left"] == pytest.approx(0.2 * whole["left"], abs=20)  # some trained weights may be 0
        assert cost["dense"] == whole["dense"] and cost["packed"] < 0.4 * whole["dense"]
    assert whole["packed"] == whole["dense"]


def test_dropped_units_make_the_file_smaller_and_the_slice_cheaper(explorer):
    whole, units = explorer.cost(("global", 0)), explorer.cost(("units", 90))
    lost = 4 * (960 - 96) * (2 * 384 + 1)
    assert whole["dense"] - units["dense"] == pytest.approx(4 * lost / 1e6)
    costs = [macs(explorer.network(("units", share), own=0), 1, 4, 96, 96) for share in (90, 0)]
    assert costs[0] < 0.8 * costs[1]


def test_a_move_computes_its_slice_once_and_reads_the_time_off_that_pass(explorer, monkeypatch):
    at(explorer, "global", 0)
    passes = []
    with torch.nn.modules.module.register_module_forward_hook(
        lambda module, *_: passes.append(module) if isinstance(module, Segmenter) else None
    ):
        at(explorer, "global", 25)
    assert len(passes) == 1 and explorer.times["global", 25] > 0
    monkeypatch.setitem(explorer.times, ("global", 25), 1e-3)
    explorer.see(("global", 25), 0, explorer.volumes[0].image[:1])
    assert explorer.times["global", 25] == 1e-3  # the fastest counts: whatever else runs can only add to it


def test_back_at_zero_is_the_network_itself(explorer, case):
    at(explorer, "layer", 90)
    at(explorer, "global", 0)
    expected = dict(merged("volumes-lora").named_parameters())
    own = dict(explorer.network(("global", 0), 0).named_parameters())
    assert all(torch.equal(own[name], p) for name, p in expected.items())


def test_two_threads_share_no_memory(explorer):
    """Of what is written anew for each share; what is only read lies there once."""
    one, two = (matrices(explorer.network(("layer", 50), own).backbone) for own in (0, 1))
    assert all(one[name].data_ptr() != two[name].data_ptr() for name in one)
    one, two = (explorer.network(("units", 50), own) for own in (0, 1))
    assert one is not two and all(map(torch.equal, one.parameters(), two.parameters()))


def test_the_words_say_what_the_bars_say(explorer):
    at(explorer, "layer", 80)
    cost = explorer.cost(("layer", 80))
    assert f"Without 80 % (smallest weights of each layer): {cost['left']:,} of " in explorer.describe()
    assert f"{cost['time']:.0f} ms of" in explorer.gauges.value


def test_every_control_has_a_label_and_works_by_keyboard(explorer):
    assert all(control.description for control in (explorer.way, explorer.share))


def test_what_is_near_is_made_ahead_and_is_this_way_by_every_share(explorer):
    at(explorer, "units", 50)
    near = explorer.nearby()
    assert near[0] == ("units", 50) and {("units", 90), ("global", 50), ("layer", 50)} <= set(near)


def test_the_static_picture_names_ways_and_their_costs(explorer):
    alt = copy.copy(explorer.static().alt)
    assert "global, 80 %: ET" in alt and f"units, 80 %: {explorer.cost(('units', 80))['dense']:.1f} MB" in alt


def test_gauges_are_bars_with_words_beside_them():
    found = gauges({"a < b": (1, 4, "1 of 4")})
    assert "width:25.0%" in found and "a &lt; b" in found and "1 of 4" in found
