"""Lab 02: right answers that look unlike ours pass; what cannot learn or miscounts does not, and is named."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from labkit.efficient import precision, prune
from labkit.efficient.counting import matrices
from labkit.lessons import check, exercises
from labkit.methods import Full
from labkit.networks.segmenter import segmenter
from labkit.scans.case import BRATS_CHANNELS, BRATS_LABELS, Case
from labkit.scans.slices import to_volume
from labkit.training.fit import Recipe, fit
from labkit.tuning import tune

EXERCISES = exercises("02")


# Right answers


def mask_by_topk(w, share):
    keep = torch.zeros(w.numel(), dtype=torch.bool)
    keep[w.abs().flatten().topk(w.numel() - round(share * w.numel())).indices] = True
    return keep.reshape(w.shape)


def mask_by_places(w, share):
    places = w.flatten().square().argsort().argsort()
    return (places >= round(share * w.numel())).view_as(w)


class RoundThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, s):
        return s * torch.round(w / s)

    @staticmethod
    def backward(ctx, g):
        return g, None


def quantize_by_a_function(w, bits):
    s = w.detach().abs().max(1, keepdim=True).values / (2 ** (bits - 1) - 1)
    return RoundThrough.apply(w, s.masked_fill(s == 0, 1.0))


def quantize_row_by_row(w, bits):
    rows = []
    for row in w:
        s = row.detach().abs().max() / (2 ** (bits - 1) - 1)
        rows.append(row if s == 0 else row + (s * (row / s).round() - row).detach())
    return torch.stack(rows)


def kd_by_kl_div(z, v, T):
    p, log_q = F.softmax(v.detach() / T, 1), F.log_softmax(z / T, 1)
    return T * T * F.kl_div(log_q, p, reduction="sum") / z[:, 0].numel()


def kd_by_cross_entropy(z, v, T):
    p = F.softmax(v.detach() / T, 1)
    entropy = -(p * p.log()).sum(1).mean()
    return T**2 * (F.cross_entropy(z / T, p) - entropy)


def bytes_by_ceil(places, left, bits):
    return math.ceil((places + left * bits) / 8)


def adder_pair_by_pair(X, filters, g):
    dX, dF = torch.zeros_like(X), torch.zeros_like(filters)
    for i in range(len(X)):
        for j in range(len(filters)):
            dX[i] += g[i, j] * (filters[j] - X[i]).clip(-1, 1)
            dF[j] += g[i, j] * (X[i] - filters[j])
    return dX, dF


@pytest.mark.parametrize(
    "name, answer",
    [
        ("magnitude_mask", mask_by_topk),
        ("magnitude_mask", mask_by_places),
        ("fake_quantize", quantize_by_a_function),
        ("fake_quantize", quantize_row_by_row),
        ("kd_loss", kd_by_kl_div),
        ("kd_loss", kd_by_cross_entropy),
        ("packed_bytes", bytes_by_ceil),
        ("adder_gradients", adder_pair_by_pair),
    ],
)
def test_a_right_answer_passes_however_it_is_written(name, answer):
    feedback = check(name, EXERCISES[name], answer)
    assert feedback, str(feedback)


# Wrong ones


def mask_of(count, w):
    keep = torch.ones(w.numel(), dtype=torch.bool)
    keep[w.abs().flatten().argsort()[:count]] = False
    return keep.view(w.shape)


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda w, share: mask_of(math.floor(share * w.numel() + 1e-9), w), "the number of weights down"),
        (lambda w, share: mask_of(math.ceil(share * w.numel() - 1e-9), w), "the number of weights up"),
        (lambda w, share: w.abs() > w.abs().quantile(share), "a threshold or a quantile"),
    ],
)
def test_a_mask_of_another_number_of_weights_fails_and_is_named(answer, words):
    feedback = check("magnitude_mask", EXERCISES["magnitude_mask"], answer)
    assert not feedback and words in feedback.misconception


@pytest.mark.parametrize("make", [lambda loss: loss.item(), lambda loss: loss.detach().numpy()])
def test_a_loss_that_is_no_tensor_is_told_so_and_not_of_is_leaf(make):
    feedback = check("kd_loss", EXERCISES["kd_loss"], lambda z, v, T: make(kd_by_kl_div(z, v, T)))
    assert not feedback and "the loss must be a tensor" in str(feedback) and "is_leaf" not in str(feedback)


def test_weights_that_are_no_tensor_are_told_so_and_not_of_is_leaf():
    def answer(w, bits):
        return np.asarray(quantize_row_by_row(w, bits).detach())

    feedback = check("fake_quantize", EXERCISES["fake_quantize"], answer)
    assert not feedback and "w-hat must be a tensor, not a ndarray" in str(feedback)
    assert "is_leaf" not in str(feedback)


def test_a_loss_for_each_pixel_is_told_its_shape_and_no_word_of_the_checks_own_gradient():
    def answer(z, v, T):
        p, log_q = F.softmax(v.detach() / T, 1), F.log_softmax(z / T, 1)
        return T**2 * F.kl_div(log_q, p, reduction="none")

    feedback = check("kd_loss", EXERCISES["kd_loss"], answer)
    assert feedback.broken == "has the right shape" and "implicitly created" not in str(feedback)


@pytest.mark.parametrize("cut", [torch.no_grad(), torch.inference_mode()])
def test_a_loss_without_a_graph_does_not_pass_though_its_value_is_right(cut):
    feedback = check("kd_loss", EXERCISES["kd_loss"], cut(kd_by_kl_div))
    assert not feedback and "gradient for the student" in str(feedback)


# What the lab says of labkit's own functions


def test_masks_applied_after_every_step_keep_their_zeros_and_all_else_learns():
    rng = np.random.default_rng(0)
    label = rng.choice(np.array([0, 1, 2, 4], np.uint8), (3, 96, 96))
    image = rng.uniform(1, 2, (4, *label.shape)).astype(np.float32)
    volume = to_volume(Case("small", image, label, (2.0,) * 3, BRATS_CHANNELS, dict(BRATS_LABELS)))
    model = tune(segmenter("tiny", in_chans=4, classes=4), Full())
    before = {name: w.detach().clone() for name, w in matrices(model.backbone).items()}
    masks = prune.per_layer(before, 0.7)
    prune.mask(model.backbone, masks)
    recipe = Recipe(steps=1, batch_size=1)
    fit(model, [volume], recipe, progress=False, on_step=lambda row: prune.mask(model.backbone, masks))
    for name, w in matrices(model.backbone).items():
        assert not w[~masks[name]].any() and not torch.equal(w[masks[name]], before[name][masks[name]])


def test_a_fitted_scale_errs_less_at_two_bits_than_one_for_the_largest_weight():
    w = torch.randn(6, 200, generator=torch.Generator().manual_seed(0))
    errors = [
        (precision.fake_quantize(w, 2, True, s) - w).square().sum()
        for s in (None, precision.best_scale(w, 2, True))
    ]
    assert errors[1] < errors[0] / 2
