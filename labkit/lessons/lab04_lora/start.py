"""`start`: A and B as LoRA's training starts from them."""

from __future__ import annotations

import random

import torch

from labkit.lessons.compare import kind
from labkit.lessons.exercise import Challenge, Exercise, Unfit, mistake


def start(d: int, k: int, r: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A (r, k), random, and B (d, r), zero, for a layer of k inputs and d outputs."""
    return torch.randn(r, k), torch.zeros(d, r)


# Challenges


def sizes_drawn() -> tuple:
    return random.randint(8, 40), random.randint(8, 40), random.randint(2, 6)


# What of an answer is compared


def facts(output: tuple[torch.Tensor, torch.Tensor], d: int, k: int, r: int) -> dict:
    """What must be the same for all who draw: shapes and dtypes, what is zero, the rank and the size of A.

    What learns or not does not matter here: nn.Parameter and `requires_grad` are a layer's own business.
    """
    if not isinstance(output, (tuple, list)) or [getattr(M, "ndim", 0) for M in output] != [2, 2]:
        raise Unfit("what came back is not two matrices; end with `return A, B`")
    for name, M in zip("AB", output, strict=True):
        if not isinstance(M, torch.Tensor):
            raise Unfit(
                f"{name} is {kind(M)}; the layer computes with torch's tensors: torch.randn, torch.zeros"
            )
        if not M.is_floating_point():
            raise Unfit(f"{name} holds whole numbers ({M.dtype}), which cannot learn; give it a dot: 0.0")
    A, B = (M.detach() for M in output)
    return {
        "shape of A": "{} x {}".format(*A.shape),
        "shape of B": "{} x {}".format(*B.shape),
        "A is zero": not A.any().item(),
        "B is zero": not B.any().item(),
        "rank of A": int(torch.linalg.matrix_rank(A.float())),
        "dtypes": f"{A.dtype}, {B.dtype}",
        "some entries of A are zero": not A.all().item(),
        "entries of A are larger than 100": bool((A.abs() > 100).any()),
    }


# Mistakes


@mistake(
    "Both of your matrices are zero. "
    "Each one's gradient is a product with the other, so none will ever learn."
)
def both_zero(d, k, r):
    return torch.zeros(r, k), torch.zeros(d, r)


@mistake(
    "Both of your matrices are random, so B A is not zero: "
    "training starts from a network that was disturbed at random."
)
def both_random(d, k, r):
    return torch.randn(r, k), torch.randn(d, r)


@mistake(
    "Your A is zero and your B random. B A is zero too and it would learn; "
    "but LoRA has it the other way round, and its files and learning rates mean that one."
)
def A_zero_and_B_random(d, k, r):
    return torch.zeros(r, k), torch.randn(d, r)


@mistake(
    "All rows of your A are equal. So are then all columns of B, for ever: "
    "the update has rank 1, whatever r is. Random numbers make them differ."
)
def equal_rows_of_A(d, k, r):
    return torch.ones(r, k), torch.zeros(d, r)


@mistake(
    "Your A is (d, r) and your B (r, k). One slide of the lecture writes them so, with the product A B; "
    "everywhere else it is B A, with A (r, k) and B (d, r)."
)
def shapes_for_the_product_A_B(d, k, r):
    return torch.randn(d, r), torch.zeros(r, k)


@mistake("You return B first: return A, B.")
def B_returned_first(d, k, r):
    return torch.zeros(d, r), torch.randn(r, k)


@mistake(
    "Your A has k rows. It takes k numbers and makes r of them, so it is (r, k), "
    "like every matrix of nn.Linear: outputs by inputs."
)
def inputs_by_outputs(d, k, r):
    return torch.randn(k, r), torch.zeros(r, d)


@mistake(
    "Your A has ones on its diagonal and zeros beside them. It reads the first r inputs and is blind to all "
    "others at the start; random numbers read a little of each."
)
def A_reads_the_first_inputs(d, k, r):
    return torch.eye(r, k), torch.zeros(d, r)


@mistake(
    "Your A is far too large: the first steps of B are multiplied by it. Entries of about 1 / sqrt(k) are "
    "usual."
)
def A_far_too_large(d, k, r):
    return 1000 * torch.randn(r, k), torch.zeros(d, r)


@mistake("Your matrices are of float64; the network computes in float32, and the two cannot be multiplied.")
def in_float64(d, k, r):
    return torch.randn(r, k, dtype=torch.float64), torch.zeros(d, r, dtype=torch.float64)


EXERCISE = Exercise(
    reference=start,
    challenges=(
        Challenge("d = 3 outputs, k = 4 inputs, rank 2", lambda: (3, 4, 2)),
        Challenge("d = 7, k = 5, rank 3", lambda: (7, 5, 3)),
        Challenge("sizes drawn at random", sizes_drawn),
    ),
    result=facts,  # random numbers may differ, facts may not
    mistakes=(
        both_zero,
        both_random,
        A_zero_and_B_random,
        equal_rows_of_A,
        shapes_for_the_product_A_B,
        B_returned_first,
        inputs_by_outputs,
        A_reads_the_first_inputs,
        A_far_too_large,
        in_float64,
    ),
    hints=(
        "The product has to be zero, and still one of the two has to get a gradient.",
        "A random, of shape (r, k); B zero, of shape (d, r).",
        "torch.randn makes the one, torch.zeros the other; return A, B.",
    ),
)
