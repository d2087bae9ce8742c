"""What labkit holds and a line or two around it turn into an answer is away when a hand-in is graded."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from labkit.efficient import meddanet
from labkit.grading.release import _exercises
from labkit.lessons import check, exercises
from labkit.lessons.feedback import NOT_YET
from labkit.methods import bottleneck, volumetric
from labkit.release.build import source_of
from labkit.training import cost


def insert(backbone, make, first=0):
    backbone.requires_grad_(False)
    places = ("attn", "mlp")
    bottleneck.insert(backbone, lambda layer, nothing: make(layer), places, nn.Identity, first)
    return sum(p.numel() for p in backbone.parameters() if p.requires_grad)


def kept(n, widths, learns, input_learns):
    layers = []
    for (before, behind), layer_learns in zip(itertools.pairwise(widths), learns, strict=True):
        layers += [nn.Linear(before, behind).requires_grad_(layer_learns), nn.GELU()]
    x = torch.randn(n, widths[0], requires_grad=input_learns)
    return cost.saved_for_backward(nn.Sequential(*layers[:-1]), x) // 4


def tokens_to_volume(x, S, h, w):
    return volumetric.to_volume(x.unflatten(1, (h, w)).unflatten(0, (-1, S)))


def mean_cost(choice, stages, other, bits):
    each = [meddanet.cost(tuple(stages[k].tolist()), other[k], bits) for k in range(3)]
    return (choice * torch.stack(each, 1)).sum(1).mean()


@pytest.mark.parametrize(
    "lab, name, answer, home",
    [
        ("06", "insert", insert, "labkit.methods.bottleneck:insert"),
        ("07", "kept", kept, "labkit.training.cost:saved_for_backward"),
        ("08", "tokens_to_volume", tokens_to_volume, "labkit.methods.volumetric:to_volume"),
        ("10", "mean_cost", mean_cost, "labkit.efficient.meddanet:cost"),
    ],
)
def test_a_line_around_labkits_own_function_passes_and_so_that_function_is_away(lab, name, answer, home):
    assert NOT_YET not in str(check(name, exercises(lab)[name], answer))  # otherwise there is nothing to hide
    assert home in _exercises(source_of(lab))[name]["hides"]
