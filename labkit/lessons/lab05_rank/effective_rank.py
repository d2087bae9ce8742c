"""`effective_rank`: the fewest singular values that hold a share of the energy."""

from __future__ import annotations

import math

import torch

from labkit.lessons.exercise import Challenge, Exercise, mistake


def effective_rank(s: torch.Tensor, share: float) -> int:
    """The fewest of the singular values s (R,), largest first, that hold at least `share` of the energy."""
    held = (s**2).cumsum(0) / (s**2).sum()
    return int((held < share).sum()) + 1


# Challenges


def random_matrix() -> tuple:
    return torch.linalg.svdvals(torch.randn(30, 20)), 0.8


# Mistakes


@mistake(
    "You summed the values themselves. What adds up to the size of the matrix (its squared Frobenius norm) "
    "are their squares."
)
def values_instead_of_squares(s, share):
    held = s.cumsum(0) / s.sum()
    return int((held < share).sum()) + 1


@mistake(
    "You are one short: you counted the values that do not suffice yet. The one that reaches the share "
    "belongs to them."
)
def one_short(s, share):
    held = (s**2).cumsum(0) / (s**2).sum()
    return int((held < share).sum())


@mistake(
    "You asked for more than the share. At least the share is enough: of four equal values two hold half."
)
def more_than_the_share(s, share):
    held = (s**2).cumsum(0) / (s**2).sum()
    return int((held <= share).sum()) + 1


@mistake(
    "You took a share of the norm. The norm is the root of the energy, so half of the one is a quarter of "
    "the other: leave the root out."
)
def share_of_the_norm(s, share):
    held = (s**2).cumsum(0).sqrt() / (s**2).sum().sqrt()
    return int((held < share).sum()) + 1


@mistake("You compared energy itself with a share: divide by all of the energy first.")
def not_divided_by_all(s, share):
    return min(int(((s**2).cumsum(0) < share).sum()) + 1, len(s))


@mistake("You counted the values that are not zero. That is the rank itself, whatever the share.")
def rank_itself(s, share):
    return int((s > 0).sum())


@mistake(
    "You counted the values above a share of the largest. That says how they compare with it, not what they "
    "hold together."
)
def share_of_the_largest(s, share):
    return int((s > share * s.max()).sum())


@mistake("You took a share of how many values there are. They are not all equally large.")
def share_of_their_number(s, share):
    return math.ceil(share * len(s))


EXERCISE = Exercise(
    reference=effective_rank,
    challenges=(
        Challenge("three values, more than half of the energy", lambda: (torch.tensor([4.0, 3.0, 0.0]), 0.6)),
        Challenge("the same values, nearly all of it", lambda: (torch.tensor([4.0, 3.0, 0.0]), 0.9)),
        Challenge("five equal values, half of it", lambda: (torch.ones(5), 0.5)),
        Challenge("four equal values: two hold exactly half", lambda: (torch.ones(4), 0.5)),
        Challenge("values below one", lambda: (torch.tensor([0.5, 0.2, 0.1]), 0.9)),
        Challenge("a random matrix's", random_matrix),
    ),
    mistakes=(
        values_instead_of_squares,
        one_short,
        more_than_the_share,
        share_of_the_norm,
        not_divided_by_all,
        rank_itself,
        share_of_the_largest,
        share_of_their_number,
    ),
    hints=(
        "Energy is the square. Walk from the largest value down: after which one do you hold enough?",
        "The first n for which (s_1² + ... + s_n²) / (s_1² + ... + s_R²) >= share.",
        "held = (s**2).cumsum(0) / (s**2).sum(), then count those below the share, and one more.",
    ),
)
