"""`kron_sum`: Compacter's matrix, a sum of Kronecker products."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from labkit.lessons.exercise import Challenge, Exercise, mistake
from labkit.lessons.lab06_adapters.inputs import CUT, learning, rows, with_gradients


def kron_sum(As: Sequence[torch.Tensor], Bs: Sequence[torch.Tensor]) -> torch.Tensor:
    """The sum over i of the Kronecker product of A_i (n, n) with B_i (p, q): (n p, n q)."""
    return sum(torch.kron(A, B) for A, B in zip(As, Bs, strict=True))


def learnable(
    output: torch.Tensor, As: Sequence[torch.Tensor], Bs: Sequence[torch.Tensor]
) -> dict[str, torch.Tensor]:
    """What is compared: the matrix, and the gradients by which its factors learn."""
    factors = {f"{name}{i}": M for name, Ms in (("A", As), ("B", Bs)) for i, M in enumerate(Ms, start=1)}
    return with_gradients(output, **factors)


# Challenges


def two_terms() -> tuple:
    As = [rows((1, 0), (0, 2)), rows((0, 1), (0, 0))]
    Bs = [rows((1, 3)), rows((10, 0))]
    return As, Bs


def random_terms() -> tuple:
    n, p, q = 3, 2, 4
    As = [torch.randn(n, n) for _ in range(n)]
    Bs = [torch.randn(p, q) for _ in range(n)]
    return As, Bs


def factors_that_learn() -> tuple:
    return [learning(2, 2) for _ in range(2)], [learning(1, 2) for _ in range(2)]


# Mistakes


@mistake(CUT)
def without_a_graph(As, Bs):
    return kron_sum(As, Bs).detach()


@mistake(
    "You exchanged the two factors. In A ⊗ B each number of A becomes a copy of B; B ⊗ A has the same "
    "numbers in other places."
)
def factors_exchanged(As, Bs):
    return sum(torch.kron(B, A) for A, B in zip(As, Bs, strict=True))


@mistake(
    "You took the first term only. One Kronecker product is a pattern repeated; it takes the sum to make "
    "the blocks differ."
)
def first_term_only(As, Bs):
    return torch.kron(As[0], Bs[0])


@mistake("You took the mean of the terms; the formula says their sum.")
def mean_of_terms(As, Bs):
    return sum(torch.kron(A, B) for A, B in zip(As, Bs, strict=True)) / len(As)


@mistake(
    "You added first and multiplied then. (A1 + A2) ⊗ (B1 + B2) is a single Kronecker product again, "
    "with two terms that nobody asked for: A1 ⊗ B2 and A2 ⊗ B1."
)
def added_first(As, Bs):
    return torch.kron(sum(As), sum(Bs))


@mistake(
    "You put the blocks on the diagonal, and nothing else. Then the parts of a token could never "
    "exchange anything; A_i says how they do."
)
def blocks_on_the_diagonal(As, Bs):
    blocks = [As[i][i, i] * Bs[i] for i in range(len(As))]
    return torch.block_diag(*blocks)


EXERCISE = Exercise(
    reference=kron_sum,
    challenges=(
        Challenge("two terms: rules of 2 x 2, blocks of 1 x 2", two_terms),
        Challenge("three random terms: rules of 3 x 3, blocks of 2 x 4", random_terms),
        Challenge("two terms that ask for gradients, as in training", factors_that_learn),
    ),
    result=learnable,
    mistakes=(
        without_a_graph,
        factors_exchanged,
        first_term_only,
        mean_of_terms,
        added_first,
        blocks_on_the_diagonal,
    ),
    hints=(
        "In A ⊗ B, every single number of A becomes a copy of B, multiplied by that number.",
        "W is the sum over i of A_i ⊗ B_i.",
        "torch.kron does one product. Go through both lists side by side (zip) and add up.",
    ),
)
