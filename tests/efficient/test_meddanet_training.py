"""Training a small Med-DANet V2, on a patient of 32 pixels whose tumour is bright."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from labkit.efficient import meddanet
from labkit.efficient.meddanet import CROP, SKIP, WHOLE, MedDANet, hard_choice
from labkit.efficient.meddanet_training import look_at, loss_of, rate, read, train_decision, train_networks
from labkit.scans.case import Case
from labkit.scans.slices import to_volume
from labkit.training.quick import STEPS


@pytest.fixture(scope="module")
def volume():
    rng = np.random.default_rng(0)
    label = np.zeros((20, 32, 32), np.uint8)
    label[5:9, 8:20, 8:20] = 4
    image = (rng.uniform(1, 2, (4, *label.shape)) + 2 * (label > 0)).astype(np.float32)
    return to_volume(Case("small", image, label, (2.0,) * 3, ("a", "b", "c", "d"), {1: "a", 2: "b", 4: "c"}))


def new():
    return MedDANet(c=4, n=32, m=16)


@pytest.fixture(scope="module")
def seen(volume):
    return look_at(new(), [volume], progress=False)


def test_sums_give_the_loss_of_the_pictures(volume, seen):
    model, rows = new().eval(), torch.tensor([3, 6, 7, 15])
    y, costs = meddanet.outcomes(model, volume.image[rows], adaptive=False)
    z = torch.randn(4, 3, requires_grad=True)
    by_pictures = meddanet.decision_loss(hard_choice(z), y, costs, volume.target[rows], price=0.7)
    by_sums = seen.loss(hard_choice(z), 0.7, rows)
    torch.testing.assert_close(by_sums, by_pictures, rtol=1e-4, atol=1e-5)
    one, two = (torch.autograd.grad(loss, z, retain_graph=True)[0] for loss in (by_sums, by_pictures))
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)


def test_networks_learn_repeatably_and_the_decision_does_not_move(volume):
    runs = []
    for _ in range(2):
        model = new()
        torch.manual_seed(len(runs))  # what the caller drew does not matter
        history = train_networks(model, [volume], steps=3, slices=4, progress=False)
        runs.append((model.state_dict(), [row["loss"] for row in history]))
    assert runs[0][1] == runs[1][1] and len(runs[0][1]) == 3
    assert all(torch.equal(runs[0][0][name], runs[1][0][name]) for name in runs[0][0])
    start = new().state_dict()
    moved = {
        name.split(".")[0] for name, tensor in start.items() if not torch.equal(tensor, runs[0][0][name])
    }
    assert moved == {"unet", "crop_head", "whole_head", "position"}
    assert not model.training or not model.unet.training


def test_a_dear_price_skips_and_the_model_keeps_its_own_decision(volume, seen):
    model = new()
    before = {name: tensor.clone() for name, tensor in model.decision.state_dict().items()}
    decision = train_decision(model, seen, price=50.0, steps=25, slices=8, lr=0.02, progress=False)
    assert (decision(volume.image).argmax(1) == SKIP).all()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.decision.state_dict().items())


@pytest.mark.parametrize("always", [SKIP, CROP, WHOLE])
def test_reading_by_one_choice_gives_what_that_choice_would(volume, always):
    model = new().eval()
    found = read(model, volume, always)
    y, costs = meddanet.outcomes(model, volume.image, adaptive=False)
    expected = np.asarray([0, 1, 2, 4], np.uint8)[y[:, always].argmax(1).numpy()]
    assert (found.labels == expected).mean() > 0.999 and (found.choices == always).all()
    np.testing.assert_allclose(found.costs + model.policy_cost[0], costs[:, always], rtol=1e-5)


def test_reading_by_decisions_is_the_models_forward(volume):
    model = new().eval()
    y, choices, costs = model(volume.image, adaptive=False)
    found = read(model, volume)
    assert np.array_equal(found.choices, choices.numpy())
    np.testing.assert_allclose(found.costs, costs, rtol=1e-5)


def test_the_loss_is_small_for_the_truth_and_large_beside_it():
    labels = torch.randint(4, (2, 8, 8))
    right = F.one_hot(labels, 4).movedim(-1, 1).float()
    assert loss_of(right, labels) < 1e-4 < 5 < loss_of(right.roll(1, 1), labels)


def test_the_rate_rises_then_falls_to_nothing():
    rates = [rate(step, 100, 1.0) for step in range(100)]
    assert rates[0] < 0.11 and max(rates) == rates[9] and rates[99] < 0.02


def test_quick_mode_takes_few_steps(volume, monkeypatch):
    monkeypatch.setenv("LABKIT_QUICK", "1")
    assert len(train_networks(new(), [volume], steps=50, slices=2, progress=False)) == STEPS
