"""`count_tuned`: how many numbers learn."""

from __future__ import annotations

from torch import nn

from labkit.lessons.exercise import Challenge, Exercise, mistake
from labkit.lessons.lab02_transfer.inputs import Toy, with_frozen_backbone


def count_tuned(model: nn.Module) -> int:
    """How many numbers there are in all parameters, of any shape, that have `requires_grad`."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


# Challenges


def decoder_without_bias() -> tuple:
    return (with_frozen_backbone(Toy(decoder_bias=False)),)


def decoder_with_bias() -> tuple:
    return (with_frozen_backbone(Toy(width=5)),)


# Mistakes


@mistake("You counted the frozen parameters too; only those with requires_grad learn.")
def counted_frozen_ones_too(model):
    return sum(p.numel() for p in model.parameters())


@mistake("You counted tensors. A weight matrix is one tensor and holds many numbers: `.numel()`.")
def counted_tensors(model):
    return sum(1 for p in model.parameters() if p.requires_grad)


@mistake("You left out biases and norms: a vector has parameters as well.")
def counted_matrices_only(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad and p.ndim >= 2)


@mistake("`len` of a matrix is its number of rows; `.numel()` is how many numbers it holds.")
def counted_rows(model):
    return sum(len(p) for p in model.parameters() if p.requires_grad)


EXERCISE = Exercise(
    reference=count_tuned,
    challenges=(
        Challenge("a decoder of one row and no bias, on a frozen backbone", decoder_without_bias),
        Challenge("a decoder with bias, on a frozen backbone", decoder_with_bias),
        Challenge("everything learns", lambda: (Toy(width=3),)),
    ),
    mistakes=(counted_frozen_ones_too, counted_tensors, counted_matrices_only, counted_rows),
    hints=(
        "Go through the parameters, keep those that learn, add up how many numbers each holds.",
        "The sum over all p with p.requires_grad of p.numel().",
        "return sum(p.numel() for p in model.parameters() if ...)",
    ),
)
