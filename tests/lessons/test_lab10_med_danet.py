"""Lab 10: right answers that look unlike ours pass, to the last digit that float32 has; what cannot learn, or
would stop a later cell, does not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from labkit.lessons import check, exercises

EXERCISES = exercises("10")


# Right answers


def grid_by_stacking(a, m, n):
    zoom, zero = torch.full_like(a[:, 0], m / n), torch.zeros_like(a[:, 0])
    y, x = ((2 * a - 1) * (1 - m / n)).unbind(1)
    return torch.stack([torch.stack([zoom, zero, x], 1), torch.stack([zero, zoom, y], 1)], 1)


def grid_by_corners(a, m, n):
    theta = torch.eye(2, 3).repeat(len(a), 1, 1) * m / n
    centre = 2 * (a * (n - m) + m / 2) / n - 1
    return theta + torch.cat([torch.zeros(len(a), 2, 2), centre.flip(1)[:, :, None]], 2)


def pasted_by_divided_shift(window, a, n):
    s = window.shape[-1] / n
    theta = torch.zeros(len(a), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / s
    theta[:, :, 2] = -((2 * a - 1) * (1 - s)).flip(1) / s
    grid = F.affine_grid(theta, [*window.shape[:2], n, n], align_corners=False)
    return F.grid_sample(window, grid, align_corners=False)


def pasted_by_the_inverse_matrix(window, a, n):
    there = torch.cat([grid_by_stacking(a, window.shape[-1], n), torch.zeros(len(a), 1, 3)], 1)
    there[:, 2, 2] = 1
    grid = F.affine_grid(torch.linalg.inv(there)[:, :2], [*window.shape[:2], n, n], align_corners=False)
    return F.grid_sample(window, grid, align_corners=False)


def pasted_by_a_grid_by_hand(window, a, n):
    m = window.shape[-1]
    pixels = torch.arange(n) + 0.5
    rows, columns = (2 * (pixels - a[:, k, None] * (n - m)) / m - 1 for k in (0, 1))
    grid = torch.stack(
        [columns[:, None, :].expand(-1, n, n), rows[:, :, None].expand(-1, n, n)],
        -1,
    )
    return F.grid_sample(window, grid, align_corners=False)


def choice_by_scatter(z):
    soft = torch.softmax(z, dim=-1)
    hard = torch.zeros_like(z).scatter(1, z.argmax(1, keepdim=True), 1.0)
    return (hard - soft).detach() + soft


def choice_by_comparison(z):
    soft = F.softmax(z, 1)
    hard = (z == z.max(1, keepdim=True).values).float()
    return soft + (hard - soft).detach()


def cost_by_einsum(choice, stages, other, bits):
    chosen = torch.einsum("bk,ki,bi->b", choice, stages, bits) / 32
    return (chosen + choice @ other).sum() / len(choice)


def cost_slice_by_slice(choice, stages, other, bits):
    costs = []
    for row, b in zip(choice, bits, strict=True):
        costs.append(sum(row[k] * ((stages[k] * b).sum() / 32 + other[k]) for k in range(3)))
    return torch.stack(costs).mean()


def cheapest_by_loops(costs, dices, base, allowed):
    best = None
    for k in range(len(costs)):
        safe = True
        for one, before in zip(dices[k], base, strict=True):
            if not math.isnan(before) and before - one > allowed:
                safe = False
        if safe and (best is None or costs[k] < costs[best]):
            best = k
    return best


def cheapest_by_order(costs, dices, base, allowed):
    there = ~np.isnan(base)
    for k in np.argsort(costs):
        if (dices[k][there] >= base[there] - allowed).all():
            return k
    return None


@pytest.mark.parametrize(
    "name, answer",
    [
        ("window_grid", grid_by_stacking),
        ("window_grid", grid_by_corners),
        ("paste", pasted_by_divided_shift),
        ("paste", pasted_by_the_inverse_matrix),
        ("paste", pasted_by_a_grid_by_hand),
        ("hard_choice", choice_by_scatter),
        ("hard_choice", choice_by_comparison),
        ("mean_cost", cost_by_einsum),
        ("mean_cost", cost_slice_by_slice),
        ("cheapest_safe", cheapest_by_loops),
        ("cheapest_safe", cheapest_by_order),
    ],
)
def test_a_right_answer_passes_however_it_is_written(name, answer):
    feedback = check(name, EXERCISES[name], answer)
    assert feedback, str(feedback)


# Wrong ones


def place_as_numbers(a, m, n):
    return grid_by_stacking(torch.tensor(a.tolist()), m, n)


def pasted_at_a_number(window, a, n):
    return pasted_by_divided_shift(window, a.detach(), n)


def a_new_beginning(z):
    return F.one_hot(z.argmax(1), z.shape[1]).float().requires_grad_()


def a_new_beginning_by_clone(z):
    hard = F.one_hot(z.argmax(1), z.shape[1]).float()
    return hard.clone().detach().requires_grad_(True)


def a_steep_softmax(z):
    return (1000 * z).softmax(1)


def cost_of_the_number(choice, stages, other, bits):
    k = choice.argmax(1)
    return ((stages[k] * bits).sum(1) / 32 + other[k]).mean()


@pytest.mark.parametrize(
    "name, answer, named",
    [
        ("window_grid", place_as_numbers, "no gradient leads from it to a"),
        ("paste", pasted_at_a_number, "no gradient leads from it to a"),
        ("hard_choice", a_new_beginning, "makes a new beginning"),
        ("hard_choice", a_new_beginning_by_clone, "makes a new beginning"),
        ("hard_choice", a_steep_softmax, "a softmax so steep"),
        ("mean_cost", cost_of_the_number, "no gradient leads from it to the choice"),
    ],
)
def test_right_values_that_cannot_learn_are_called_by_name(name, answer, named):
    feedback = check(name, EXERCISES[name], answer)
    assert not feedback and named in feedback.misconception, str(feedback)


def pasted_by_the_nearest(window, a, n):
    m = window.shape[-1]
    theta = torch.zeros(len(a), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = n / m
    theta[:, :, 2] = ((1 - 2 * a) * (n - m) / m).flip(1)
    grid = F.affine_grid(theta, [*window.shape[:2], n, n], align_corners=False)
    return F.grid_sample(window, grid, mode="nearest", align_corners=False)


def test_the_nearest_pixel_is_not_taken_for_slicing_alone():
    feedback = check("paste", EXERCISES["paste"], pasted_by_the_nearest)
    assert not feedback and 'mode="nearest"' in feedback.misconception


def slightly_off(window, a, n):
    m = window.shape[-1]
    return pasted_by_divided_shift(window, a + 0.001 / (n - m), n)


def test_a_window_a_thousandth_of_a_pixel_off_its_place_does_not_pass():
    assert not check("paste", EXERCISES["paste"], slightly_off)


@pytest.mark.parametrize("name", EXERCISES)
@pytest.mark.parametrize("returned", [lambda *_: "a text", lambda *_: torch.ones(7), lambda *_: 3j])
def test_what_is_nothing_of_the_kind_is_refused_without_an_error_of_ours(name, returned):
    words = str(check(name, EXERCISES[name], returned))
    assert "Error" not in words and "attribute" not in words
