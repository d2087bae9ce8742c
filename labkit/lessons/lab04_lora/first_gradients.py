"""`first_gradients`: the gradients of LoRA's two matrices, by hand."""

from __future__ import annotations

import torch

from labkit.lessons.exercise import Challenge, Exercise, mistake
from labkit.lessons.lab04_lora.inputs import matrix, random_layer, small_A


def first_gradients(
    x: torch.Tensor, g: torch.Tensor, A: torch.Tensor, B: torch.Tensor, s: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """dL/dA (r, k) and dL/dB (d, r) of z = W0 x + s B A x for rows x (n, k) and g = dL/dz (n, d)."""
    dA = s * B.T @ g.T @ x
    dB = s * g.T @ (x @ A.T)
    return dA, dB


# Challenges: the smallest first


def one_row_at_the_start() -> tuple:
    return matrix((1, 2, 1)), matrix((3,)), small_A(), matrix((0, 0)), 2


def one_row_later() -> tuple:
    return matrix((1, 2, 1)), matrix((3,)), small_A(), matrix((2, 1)), 2


def four_random_rows() -> tuple:
    x = torch.randn(4, 5)
    _, A, B = random_layer()
    g = torch.randn(4, 3)
    return x, g, A, B, 0.5


# Mistakes


@mistake("You left out the scale s: it stands between the loss and both matrices.")
def without_the_scale(x, g, A, B, s):
    dA = B.T @ g.T @ x
    dB = g.T @ (x @ A.T)
    return dA, dB


@mistake("You left the scale s out of the gradient of B: it stands between the loss and B too.")
def dB_without_the_scale(x, g, A, B, s):
    dA = s * B.T @ g.T @ x
    dB = g.T @ (x @ A.T)
    return dA, dB


@mistake("You left the scale s out of the gradient of A: it stands between the loss and A too.")
def dA_without_the_scale(x, g, A, B, s):
    dA = B.T @ g.T @ x
    dB = s * g.T @ (x @ A.T)
    return dA, dB


@mistake(
    "You added up the rows before you multiplied. Each row's gradient is a product of its own g and its own "
    "x; these products are added."
)
def summed_before_the_product(x, g, A, B, s):
    x, g = x.sum(0, keepdim=True), g.sum(0, keepdim=True)
    dA = s * B.T @ g.T @ x
    dB = s * g.T @ (x @ A.T)
    return dA, dB


@mistake("You scaled twice. On the way back to A and to B the factor s is met once each.")
def scaled_twice(x, g, A, B, s):
    dA = s * s * B.T @ g.T @ x
    dB = s * s * g.T @ (x @ A.T)
    return dA, dB


@mistake(
    "Your gradient of B is zero when B is zero. It does not depend on B at all: "
    "it is the slope at B, and a line through zero has a slope."
)
def dB_zero_where_B_is_zero(x, g, A, B, s):
    dA = s * B.T @ g.T @ x
    dB = s * g.T @ (x @ A.T) * (B != 0)
    return dA, dB


@mistake("You return the gradient of B first: return dA, dB.")
def dB_returned_first(x, g, A, B, s):
    dA = s * B.T @ g.T @ x
    dB = s * g.T @ (x @ A.T)
    return dB, dA


@mistake(
    "Your gradient of A does not pass through B. "
    "On its way from z to A it meets B, and there it is zero at the start."
)
def dA_not_through_B(x, g, A, B, s):
    dA = s * torch.ones_like(B).T @ g.T @ x
    dB = s * g.T @ (x @ A.T)
    return dA, dB


@mistake("Your gradient of B looks at x. What enters B is A x, r numbers a row.")
def dB_from_x(x, g, A, B, s):
    dA = s * B.T @ g.T @ x
    dB = s * g.T @ x
    return dA, dB


@mistake(
    "You averaged over the rows. Every row that went through a matrix adds to its gradient; "
    "the mean, if there is one, is in the loss and so in g."
)
def averaged_over_rows(x, g, A, B, s):
    dA = s * B.T @ g.T @ x / len(x)
    dB = s * g.T @ (x @ A.T) / len(x)
    return dA, dB


@mistake("Your gradients have the wrong sign. A gradient points uphill; the optimizer does the minus.")
def downhill(x, g, A, B, s):
    dA = -s * B.T @ g.T @ x
    dB = -s * g.T @ (x @ A.T)
    return dA, dB


@mistake("Your gradients are transposed. Each has the shape of its matrix: dA (r, k), dB (d, r).")
def transposed(x, g, A, B, s):
    dA = s * x.T @ g @ B
    dB = s * (A @ x.T) @ g
    return dA, dB


EXERCISE = Exercise(
    reference=first_gradients,
    challenges=(
        Challenge("one row, one output, rank 2, and B at zero", one_row_at_the_start),
        Challenge("the same, later: B has moved", one_row_later),
        Challenge("four random rows", four_random_rows),
    ),
    mistakes=(
        without_the_scale,
        dB_without_the_scale,
        dA_without_the_scale,
        summed_before_the_product,
        scaled_twice,
        dB_zero_where_B_is_zero,
        dB_returned_first,
        dA_not_through_B,
        dB_from_x,
        averaged_over_rows,
        downhill,
        transposed,
    ),
    hints=(
        "Draw x -> A x -> B A x -> times s, and go back. The gradient of a matrix is what arrived from "
        "above times what had gone in.",
        "What went into B is x A^T, and s g came in; what went into A is x, and s g B came in, each (n, "
        "...). The shapes asked for, (d, r) and (r, k), say which factor to transpose.",
        "dB = s * g.T @ (x @ A.T), and dA = s * (g @ B).T @ x.",
    ),
)
