"""Lab 05: how many directions an update has, its singular values from its factors, cutting, and LoRA+'s rates."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from labkit.lessons.exercise import Challenge, Exercise
from labkit.updates import low_rank


def effective_rank(s: torch.Tensor, share: float) -> int:
    held = (s**2).cumsum(0) / (s**2).sum()
    return int((held < share).sum()) + 1


def spectrum(B: torch.Tensor, A: torch.Tensor) -> torch.Tensor:
    return low_rank.spectrum(low_rank.Factors(B, A))


def truncate(B: torch.Tensor, A: torch.Tensor, b: int, alpha: float) -> torch.Tensor:
    return alpha / len(A) * low_rank.Factors(B, A).at(b)


def rates(names: list[str], lr: float, ratio: float) -> dict[str, float]:
    return {name: lr * ratio if name.endswith(".B") else lr for name in names}


# Counting directions


def _fewest(
    energy: Callable = torch.square, wanted: Callable = lambda held, share: held < share, more: int = 1
):
    """`effective_rank` that sums something else, stops elsewhere, or counts otherwise."""

    def wrong(s, share):
        held = energy(s).cumsum(0) / energy(s).sum()
        return int(wanted(held, share).sum()) + more

    return wrong


# Factors


def _of_product(measure: Callable) -> Callable:
    """A wrong spectrum, largest first."""
    return lambda B, A: measure(B, A).sort(descending=True).values


def _untransposed(B, A):
    R_B, R_A = torch.linalg.qr(B).R, torch.linalg.qr(A.T).R
    return torch.linalg.svdvals(R_B @ R_A)


def _cut(columns: Callable, rows: Callable | None = None, scale: Callable = lambda r, b: 1 / r) -> Callable:
    """`truncate` with other columns of B, other rows of A, or another scale; each is made a slice from (r, b)."""
    rows = rows or columns

    def wrong(B, A, b, alpha):
        r = len(A)
        return alpha * scale(r, b) * B[:, columns(r, b)] @ A[rows(r, b)]

    return wrong


def _first(r: int, b: int) -> slice:
    return slice(b)


def _unscaled(B, A, b, alpha):
    return B[:, :b] @ A[:b]


def _best(B, A, b, alpha):
    U, s, Vh = torch.linalg.svd(alpha / len(A) * B @ A, full_matrices=False)
    return U[:, :b] * s[:b] @ Vh[:b]


def _rows_of_B(B, A, b, alpha):
    return alpha / len(A) * B[:b] @ A


def _factors(d: int, k: int, r: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(d, r), torch.randn(r, k)


SMALL_B = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [0.0, 1.0]])
SMALL_A = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]])


# Rates


def _rated(of_B: Callable, of_A: Callable, of_rest: Callable = lambda lr, ratio: lr) -> Callable:
    """`rates` with other rates for B, for A and for all else."""

    def wrong(names, lr, ratio):
        asked = {".A": of_A, ".B": of_B}
        return {name: asked.get(name[-2:], of_rest)(lr, ratio) for name in names}

    return wrong


def _plain(lr, ratio):
    return lr


def _times(lr, ratio):
    return lr * ratio


def _head_forgotten(names, lr, ratio):
    return {name: rate for name, rate in rates(names, lr, ratio).items() if name.endswith((".A", ".B"))}


def _any_B(names, lr, ratio):
    return {name: lr * ratio if "B" in name else lr for name in names}


EXERCISES = {
    "effective_rank": Exercise(
        reference=effective_rank,
        challenges=(
            Challenge(
                "three values, more than half of the energy", lambda: (torch.tensor([4.0, 3.0, 0.0]), 0.6)
            ),
            Challenge("the same values, nearly all of it", lambda: (torch.tensor([4.0, 3.0, 0.0]), 0.9)),
            Challenge("five equal values, half of it", lambda: (torch.ones(5), 0.5)),
            Challenge("four equal values: two hold exactly half", lambda: (torch.ones(4), 0.5)),
            Challenge("a random matrix's", lambda: (torch.linalg.svdvals(torch.randn(30, 20)), 0.8)),
        ),
        mistakes={
            "You summed the values themselves. What adds up to the size of the matrix (its squared Frobenius "
            "norm) are their squares.": _fewest(torch.abs),
            "You are one short: you counted the values that do not suffice yet. The one that reaches the share "
            "belongs to them.": _fewest(more=0),
            "You asked for more than the share. At least the share is enough: of four equal values two hold half.": _fewest(
                wanted=lambda held, share: held <= share
            ),
            "You counted the values that are not zero. That is the rank itself, whatever the share.": lambda s, share: (
                int((s > 0).sum())
            ),
            "You counted the values above a share of the largest. That says how they compare with it, not what "
            "they hold together.": lambda s, share: int((s > share * s.max()).sum()),
            "You took a share of how many values there are. They are not all equally large.": lambda s, share: (
                math.ceil(share * len(s))
            ),
        },
        hints=(
            "Energy is the square. Walk from the largest value down: after which one do you hold enough?",
            "The first n for which (s_1² + ... + s_n²) / (s_1² + ... + s_R²) >= share.",
            "held = (s**2).cumsum(0) / (s**2).sum(), then count those below the share, and one more.",
        ),
    ),
    "spectrum": Exercise(
        reference=spectrum,
        challenges=(
            Challenge(
                "two terms that are not at right angles",
                lambda: (
                    torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]),
                    torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
                ),
            ),
            Challenge("random factors, taller than wide", lambda: _factors(9, 6, 4)),
            Challenge("random factors, wider than tall", lambda: _factors(5, 8, 3)),
        ),
        mistakes={
            "You multiplied the singular values of B by those of A. That holds only where the directions of one "
            "meet the directions of the other.": _of_product(
                lambda B, A: torch.linalg.svdvals(B) * torch.linalg.svdvals(A)
            ),
            "You looked at B alone. A stretches as well.": lambda B, A: torch.linalg.svdvals(B),
            "Those are eigenvalues: directions that a square matrix maps onto themselves. ΔW is not even square.": _of_product(
                lambda B, A: torch.linalg.eigvals(A @ B).abs()
            ),
            "You took the sizes of the terms, |b_i| |a_i|. The terms of a product are not at right angles, so "
            "they partly add up and partly cancel.": _of_product(lambda B, A: B.norm(dim=0) * A.norm(dim=1)),
            "Those are the squares of the singular values, as the eigenvalues of ΔWᵀΔW are.": lambda B, A: (
                spectrum(B, A) ** 2
            ),
            "You returned min(d, k) values; all after the first r are zero. And you formed ΔW, which is what the "
            "two QRs save.": lambda B, A: torch.linalg.svdvals(B @ A),
            "R_A must be transposed: with Aᵀ = Q_A R_A, A is R_Aᵀ Q_Aᵀ.": _untransposed,
        },
        hints=(
            "How large is the smallest matrix that still holds all there is to know about the stretching?",
            "B = Q_B R_B and Aᵀ = Q_A R_A give BA = Q_B (R_B R_Aᵀ) Q_Aᵀ, and the middle is r x r.",
            "R_B = torch.linalg.qr(B).R, the same for A.T, then the svdvals of one times the other's transpose.",
        ),
    ),
    "truncate": Exercise(
        reference=truncate,
        challenges=(
            Challenge("the first of two ranks", lambda: (SMALL_B.clone(), SMALL_A.clone(), 1, 4)),
            Challenge("both ranks", lambda: (SMALL_B.clone(), SMALL_A.clone(), 2, 4)),
            Challenge("no rank at all", lambda: (SMALL_B.clone(), SMALL_A.clone(), 0, 4)),
            Challenge("three of five, random", lambda: (*_factors(7, 6, 5), 3, 10.0)),
        ),
        mistakes={
            "You scaled by alpha / b. That is the paper's scale; ours is alpha / r at every rank, so that rank "
            "b + 1 is rank b plus one more term.": _cut(_first, scale=lambda r, b: 1 / b),
            "You left the scale out: the network multiplies BA by alpha / r.": _unscaled,
            "You kept the last b ranks. Training used the first ones most, under every b.": _cut(
                lambda r, b: slice(-b, None)
            ),
            "You kept rank b alone. Rank b means all of the first b terms.": _cut(
                lambda r, b: slice(max(b - 1, 0), b)
            ),
            "You kept one term too many: `:b` already holds b of them, 0 to b - 1.": _cut(
                lambda r, b: slice(b + 1)
            ),
            "You took the best rank b by SVD. That is another matrix; DyLoRA's order is the one it was trained in.": _best,
            "You cut rows of B. B is (d, r): its ranks are its columns.": _rows_of_B,
            "You cut A and not B, so that they no longer fit together.": _cut(lambda r, b: slice(r), _first),
        },
        hints=(
            "Which columns of B belong to the first rows of A?",
            "(alpha / r) B[:, :b] A[:b], with r the number of rows of A.",
            "alpha / len(A) times the product of B[:, :b] and A[:b].",
        ),
    ),
    "rates": Exercise(
        reference=rates,
        challenges=(
            Challenge(
                "one LoRA layer and the head", lambda: (["q.A", "q.B", "head.weight", "head.bias"], 1e-3, 16)
            ),
            Challenge(
                "names as they come from a network",
                lambda: (["Backbone.0.fc1.A", "Backbone.0.fc1.B", "Backbone.norm.weight"], 2e-3, 4),
            ),
        ),
        mistakes={
            "You gave the ratio to A. It is B that must learn faster.": _rated(of_B=_plain, of_A=_times),
            "You gave the ratio to both. Then nothing changed between them: it is LoRA with a larger rate.": _rated(
                of_B=_times, of_A=_times
            ),
            "You slowed A down instead. The ratio between the two is right, and both are too slow by it.": _rated(
                of_B=_plain, of_A=lambda lr, ratio: lr / ratio
            ),
            "Only A has the plain rate: you sped up the head as well.": _rated(
                of_B=_times, of_A=_plain, of_rest=_times
            ),
            "You left out what is neither A nor B. It would not learn at all.": _head_forgotten,
            "You looked for a B anywhere in the name. Ask how the name ends.": _any_B,
        },
        hints=(
            "There are three kinds of names here, and two rates.",
            "lr · ratio for a name that ends with .B, lr for every other.",
            'A dictionary over all names; name.endswith(".B") decides.',
        ),
    ),
}
