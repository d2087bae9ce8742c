"""`spectrum`: the singular values of an update, from its factors alone."""

from __future__ import annotations

import torch

from labkit.lessons.exercise import Challenge, Exercise, mistake
from labkit.lessons.lab05_rank.inputs import never_formed, random_factors, thin_factors, two_skewed_pieces
from labkit.updates import low_rank


def spectrum(B: torch.Tensor, A: torch.Tensor) -> torch.Tensor:
    """The r singular values of B A, of factors B (d, r) and A (r, k): (r,), largest first."""
    return low_rank.spectrum(low_rank.Factors(B, A))


# Mistakes


@mistake(
    "You multiplied the singular values of B by those of A. That holds only where the directions of one meet "
    "the directions of the other."
)
def products_of_singular_values(B, A):
    return torch.linalg.svdvals(B) * torch.linalg.svdvals(A)


@mistake("You looked at B alone. A stretches as well.")
def B_alone(B, A):
    return torch.linalg.svdvals(B)


@mistake(
    "Those are eigenvalues: directions that a square matrix maps onto themselves. ΔW is not even square."
)
def eigenvalues(B, A):
    return torch.linalg.eigvals(A @ B).abs()


@mistake(
    "You took the sizes of the pieces, |b_i| |a_i|. The pieces of a product are not at right angles, so they "
    "partly add up and partly cancel."
)
def sizes_of_the_pieces(B, A):
    sizes = B.norm(dim=0) * A.norm(dim=1)
    return sizes.sort(descending=True).values


@mistake("Those are the squares of the singular values, as the eigenvalues of ΔWᵀΔW are.")
def squares(B, A):
    R_B = torch.linalg.qr(B).R
    R_A = torch.linalg.qr(A.T).R
    return torch.linalg.svdvals(R_B @ R_A.T) ** 2


@mistake(
    "You returned min(d, k) values; all after the first r are zero. And you formed ΔW, which is what the two "
    "QRs save."
)
def all_of_the_product(B, A):
    return torch.linalg.svdvals(B @ A)


@mistake(
    "You formed ΔW, the whole product (d, k), to keep r values of it. The two QRs need nothing larger than B "
    "and A."
)
def first_of_the_product(B, A):
    return torch.linalg.svdvals(B @ A)[: len(A)]


@mistake("R_A must be transposed: with Aᵀ = Q_A R_A, A is R_Aᵀ Q_Aᵀ.")
def R_A_not_transposed(B, A):
    R_B = torch.linalg.qr(B).R
    R_A = torch.linalg.qr(A.T).R
    return torch.linalg.svdvals(R_B @ R_A)


@mistake("You multiplied R_Aᵀ R_B. In BA = Q_B R_B R_Aᵀ Q_Aᵀ the factor of B stands first: R_B R_Aᵀ.")
def factors_exchanged(B, A):
    R_B = torch.linalg.qr(B).R
    R_A = torch.linalg.qr(A.T).R
    return torch.linalg.svdvals(R_A.T @ R_B)


@mistake("You took the QR of A. It is A's rows that are to be turned: the QR of A.T.")
def qr_of_A(B, A):
    return torch.linalg.svdvals(torch.linalg.qr(B).R @ torch.linalg.qr(A).R.T)


@mistake("You took the QR of A. It is A's rows that are to be turned, so write A.T = Q_A R_A.")
def qr_of_A_not_transposed(B, A):
    return torch.linalg.svdvals(torch.linalg.qr(B).R @ torch.linalg.qr(A).R)


EXERCISE = Exercise(
    reference=spectrum,
    challenges=(
        Challenge("two pieces that are not at right angles", two_skewed_pieces),
        Challenge("random factors, taller than wide", lambda: random_factors(9, 6, 4)),
        Challenge("random factors, wider than tall", lambda: random_factors(5, 8, 3)),
        Challenge("factors so thin that BA is ten times as large", thin_factors),
    ),
    mistakes=(
        products_of_singular_values,
        B_alone,
        eigenvalues,
        sizes_of_the_pieces,
        squares,
        all_of_the_product,
        first_of_the_product,
        R_A_not_transposed,
        factors_exchanged,
        qr_of_A,
        qr_of_A_not_transposed,
    ),
    properties={"computes nothing larger than the factors": never_formed},
    hints=(
        "How large is the smallest matrix that still holds all there is to know about the stretching?",
        "B = Q_B R_B and Aᵀ = Q_A R_A give BA = Q_B (R_B R_Aᵀ) Q_Aᵀ, and the middle is r x r.",
        "R_B = torch.linalg.qr(B).R, the same for A.T, then the svdvals of one times the other's transpose.",
    ),
)
