"""`as_peft`: two LoRA updates, of q and of v, as the one of the fused qkv that HF's peft stores."""

from __future__ import annotations

import torch

from labkit.lessons.exercise import Challenge, Exercise, Unfit, mistake


def as_peft(
    A_q: torch.Tensor, B_q: torch.Tensor, A_v: torch.Tensor, B_v: torch.Tensor, alpha: float
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """LoRA on q and v as one LoRA on the fused qkv: A (2r, k), B (3d, 2r) and its alpha."""
    zero = torch.zeros_like(B_q)
    q, k, v = torch.cat([B_q, zero], 1), torch.cat([zero, zero], 1), torch.cat([zero, B_v], 1)
    return torch.cat([A_q, A_v]), torch.cat([q, k, v]), 2 * alpha


def change(output, A_q, B_q, A_v, B_v, alpha) -> dict:
    """What counts: the shapes, and the change of the fused weight, which many factors have in common.

    Unfit: what was returned is no LoRA."""
    if not isinstance(output, (tuple, list)) or len(output) != 3:
        raise Unfit("return three things: `return A, B, alpha`")
    A, B, new_alpha = output
    for name, matrix in (("A", A), ("B", B)):
        if not torch.is_tensor(matrix):
            raise Unfit(f"{name} must be a tensor, not a {type(matrix).__name__}; torch.cat joins tensors")
        if matrix.dtype != torch.float32:
            raise Unfit(f"{name} has {matrix.dtype}; leave the numbers in the float32 they came in")
    if not isinstance(new_alpha, (int, float)) or isinstance(new_alpha, bool):
        raise Unfit(f"alpha must be a plain number, not a {type(new_alpha).__name__}")
    (r, k), d = A_q.shape, len(B_q)
    for name, matrix, shape in (("A", A, (2 * r, k)), ("B", B, (3 * d, 2 * r))):
        if matrix.shape != shape:
            raise Unfit(f"{name} must have the shape {shape}; yours has {tuple(matrix.shape)}")
    return {"alpha / rank x B A, rows of q, k and v": new_alpha / (2 * r) * B @ A}


# Challenges: the smallest first


def small_lora() -> tuple:
    A_q, B_q = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[5.0], [8.0]])
    A_v, B_v = torch.tensor([[3.0, 4.0, 6.0]]), torch.tensor([[7.0], [9.0]])
    return A_q, B_q, A_v, B_v, 1.0


def random_lora() -> tuple:
    d, k, r = 4, 5, 3
    A_q, B_q = torch.randn(r, k), torch.randn(d, r)
    A_v, B_v = torch.randn(r, k), torch.randn(d, r)
    return A_q, B_q, A_v, B_v, 6.0


# Mistakes


@mistake("You kept alpha. The rank has doubled, and LoRA divides by it: half of the update would be gone.")
def alpha_kept(A_q, B_q, A_v, B_v, alpha):
    zero = torch.zeros_like(B_q)
    q, k, v = torch.cat([B_q, zero], 1), torch.cat([zero, zero], 1), torch.cat([zero, B_v], 1)
    return torch.cat([A_q, A_v]), torch.cat([q, k, v]), alpha


@mistake(
    "You halved alpha. The scale is alpha / r and r has doubled, so alpha must double to leave it as it is."
)
def alpha_halved(A_q, B_q, A_v, B_v, alpha):
    zero = torch.zeros_like(B_q)
    q, k, v = torch.cat([B_q, zero], 1), torch.cat([zero, zero], 1), torch.cat([zero, B_v], 1)
    return torch.cat([A_q, A_v]), torch.cat([q, k, v]), alpha / 2


@mistake(
    "You left out the zeros: B's rows for q also read A_v, and those for v read A_q. "
    "Each row must see its own half of the ranks."
)
def without_zeros_beside_q_and_v(A_q, B_q, A_v, B_v, alpha):
    zero = torch.zeros_like(B_q)
    q, k, v = torch.cat([B_q, B_v], 1), torch.cat([zero, zero], 1), torch.cat([B_q, B_v], 1)
    return torch.cat([A_q, A_v]), torch.cat([q, k, v]), 2 * alpha


@mistake(
    "You lost the rows of k. qkv has three bands of d rows; the one in the middle must be there, all zeros."
)
def without_rows_of_k(A_q, B_q, A_v, B_v, alpha):
    zero = torch.zeros_like(B_q)
    q, v = torch.cat([B_q, zero], 1), torch.cat([zero, B_v], 1)
    return torch.cat([A_q, A_v]), torch.cat([q, v]), 2 * alpha


@mistake("You put v's rows where k's are. The order in the fused matrix is q, k, v.")
def v_in_the_rows_of_k(A_q, B_q, A_v, B_v, alpha):
    zero = torch.zeros_like(B_q)
    q, k, v = torch.cat([B_q, zero], 1), torch.cat([zero, zero], 1), torch.cat([zero, B_v], 1)
    return torch.cat([A_q, A_v]), torch.cat([q, v, k]), 2 * alpha


@mistake(
    "You added A_q and A_v. Then q and v would share what they read; two different A need twice the rank."
)
def A_added(A_q, B_q, A_v, B_v, alpha):
    zero = torch.zeros_like(B_q)
    q, k, v = torch.cat([B_q, zero], 1), torch.cat([zero, zero], 1), torch.cat([zero, B_v], 1)
    return A_q + A_v, torch.cat([q, k, v]), 2 * alpha


@mistake("You stacked A_v first and B_q's columns first: q would read what was learned for v.")
def A_v_first(A_q, B_q, A_v, B_v, alpha):
    zero = torch.zeros_like(B_q)
    q, k, v = torch.cat([B_q, zero], 1), torch.cat([zero, zero], 1), torch.cat([zero, B_v], 1)
    return torch.cat([A_v, A_q]), torch.cat([q, k, v]), 2 * alpha


EXERCISE = Exercise(
    reference=as_peft,
    result=change,
    challenges=(
        Challenge("rank 1, three numbers in, two out", small_lora),
        Challenge("random LoRA of rank 3, five numbers in, four out", random_lora),
    ),
    mistakes=(
        alpha_kept,
        alpha_halved,
        without_zeros_beside_q_and_v,
        without_rows_of_k,
        v_in_the_rows_of_k,
        A_added,
        A_v_first,
    ),
    hints=(
        "One update for a matrix with three bands of rows. How many ranks does it need, and which band "
        "reads which of them?",
        "A is A_q over A_v. B is [[B_q, 0], [0, 0], [0, B_v]]. alpha / r must stay as it was.",
        "`zero = torch.zeros_like(B_q)`; `torch.cat([B_q, zero], 1)` is the band of q; stack three bands.",
    ),
)
