"""ParameterBudget: its counts are those of networks that are really built, and the picture shows them."""

import numpy as np
import pytest

from labkit import methods
from labkit.explore import pictures
from labkit.explore.budget import CHOICES, COLOURS, NETWORKS, ParameterBudget, budget
from labkit.methods.paper import ROWS
from labkit.networks.segmenter import segmenter
from labkit.tuning import count, tune


@pytest.fixture(scope="module")
def explorer():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_HEADLESS", "1")
        few = {
            name: CHOICES[name] for name in ("LoRA on q and v", "Med-Tuning", "BitFit", "Head alone", "Full")
        }
        yield ParameterBudget(few)


def choose(explorer, method, size=None):
    explorer.method.value = method
    if size:
        explorer.size.value = size
    return explorer.budgets()


@pytest.mark.parametrize("method", [methods.LoRA(r=3), methods.BitFit(), methods.Full(), methods.Head()])
def test_counts_are_those_of_the_real_network(method):
    found = budget("tiny + light decoder", method)
    real = count(tune(segmenter("tiny"), method))
    assert (found.tuned, found.inserted, found.pretrained) == (real.tuned, real.inserted, real.pretrained)


@pytest.mark.parametrize("body, network", [("vit", "ViT-B/16 + UPerNet"), ("swin", "Swin-T + Swin-UNet")])
@pytest.mark.parametrize("name", ["Full", "Head", "VPT-Deep", "Adapter"])
def test_the_paper_s_networks_have_the_counts_that_it_prints(name, body, network):
    row = next(row for row in ROWS if row.name == name)
    tuned, inserted = getattr(row, f"printed_{body}")
    found = budget(network, getattr(row, body))
    assert (round(found.tuned / 1e6, 3), round(found.inserted / 1e6, 3)) == (tuned, inserted or 0)


def test_a_size_changes_the_inserted_numbers_in_proportion_and_the_head_not_at_all(explorer):
    four, eight = (choose(explorer, "LoRA on q and v", r) for r in (4, 8))
    for network in NETWORKS:
        assert 2 * four[network].inserted == eight[network].inserted > 0
        assert four[network].head == eight[network].head > 0


def test_what_learns_is_inserted_own_or_head(explorer):
    for method in explorer.choices:
        for one in choose(explorer, method).values():
            assert min(one.inserted, one.own, one.head) >= 0 and one.tuned <= one.pretrained + one.inserted
    assert all(one.own == one.inserted == 0 for one in choose(explorer, "Head alone").values())
    assert all(one.own > 0 == one.inserted for one in choose(explorer, "BitFit").values())
    assert all(one.tuned == one.pretrained for one in choose(explorer, "Full").values())


def test_the_state_has_weights_gradients_and_two_moments(explorer):
    one = choose(explorer, "Full")["tiny + light decoder"]
    assert one.state_mib == pytest.approx(16 * one.pretrained / 2**20)


def test_a_method_without_a_size_has_no_slider_and_one_with_a_size_has_its_own(explorer):
    choose(explorer, "BitFit")
    assert explorer.size.disabled
    choose(explorer, "Med-Tuning")
    assert not explorer.size.disabled and explorer.size.options == CHOICES["Med-Tuning"].sizes
    assert (explorer.size.description, explorer.size.value) == ("Width / m", 6)


def test_every_control_has_a_label_and_moving_one_repaints_table_and_words(explorer):
    choose(explorer, "LoRA on q and v", 8)
    assert explorer.method.description and explorer.size.description
    before = (explorer.image.value, explorer.table.value, explorer.said.value)
    explorer.size.value = 64
    after = (explorer.image.value, explorer.table.value, explorer.said.value)
    assert all(old != new for old, new in zip(before, after, strict=True))
    assert f"{explorer.budgets()['ViT-B/16 + UPerNet'].inserted:,}" in explorer.table.value
    assert "role='status'" in explorer.said.value


def test_the_bars_are_as_long_as_the_shares(explorer):
    found = choose(explorer, "Head alone")["ViT-B/16 + UPerNet"]
    image = explorer.picture()
    height = len(image) // len(NETWORKS)
    line = image[height + 38]  # through the upper bar of the second network
    head, frozen = ((line == np.array(COLOURS[part])).all(-1).sum() for part in (3, 4))
    assert head / (head + frozen) == pytest.approx(found.head / found.pretrained, abs=0.01)


def test_a_method_that_does_not_fit_says_why_and_the_others_stay(explorer, monkeypatch):
    def refuse(network, method):
        if network.startswith("Swin"):
            raise ValueError("It does not fit a Swin.")
        return budget(network, method)

    monkeypatch.setattr("labkit.explore.budget.budget", refuse)
    monkeypatch.setattr(explorer.ahead, "values", {})
    choose(explorer, "Full")
    explorer._moved()
    assert (
        "It does not fit a Swin." in explorer.describe()
        and "ViT-B/16 + UPerNet: 0 inserted" in explorer.describe()
    )


def test_without_a_browser_it_is_a_picture_with_a_legend_and_words(explorer, monkeypatch):
    monkeypatch.setattr(explorer.ahead, "values", {})
    choose(explorer, "LoRA on q and v", 16)
    explorer._moved()
    bundle, _ = explorer._repr_mimebundle_()
    assert bundle.keys() == {"text/html", "image/png", "text/plain"}
    assert bundle["text/plain"].startswith("LoRA on q and v, Rank r = 16. tiny + light decoder:")
    assert pictures.png(explorer.picture()) != explorer.static().data
