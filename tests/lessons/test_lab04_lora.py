"""Lab 04: right answers of other kinds pass, and what would stop a later cell does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labkit.lessons import exercises
from labkit.lessons.exercise import check
from labkit.lessons.feedback import NOT_YET, PASS


def checked(name, answer):
    return check(name, exercises("04")[name], answer)


# Right answers


def parameters(d, k, r):
    return nn.Parameter(torch.randn(r, k)), nn.Parameter(torch.zeros(d, r))


def weight_of_a_layer(d, k, r):
    return nn.Linear(k, r, bias=False).weight, torch.zeros(d, r, requires_grad=True)


def merged_first(x, W0, A, B, alpha):
    return x @ (W0 + alpha / len(A) * B @ A).T


class MergedInForward(nn.Module):
    def __init__(self, original, A, B, alpha):
        super().__init__()
        for p in original.parameters():
            p.requires_grad = False
        self.original, self.A, self.B = original, nn.Parameter(A.clone()), nn.Parameter(B.clone())
        self.scale = alpha / B.shape[1]

    def forward(self, x):
        return F.linear(x, self.original.weight + self.scale * self.B @ self.A, self.original.bias)


def recursive(model, names, wrap):
    count = 0
    for name, child in list(model.named_children()):
        if name in names and isinstance(child, nn.Linear):
            setattr(model, name, wrap(child))
            count += 1
        else:
            count += recursive(child, names, wrap)
    return count


@pytest.mark.parametrize(
    "name, answer",
    [
        ("start", parameters),
        ("start", weight_of_a_layer),
        ("lora", merged_first),
        ("LoRALinear", MergedInForward),
        ("inject", recursive),
    ],
)
def test_a_right_answer_passes_however_it_is_written(name, answer):
    assert checked(name, answer).status == PASS


# Wrong ones


def numpy_start(d, k, r):
    return np.random.randn(r, k), np.zeros((d, r))


def whole_numbers(d, k, r):
    return torch.ones(r, k, dtype=torch.long), torch.zeros(d, r, dtype=torch.long)


def through_numpy(x, W0, A, B, alpha):
    x, W0, A, B = (M.numpy() for M in (x, W0, A, B))
    return torch.from_numpy(x @ W0.T + np.float32(alpha / len(A)) * (x @ A.T) @ B.T)


@torch.no_grad()
def without_gradients(x, W0, A, B, alpha):
    return merged_first(x, W0, A, B, alpha)


def A_detached(x, W0, A, B, alpha):
    return merged_first(x, W0, A.detach(), B, alpha)


class OtherNames(nn.Module):
    def __init__(self, original, A, B, alpha):
        super().__init__()
        self.frozen, self.down, self.up = original.requires_grad_(False), nn.Parameter(A), nn.Parameter(B)
        self.scale = alpha / len(A)

    def forward(self, x):
        return self.frozen(x) + self.scale * (x @ self.down.T) @ self.up.T


class NoModule:
    def __init__(self, original, A, B, alpha):
        original.requires_grad_(False)


@pytest.mark.parametrize(
    "name, answer, words",
    [
        ("start", numpy_start, "A is a NumPy array"),
        ("start", whole_numbers, "A holds whole numbers"),
        ("lora", through_numpy, "NumPy keeps no record for gradients"),
        ("lora", without_gradients, "no gradient reaches A or B"),
        ("lora", A_detached, "no gradient reaches A,"),
        ("LoRALinear", OtherNames, "down, up"),
        ("LoRALinear", NoModule, "no nn.Module"),
    ],
)
def test_what_would_stop_a_later_cell_is_refused_in_words(name, answer, words):
    feedback = checked(name, answer)
    assert feedback.status == NOT_YET
    assert words in str(feedback)
