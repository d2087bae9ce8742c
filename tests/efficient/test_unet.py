"""SmallUNet: its closed form, and that the training of the tuned transformers trains it."""

import numpy as np
import pytest
import torch

from labkit.efficient.unet import LR, SmallUNet
from labkit.methods import Full
from labkit.scans.case import BRATS_CHANNELS, BRATS_LABELS, Case
from labkit.scans.slices import to_volume
from labkit.training.evaluate import evaluate
from labkit.training.fit import Recipe, fit
from labkit.tuning import count, delta, tune


@pytest.mark.parametrize("c", [4, 8, 16])
def test_it_has_as_many_parameters_as_it_says(c):
    model = tune(SmallUNet(c), Full())
    assert count(model).tuned == count(model).pretrained == 6252 * c**2 + 273 * c + 18 * c**2 + 10 * c + 4


def test_a_volume_is_its_slices_and_the_start_is_the_seed_s():
    torch.manual_seed(1)
    one = SmallUNet(4, (32, 32)).eval()
    torch.manual_seed(2)
    same, other = SmallUNet(4, (32, 32)).eval(), SmallUNet(4, (32, 32), seed=1).eval()
    x = torch.randn(2, 3, 4, 32, 32)
    assert one(x).shape == (2, 3, 4, 32, 32)
    torch.testing.assert_close(one(x)[1, 2], same(x[1, 2:])[0], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(one(x), other(x), atol=1e-2)


def test_every_parameter_learns(volumes):
    model = tune(SmallUNet(4), Full()).train()
    model(volumes).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in delta(model).values())


def test_it_learns_to_find_what_is_bright():
    rng = np.random.default_rng(0)
    label = np.zeros((12, 32, 32), np.uint8)
    for i, (row, column) in enumerate(rng.integers(2, 18, (12, 2))):
        label[i, row : row + 10, column : column + 10] = 4
    image = rng.normal(0, 0.1, (4, *label.shape)).astype(np.float32) + 2 * (label > 0) + 1
    case = Case("small", image, label, (2.0,) * 3, BRATS_CHANNELS, dict(BRATS_LABELS))
    model = tune(SmallUNet(4, (32, 32)), Full())
    history = fit(model, [to_volume(case)], Recipe(steps=30, lr=LR, head_lr=LR, batch_size=8), progress=False)
    found = {row["region"]: row["dice"] for row in evaluate(model, [to_volume(case)], hausdorff=False)}
    assert history[-1]["loss"] < history[0]["loss"] / 2 and found["WT"] > 0.9
