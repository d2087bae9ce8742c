import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labkit.efficient.adder import AdderConv2d, adder2d


def distances(x, w, stride, padding, minus=torch.abs):
    """The definition, one number at a time: minus the sum over the patch of `minus`(X - F)."""
    x, k = F.pad(x, [padding] * 4), w.shape[-1]
    rows, columns = ((n - k) // stride + 1 for n in x.shape[-2:])
    y = x.new_empty(len(x), len(w), rows, columns)
    for i in range(rows):
        for j in range(columns):
            patch = x[:, None, :, i * stride : i * stride + k, j * stride : j * stride + k]
            y[:, :, i, j] = -minus(patch - w).sum((2, 3, 4))
    return y


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (1, 1), (2, 1)])
def test_measures_minus_the_distance_of_patch_and_filter(stride, padding):
    x, w = torch.randn(2, 3, 6, 7), torch.randn(4, 3, 3, 3)
    y = adder2d(x, w, stride, padding)
    torch.testing.assert_close(y, distances(x, w, stride, padding))
    assert (y < 0).all()


@pytest.mark.parametrize(("X", "Y", "dX"), [(2.0, -1.5, -1.0), (0.7, -0.2, -0.2)])
def test_one_number_by_hand(X, Y, dX):
    x, w = torch.full((1, 1, 1, 1), X, requires_grad=True), torch.full((1, 1, 1, 1), 0.5, requires_grad=True)
    y = adder2d(x, w)
    y.sum().backward()
    found = torch.stack([t.detach().flatten()[0] for t in (y, x.grad, w.grad)])
    torch.testing.assert_close(found, torch.tensor([Y, dX, 0.2]))


def finite_differences(function, at, h=1e-5):
    g = torch.empty_like(at)
    for i in range(at.numel()):
        step = torch.zeros_like(at).flatten()
        step[i] = h
        step = step.view_as(at)
        g.flatten()[i] = (function(at + step) - function(at - step)) / (2 * h)
    return g


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 0)])
def test_gradients_are_those_of_half_a_square_in_the_filter_and_of_huber_in_the_input(stride, padding):
    x = (2 * torch.randn(2, 2, 4, 5, dtype=torch.float64)).requires_grad_()
    w = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    y = adder2d(x, w, stride, padding, eta=None)
    g = torch.randn_like(y)
    y.backward(g)
    square = lambda e: e.square() / 2  # noqa: E731
    huber = lambda e: F.huber_loss(e, torch.zeros_like(e), reduction="none")  # noqa: E731
    in_w = finite_differences(
        lambda w: (g * distances(x.detach(), w, stride, padding, square)).sum(), w.detach()
    )
    in_x = finite_differences(
        lambda x: (g * distances(x, w.detach(), stride, padding, huber)).sum(), x.detach()
    )
    torch.testing.assert_close(w.grad, in_w, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(x.grad, in_x, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scale", [1, 100])
def test_the_filters_gradient_has_one_length_whatever_the_loss(scale):
    torch.manual_seed(0)
    layer, x = AdderConv2d(3, 5, 3), torch.randn(2, 3, 8, 8, requires_grad=True)
    (scale * layer(x).square().mean()).backward()
    assert layer.weight.grad.norm().item() == pytest.approx(math.sqrt(135) / 5) == pytest.approx(2.323790)
    free = AdderConv2d(3, 5, 3, eta=None)
    free.load_state_dict(layer.state_dict())
    free(x).square().mean().backward()
    cosine = F.cosine_similarity(free.weight.grad.flatten(), layer.weight.grad.flatten(), 0)
    assert cosine.item() == pytest.approx(1)


def test_no_gradient_stays_none_at_all():
    layer = AdderConv2d(1, 1)
    (0 * layer(torch.randn(1, 1, 4, 4))).sum().backward()
    assert torch.equal(layer.weight.grad, torch.zeros(1, 1, 3, 3))


def test_normal_inputs_give_the_mean_and_variance_of_the_docstring():
    layer = AdderConv2d(16, 64, 3)
    y = layer(torch.randn(4, 16, 16, 16))
    assert y.mean().item() == pytest.approx(-2 * 144 / math.sqrt(math.pi), rel=0.02)
    assert y.var().item() == pytest.approx((1 - 2 / math.pi) * 2 * 144, rel=0.15)


def test_learns():
    network = nn.Sequential(AdderConv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 1))
    x = torch.randn(4, 1, 8, 8)
    target = F.avg_pool2d(x, 3, 1, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(30):
        losses.append(F.mse_loss(network(x), target))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < target.var() * 0.7
