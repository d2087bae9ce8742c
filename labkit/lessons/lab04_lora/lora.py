"""`lora`: rows sent through a frozen matrix and LoRA's update beside it."""

from __future__ import annotations

import math

import torch

from labkit.lessons.exercise import Challenge, Exercise, mistake
from labkit.lessons.lab04_lora.inputs import matrix, random_layer, small_A


def lora(x: torch.Tensor, W0: torch.Tensor, A: torch.Tensor, B: torch.Tensor, alpha: float) -> torch.Tensor:
    """Rows x (n, k) through W0 + (alpha / r) B A: (n, d)."""
    return x @ W0.T + alpha / len(A) * (x @ A.T) @ B.T


# Challenges: the smallest first


def one_row() -> tuple:
    return matrix((1, 1, 2)), matrix((1, 2, 1)), small_A(), matrix((2, 1)), 4


def one_row_at_the_start() -> tuple:
    return matrix((1, 1, 2)), matrix((1, 2, 1)), small_A(), matrix((0, 0)), 4


def four_random_rows() -> tuple:
    x = torch.randn(4, 5)
    W0, A, B = random_layer()
    return x, W0, A, B, 5


# What a later cell needs: A and B learn


def lets_gradients_through(
    answer, output, x: torch.Tensor, W0: torch.Tensor, A: torch.Tensor, B: torch.Tensor, alpha: float
) -> str | None:
    """Whether A and B get gradients through an answer; a sentence where one does not."""
    A, B = (M.clone().requires_grad_() for M in (A, B))
    try:
        output = answer(x, W0, A, B, alpha)
    except RuntimeError as error:
        if "numpy()" not in str(error):
            raise
        return "NumPy keeps no record for gradients, so A and B could never learn: stay with torch's tensors"
    found = (None, None)
    if output.requires_grad:
        found = torch.autograd.grad(output.sum(), (A, B), allow_unused=True)
    if lost := [name for name, gradient in zip("AB", found, strict=True) if gradient is None]:
        return (
            f"no gradient reaches {' or '.join(lost)}, so it could never learn: `.detach()`, `.data`, "
            "torch.no_grad() and a way through NumPy all cut the record of what was computed"
        )
    return None


# Mistakes


@mistake("You multiplied by alpha. The scale is alpha / r, and r is the number of rows of A.")
def scaled_by_alpha(x, W0, A, B, alpha):
    return x @ W0.T + alpha * (x @ A.T) @ B.T


@mistake("You left out the scale alpha / r: your update is right for alpha = r only.")
def without_the_scale(x, W0, A, B, alpha):
    return x @ W0.T + (x @ A.T) @ B.T


@mistake("You scaled by r / alpha; it is alpha / r, so that a larger alpha means a larger update.")
def scaled_by_r_over_alpha(x, W0, A, B, alpha):
    return x @ W0.T + len(A) / alpha * (x @ A.T) @ B.T


@mistake(
    "You scaled by alpha / sqrt(r). That is rsLoRA (Kalajdzievski, 2023), a later proposal; "
    "LoRA's own scale is alpha / r."
)
def scaled_as_in_rslora(x, W0, A, B, alpha):
    return x @ W0.T + alpha / math.sqrt(len(A)) * (x @ A.T) @ B.T


@mistake("You divided alpha by the width of the input. r is the short side of A, its number of rows.")
def divided_by_the_inputs(x, W0, A, B, alpha):
    return x @ W0.T + alpha / A.shape[1] * (x @ A.T) @ B.T


@mistake("You divided alpha by the number of outputs. r is the number of columns of B, not of rows.")
def divided_by_the_outputs(x, W0, A, B, alpha):
    return x @ W0.T + alpha / len(B) * (x @ A.T) @ B.T


@mistake("You return the update alone. The frozen layer W0 x goes on working: LoRA adds to it.")
def update_alone(x, W0, A, B, alpha):
    return alpha / len(A) * (x @ A.T) @ B.T


@mistake(
    "You scaled the frozen layer too. alpha / r belongs to B A x alone; "
    "at the start the network must be the pretrained one."
)
def frozen_layer_scaled_too(x, W0, A, B, alpha):
    return alpha / len(A) * (x @ W0.T + (x @ A.T) @ B.T)


@mistake("You did not transpose A. Rows of x are inputs, rows of A are outputs: x @ A.T.")
def A_not_transposed(x, W0, A, B, alpha):
    return x @ W0.T + alpha / len(A) * (x @ A) @ B.T


@mistake(
    "You wrote the equation of one column x. Here the inputs are rows: "
    "x stands on the left, and each matrix is transposed, as in x @ W0.T."
)
def equation_of_one_column(x, W0, A, B, alpha):
    return W0 @ x + alpha / len(A) * B @ (A @ x)


@mistake("You divided with //, which drops the fraction: alpha / r.")
def fraction_dropped(x, W0, A, B, alpha):
    return x @ W0.T + alpha // len(A) * (x @ A.T) @ B.T


@mistake("You did not transpose W0. Its shape is (d, k), outputs by inputs, as in nn.Linear: x @ W0.T.")
def W0_not_transposed(x, W0, A, B, alpha):
    return x @ W0 + alpha / len(A) * (x @ A.T) @ B.T


@mistake("You sent x through B first. A comes first and makes it short, B makes it long again: B (A x).")
def B_before_A(x, W0, A, B, alpha):
    return x @ W0.T + alpha / len(A) * (x @ B.T) @ A.T


@mistake("There is a ReLU between A and B. Then it is an adapter: no matrix BA does the same.")
def bent(x, W0, A, B, alpha):
    return x @ W0.T + alpha / len(A) * (x @ A.T).relu() @ B.T


@mistake("You scaled twice: alpha / r stands once before B A x.")
def scaled_twice(x, W0, A, B, alpha):
    return x @ W0.T + (alpha / len(A)) ** 2 * (x @ A.T) @ B.T


@mistake(
    "Your numbers are right, but the record that gradients travel back along was cut: A and B cannot learn."
)
def without_record(x, W0, A, B, alpha):
    return lora(x, W0, A, B, alpha).detach()


EXERCISE = Exercise(
    reference=lora,
    challenges=(
        Challenge("one row of three numbers, one output, rank 2", one_row),
        Challenge("the same with B at zero, as at the start", one_row_at_the_start),
        Challenge("four random rows", four_random_rows),
    ),
    mistakes=(
        scaled_by_alpha,
        without_the_scale,
        scaled_by_r_over_alpha,
        scaled_as_in_rslora,
        divided_by_the_inputs,
        divided_by_the_outputs,
        update_alone,
        frozen_layer_scaled_too,
        A_not_transposed,
        equation_of_one_column,
        fraction_dropped,
        W0_not_transposed,
        B_before_A,
        bent,
        scaled_twice,
        without_record,
    ),
    properties={"lets gradients through to A and B": lets_gradients_through},
    hints=(
        "Rows of x are inputs. Which way does each matrix point, and which one comes first?",
        "x W0^T + (alpha / r) (x A^T) B^T.",
        "r is len(A); the update is alpha / len(A) * (x @ A.T) @ B.T.",
    ),
)
