"""`merge`: LoRA's update folded into the frozen matrix."""

from __future__ import annotations

import math

import torch

from labkit.lessons.exercise import Challenge, Exercise, mistake
from labkit.lessons.lab04_lora.inputs import matrix, random_layer, small_A


def merge(W0: torch.Tensor, A: torch.Tensor, B: torch.Tensor, alpha: float) -> torch.Tensor:
    """W0 + (alpha / r) B A: (d, k), for A (r, k) and B (d, r)."""
    return W0 + alpha / len(A) * B @ A


# Challenges: the smallest first


def one_output() -> tuple:
    return matrix((1, 2, 0)), small_A(), matrix((2, 1)), 4


def two_outputs() -> tuple:
    return matrix((1, 0, 0), (0, 1, 0)), small_A(), matrix((1, 2), (0, 1)), 4


def random_matrices() -> tuple:
    W0, A, B = random_layer()
    return W0, A, B, 5


# Mistakes


@mistake("You left out the scale alpha / r. Merged and unmerged, the layer must compute the same.")
def without_the_scale(W0, A, B, alpha):
    return W0 + B @ A


@mistake("You scaled by alpha. The scale is alpha / r.")
def scaled_by_alpha(W0, A, B, alpha):
    return W0 + alpha * B @ A


@mistake("You scaled by r / alpha; it is alpha / r.")
def scaled_by_r_over_alpha(W0, A, B, alpha):
    return W0 + len(A) / alpha * B @ A


@mistake("You divided alpha by the number of outputs; r is the number of rows of A.")
def divided_by_the_outputs(W0, A, B, alpha):
    return W0 + alpha / len(B) * B @ A


@mistake("You divided alpha by the width of the input; r is the number of rows of A.")
def divided_by_the_inputs(W0, A, B, alpha):
    return W0 + alpha / A.shape[1] * B @ A


@mistake("You subtracted: that is how one would unmerge.")
def unmerged(W0, A, B, alpha):
    return W0 - alpha / len(A) * B @ A


@mistake("You return the update alone; the merged matrix is W0 plus it.")
def update_alone(W0, A, B, alpha):
    return alpha / len(A) * B @ A


@mistake("You scaled W0 too: alpha / r belongs to the update alone.")
def W0_scaled_too(W0, A, B, alpha):
    return alpha / len(A) * (W0 + B @ A)


@mistake("You multiplied A B. The product is B A: (d, r) times (r, k) is (d, k).")
def multiplied_A_B(W0, A, B, alpha):
    return W0 + alpha / len(A) * A @ B


@mistake("You changed W0 itself (`+=` works in place). Then the pretrained matrix is lost; return a new one.")
def changed_in_place(W0, A, B, alpha):
    W0 += alpha / len(A) * B @ A
    return W0


@mistake("You divided with //, which drops the fraction: alpha / r.")
def fraction_dropped(W0, A, B, alpha):
    return W0 + alpha // len(A) * B @ A


@mistake(
    "You scaled by alpha / sqrt(r). That is rsLoRA (Kalajdzievski, 2023); LoRA's own scale is alpha / r."
)
def scaled_as_in_rslora(W0, A, B, alpha):
    return W0 + alpha / math.sqrt(len(A)) * B @ A


EXERCISE = Exercise(
    reference=merge,
    challenges=(
        Challenge("one output, rank 2", one_output),
        Challenge("two outputs, rank 2", two_outputs),
        Challenge("a random layer", random_matrices),
    ),
    mistakes=(
        without_the_scale,
        scaled_by_alpha,
        scaled_by_r_over_alpha,
        divided_by_the_outputs,
        divided_by_the_inputs,
        unmerged,
        update_alone,
        W0_scaled_too,
        multiplied_A_B,
        changed_in_place,
        fraction_dropped,
        scaled_as_in_rslora,
    ),
    hints=(
        "One matrix that does what both did. What must be added to W0?",
        "W = W0 + (alpha / r) B A, as a new tensor.",
        "B @ A is the update, alpha / len(A) its scale; add, and do not use += .",
    ),
)
