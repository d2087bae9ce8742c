"""BitsExplorer: what it shows is the network in that many bits, and its bars are those of the file."""

import numpy as np
import pytest
import torch

from labkit.efficient import precision
from labkit.efficient.counting import matrices
from labkit.explore.bits import BitsExplorer
from labkit.explore.prune import merged


@pytest.fixture(scope="module")
def explorer(case):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_HEADLESS", "1")
        yield BitsExplorer([case])


def at(explorer, bits, per_row):
    explorer.bits.value, explorer.scale.value = bits, per_row
    return explorer


@pytest.mark.parametrize("bits, per_row", [(8, False), (2, True), (1, True)])
def test_it_shows_the_network_in_that_many_bits(explorer, middle, case, bits, per_row):
    model = merged("volumes-lora")
    precision.quantize_(model.backbone, bits, per_row)
    at(explorer, bits, per_row)
    expected = middle(model, case)
    for own in (0, 1):
        assert np.array_equal(explorer._compute((explorer.choice(), 0, 1), own)[0], expected)


def test_back_at_32_bits_is_the_network_itself(explorer):
    assert not at(explorer, 2, False).scale.disabled
    assert at(explorer, 32, True).scale.disabled
    own, expected = explorer.network((32, True), 0).state_dict(), merged("volumes-lora").state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in expected.items())


def test_the_size_is_that_of_the_file(explorer, tmp_path):
    """But for names and shapes, and for the head and vectors, which stay in 32 bits."""
    backbone = merged("volumes-lora").backbone
    rest = sum(p.numel() for p in explorer.original.parameters()) - sum(
        p.numel() for p in backbone.parameters()
    )
    for bits, per_row in ((8, True), (3, False)):
        precision.save(backbone, tmp_path / "file", bits, per_row)
        size = ((tmp_path / "file").stat().st_size + 4 * rest) / 1e6
        assert explorer.fact((bits, per_row))["size"] == pytest.approx(size, abs=0.02)


def test_two_bits_lose_more_of_the_weights_than_one(explorer):
    for per_row in (False, True):
        two, one = explorer.fact((2, per_row)), explorer.fact((1, per_row))
        assert two["error"] > one["error"] + 0.1 and two["zeros"] > 0.9 and one["zeros"] == 0
        assert two["size"] > one["size"]


def test_a_scale_for_each_row_errs_less(explorer):
    assert all(
        explorer.fact((b, True))["error"] < explorer.fact((b, False))["error"] for b in (8, 6, 4, 3, 2, 1)
    )


def test_the_words_say_how_many_levels_and_what_is_lost(explorer):
    at(explorer, 4, True)
    error = explorer.fact((4, True))["error"]
    assert "4 bits (15 levels up to the largest |w|, scale: one for each row): " in explorer.describe()
    assert f"{error:.1%}" in explorer.describe() and f"{error:.1%}" in explorer.gauges.value
    at(explorer, 1, False)
    assert "1 bit (two levels" in explorer.describe()


def test_two_threads_share_no_memory(explorer):
    one, two = (matrices(explorer.network((4, True), own).backbone) for own in (0, 1))
    assert all(one[name].data_ptr() != two[name].data_ptr() for name in one)


def test_every_control_has_a_label(explorer):
    assert all(control.description for control in (explorer.bits, explorer.scale))


def test_the_other_scale_and_all_bits_are_made_ahead(explorer):
    at(explorer, 4, True)
    assert explorer.nearby()[:2] == [(4, False), (4, True)] and {b for b, _ in explorer.nearby()} == {
        32, 16, 8, 6, 5, 4, 3, 2, 1,
    }  # fmt: skip


def test_the_static_picture_has_two_bits_beside_one(explorer):
    alt = explorer.static().alt
    assert "2 bits, a matrix: ET" in alt and "1 bit, a row: ET" in alt
