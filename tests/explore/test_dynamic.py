"""DynamicExplorer: what it says of a patient is what the decision network does, on a small new network."""

import numpy as np
import pytest
import torch
from torch import nn

from labkit.efficient.meddanet import CROP, SKIP, WHOLE, MedDANet
from labkit.efficient.meddanet_training import read
from labkit.explore.dynamic import COLOURS, DynamicExplorer, plan, strip
from labkit.scans.case import BRATS_LABELS, Case
from labkit.scans.slices import to_volume


class By(nn.Module):
    """Decides by how bright a slice is: three thresholds stand for three prices."""

    def __init__(self, crop: float, whole: float):
        super().__init__()
        self.crop, self.whole = crop, whole

    def forward(self, x):
        bright = x[:, 0].mean((1, 2))
        return torch.stack(
            [torch.zeros_like(bright), bright - self.crop, 2 * bright - self.whole - self.crop], 1
        )


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    label = np.zeros((5, 32, 32), np.uint8)
    label[1:3, 10:20, 10:20] = 4
    image = (
        rng.uniform(1, 2, (4, *label.shape)).astype(np.float32)
        + np.arange(5, dtype=np.float32)[:, None, None]
    )
    return Case("small", image, label, (2.0,) * 3, ("T1", "T1ce", "T2", "FLAIR"), dict(BRATS_LABELS))


@pytest.fixture(scope="module")
def explorer(case):
    decisions = {2.0: By(9, 9), 0.0: By(-9, -9), 0.5: By(-0.3, 0.9)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_HEADLESS", "1")
        yield DynamicExplorer(MedDANet(c=4, n=32, m=16), decisions, [case])


@pytest.mark.parametrize("price", [0.0, 0.5, 2.0])
def test_plan_and_segmentation_are_those_of_the_network(explorer, case, price):
    explorer.price.value = price
    model = explorer.network(price, 0)
    expected = read(model, to_volume(case))
    now = explorer.plan(price, 0)
    assert np.array_equal(now.choices, expected.choices)
    np.testing.assert_allclose(now.costs, expected.costs, rtol=1e-5)
    found = np.stack([explorer.segment(price, 0, i) for i in range(5)])
    assert (found == expected.labels).mean() > 0.999


def test_prices_from_low_to_high_compute_less(explorer):
    costs = [explorer.plan(price, 0).costs.mean() for price in (0.0, 0.5, 2.0)]
    assert costs == sorted(costs, reverse=True) and costs[0] > 1 > costs[2] > 0  # the decision itself costs
    assert {*explorer.plan(0.5, 0).choices.tolist()} == {SKIP, CROP, WHOLE}


def test_the_map_is_the_window_that_is_computed(explorer):
    explorer.price.value = 0.5
    computed = {SKIP: 0, CROP: 16 * 16, WHOLE: 32 * 32}
    position = explorer.network(0.5, 0).position
    for i, choice in enumerate(explorer.plan(0.5, 0).choices):
        explorer.slice.value = i
        assert explorer.tokens().sum() == computed[int(choice)]
        if choice == CROP:
            with torch.no_grad():
                a = position(explorer.volumes[0].image[i : i + 1]).sigmoid()
            row, column = (a[0] * 16).round().int().tolist()
            assert explorer.tokens()[row : row + 16, column : column + 16].all()


def test_the_words_count_slices_and_cost(explorer):
    explorer.price.value = 2.0
    assert explorer.describe().startswith("Price 2: of 5 slices 5 skipped, 0 cropped, 0 whole, cost ")
    assert "This one is skipped." in explorer.describe()


def test_a_strip_says_choices_by_height_and_colour_and_marks_tumour_and_place(case):
    drawn = strip(np.array([SKIP, CROP, WHOLE, SKIP, SKIP]), case.label, now=4)
    bars = [(drawn[:60, 8 * i + 4] == COLOURS[k]).all(1).sum() for i, k in enumerate((SKIP, CROP, WHOLE))]
    assert 0 < bars[0] < bars[1] < bars[2]
    assert [bool((drawn[65, 8 * i + 4] == 0).all()) for i in range(5)] == [False, True, True, False, False]
    assert (drawn[:, 32] == 0).all() and (drawn[:, 39] == 0).all()


def test_a_plan_segments_nothing(case, monkeypatch):
    model = MedDANet(c=4, n=32, m=16).eval()
    monkeypatch.setattr(model.unet, "forward", None)
    assert plan(model, By(-9, -9), to_volume(case).image).choices.tolist() == [WHOLE] * 5


def test_every_control_has_a_label_and_the_static_picture_every_price(explorer):
    assert explorer.price.description
    alt = explorer.static().alt
    assert all(f"price {price}: " in alt for price in ("0", "0.5", "2")) and "Dice ET" in alt
