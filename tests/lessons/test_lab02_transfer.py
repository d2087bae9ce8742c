"""Lab 02: right answers that look unlike ours pass; a live loss and a spoilt model do not, and are named."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from labkit.lessons import check, exercises

EXERCISES = exercises("02")


def freeze_by_name(model):
    for name, p in model.named_parameters():
        p.requires_grad = name.startswith("decoder")
    return model


def count_by_shape(model):
    return sum(torch.Size(p.shape).numel() for p in filter(lambda p: p.requires_grad, model.parameters()))


def step_that_tidies_up(model, optimizer, x, y):
    model.zero_grad()
    loss = ((model(x) - y) ** 2).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.tolist()


def step_with_a_live_loss(model, optimizer, x, y):
    optimizer.zero_grad()
    loss = F.mse_loss(model(x), y)
    loss.backward()
    optimizer.step()
    return loss


def step_in_eval_mode(model, optimizer, x, y):
    model.eval()
    return step_that_tidies_up(model, optimizer, x, y)


def freeze_and_scale(model):
    freeze_by_name(model)
    with torch.no_grad():
        model.backbone[0].weight.mul_(0.9)


@pytest.mark.parametrize(
    "name, answer",
    [
        ("freeze", freeze_by_name),
        ("count_tuned", count_by_shape),
        ("training_step", step_that_tidies_up),
    ],
)
def test_a_right_answer_passes_however_it_is_written(name, answer):
    feedback = check(name, EXERCISES[name], answer)
    assert feedback, str(feedback)


def test_a_training_step_that_returns_the_live_loss_is_told_what_a_live_loss_costs():
    feedback = check("training_step", EXERCISES["training_step"], step_with_a_live_loss)
    assert feedback.broken == "has the right type" and "graph" in feedback.misconception


@pytest.mark.parametrize(
    "name, answer, where",
    [
        ("training_step", step_in_eval_mode, "model.training"),
        ("freeze", freeze_and_scale, "model.backbone.0.weight"),
    ],
)
def test_what_an_answer_does_to_the_model_besides_is_shown(name, answer, where):
    feedback = check(name, EXERCISES[name], answer)
    assert feedback.broken == "leaves model as it should be" and where in str(feedback)
