"""`in_order`: the same update as LoRA's, in pieces at right angles, the largest first."""

from __future__ import annotations

import torch

from labkit.lessons.exercise import Challenge, Exercise, mistake
from labkit.lessons.lab05_rank.inputs import never_formed, random_factors, thin_factors, two_skewed_pieces
from labkit.updates import low_rank


def in_order(B: torch.Tensor, A: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors B (d, r) and A (r, k) of the same update, its pieces those of the SVD, largest first."""
    found = low_rank.ordered(low_rank.Update({"one": low_rank.Factors(B, A)}, {})).factors["one"]
    return found.B, found.A


def pieces(
    output: tuple[torch.Tensor, torch.Tensor], B: torch.Tensor, A: torch.Tensor
) -> dict[str, torch.Tensor]:
    """What is compared: the sum of the pieces (d, k), their sizes (r,), and each of them (r, d, k), whose
    sign and split between the two factors are free."""
    new_B, new_A = output
    return {
        "sum of the pieces": new_B @ new_A,
        "sizes of the pieces": new_B.norm(dim=0) * new_A.norm(dim=1),
        "pieces": torch.einsum("dr,rk->rdk", new_B, new_A),
    }


def small_parts(B: torch.Tensor, A: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Q_B, R_B, Q_A and R_A of B = Q_B R_B and A.T = Q_A R_A."""
    return (*torch.linalg.qr(B), *torch.linalg.qr(A.T))


# Mistakes


@mistake("You left the sizes out: U and Vh have columns and rows of length one, and s belongs between them.")
def sizes_left_out(B, A):
    Q_B, R_B, Q_A, R_A = small_parts(B, A)
    U, s, Vh = torch.linalg.svd(R_B @ R_A.T)
    return Q_B @ U, Vh @ Q_A.T


@mistake("You put the sizes into both factors, so that they count twice. Into one, or the root into each.")
def sizes_in_both(B, A):
    Q_B, R_B, Q_A, R_A = small_parts(B, A)
    U, s, Vh = torch.linalg.svd(R_B @ R_A.T)
    return Q_B @ U * s, s[:, None] * Vh @ Q_A.T


@mistake(
    "You sorted LoRA's own pieces by size. They still lean on each other: cut after the first, and part of "
    "what it holds is undone by the others."
)
def sorted_by_size(B, A):
    order = (B.norm(dim=0) * A.norm(dim=1)).argsort(descending=True)
    return B[:, order], A[order]


@mistake("You turned B and A each for itself: (Q_B, Q_A) alone has lost what stood between them.")
def directions_alone(B, A):
    Q_B, R_B, Q_A, R_A = small_parts(B, A)
    return Q_B, Q_A.T


@mistake(
    "Your pieces have the right sum, and are not yet those of the SVD: R_B R_Aᵀ must be taken apart too."
)
def not_taken_apart(B, A):
    Q_B, R_B, Q_A, R_A = small_parts(B, A)
    return Q_B, R_B @ R_A.T @ Q_A.T


@mistake("You used Vh as if it were V. svd gives it transposed already: rows of Vh are the directions.")
def V_for_Vh(B, A):
    Q_B, R_B, Q_A, R_A = small_parts(B, A)
    U, s, Vh = torch.linalg.svd(R_B @ R_A.T)
    return Q_B @ U * s, Vh.T @ Q_A.T


@mistake("You left Q_A out or took A for it. The pieces end with Vh Q_Aᵀ: back into A's k columns.")
def A_for_Q_A(B, A):
    Q_B, R_B, Q_A, R_A = small_parts(B, A)
    U, s, Vh = torch.linalg.svd(R_B @ R_A.T)
    return Q_B @ U * s, Vh @ A


@mistake("Your pieces are in the opposite order: the largest comes first.")
def smallest_first(B, A):
    new_B, new_A = in_order(B, A)
    return new_B.flip(1), new_A.flip(0)


@mistake("You scaled rows of Q_B U by s. The i-th piece is its i-th column: `Q_B @ U * s` scales columns.")
def rows_scaled(B, A):
    Q_B, R_B, Q_A, R_A = small_parts(B, A)
    U, s, Vh = torch.linalg.svd(R_B @ R_A.T)
    return Q_B @ (s[:, None] * U), Vh @ Q_A.T


@mistake("You formed ΔW, the whole product (d, k). The SVD of the r x r matrix in the middle is enough.")
def svd_of_the_product(B, A):
    U, s, Vh = torch.linalg.svd(B @ A, full_matrices=False)
    r = len(A)
    return U[:, :r] * s[:r], Vh[:r]


EXERCISE = Exercise(
    reference=in_order,
    challenges=(
        Challenge("two pieces that are not at right angles", two_skewed_pieces),
        Challenge("random factors, wider than tall", lambda: random_factors(5, 8, 3)),
        Challenge("factors so thin that BA is ten times as large", thin_factors),
    ),
    result=pieces,
    properties={"computes nothing larger than the factors": never_formed},
    mistakes=(
        sizes_left_out,
        sizes_in_both,
        sorted_by_size,
        directions_alone,
        not_taken_apart,
        V_for_Vh,
        A_for_Q_A,
        smallest_first,
        rows_scaled,
        svd_of_the_product,
    ),
    hints=(
        "You know the small matrix in the middle. Take it apart, and let the two Q carry its parts.",
        "R_B R_Aᵀ = U S Vᵀ gives BA = (Q_B U S) (Vᵀ Q_Aᵀ).",
        "U, s, Vh = torch.linalg.svd(R_B @ R_A.T), then Q_B @ U * s and Vh @ Q_A.T.",
    ),
)
