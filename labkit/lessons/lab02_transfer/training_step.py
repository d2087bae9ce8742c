"""`training_step`: forget, predict and compare, differentiate, move."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from labkit.lessons.exercise import Challenge, Exercise, mistake
from labkit.lessons.lab02_transfer.inputs import Toy, with_frozen_backbone


def training_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor
) -> float:
    """One step on inputs x (N, 2) and targets y (N, 1); returns the loss from before the step."""
    optimizer.zero_grad()
    loss = F.mse_loss(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.item()


# Challenges


def first_step() -> tuple:
    model = with_frozen_backbone(Toy())
    optimizer = torch.optim.SGD(model.decoder.parameters(), lr=0.1)
    x = torch.randn(3, 2)
    y = torch.randn(3, 1)
    return model, optimizer, x, y


def step_after_another() -> tuple:
    model, optimizer, x, y = first_step()
    F.mse_loss(model(x), y + 1).backward()  # the gradient of the step before
    return model, optimizer, x, y


# Mistakes


@mistake("Gradients add up: without zero_grad() this step also repeats the one before.")
def without_zero_grad(model, optimizer, x, y):
    loss = F.mse_loss(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.item()


@mistake(
    "Nothing moved. Either optimizer.step() is missing, for backward() only computes gradients; or "
    "zero_grad() stands between backward() and step() and wipes out what was just computed."
)
def without_step(model, optimizer, x, y):
    optimizer.zero_grad()
    loss = F.mse_loss(model(x), y)
    loss.backward()
    return loss.item()


@mistake("Your loss does not look at y: the network learns to predict zero.")
def loss_without_y(model, optimizer, x, y):
    optimizer.zero_grad()
    loss = model(x).square().mean()
    loss.backward()
    optimizer.step()
    return loss.item()


@mistake("Return the loss you computed the gradient of, from before the step.")
def loss_after_the_step(model, optimizer, x, y):
    optimizer.zero_grad()
    loss = F.mse_loss(model(x), y)
    loss.backward()
    optimizer.step()
    return F.mse_loss(model(x), y).item()


@mistake(
    "You return the loss as a tensor. It holds on to the graph of the whole step, so a list of losses fills "
    "the memory: loss.item() is the plain number."
)
def loss_as_a_tensor(model, optimizer, x, y):
    optimizer.zero_grad()
    loss = F.mse_loss(model(x), y)
    loss.backward()
    optimizer.step()
    return loss


EXERCISE = Exercise(
    reference=training_step,
    challenges=(
        Challenge("a first step", first_step),
        Challenge("a step after another one, whose gradient is still there", step_after_another),
    ),
    changes=("model", "optimizer"),
    mistakes=(without_zero_grad, without_step, loss_without_y, loss_after_the_step, loss_as_a_tensor),
    hints=(
        "Four things happen in a step: forget, predict and compare, differentiate, move.",
        "zero_grad, loss = mse(model(x), y), loss.backward(), optimizer.step().",
        "optimizer.zero_grad(); loss = F.mse_loss(model(x), y); loss.backward(); then step, and return "
        "loss.item().",
    ),
)
