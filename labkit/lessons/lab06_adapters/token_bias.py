"""`token_bias`: AdapterBias, one direction in which each token moves as far as its own number says."""

from __future__ import annotations

import torch

from labkit.lessons.exercise import Challenge, Exercise, mistake
from labkit.lessons.lab06_adapters.inputs import CUT, learning, row, rows, with_gradients


def token_bias(y: torch.Tensor, h: torch.Tensor, w: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """y + (h w) v': y (N, d), h (N, d_ff), w (d_ff), v (d)."""
    return y + torch.outer(h @ w, v)


def learnable(
    output: torch.Tensor, y: torch.Tensor, h: torch.Tensor, w: torch.Tensor, v: torch.Tensor
) -> dict[str, torch.Tensor]:
    """What is compared: the tokens, and the gradients by which w and v, and whatever lies below, learn."""
    return with_gradients(output, y=y, h=h, w=w, v=v)


# Challenges


def two_tokens() -> tuple:
    y = rows((1, 0), (0, 2))
    h = rows((1, 0, 1), (0, 3, 0))
    return y, h, row(1, 1, 1), row(10, 30)


def four_tokens() -> tuple:
    return torch.randn(4, 3), torch.randn(4, 5), torch.randn(5), torch.randn(3)


def weights_that_learn() -> tuple:
    return learning(3, 2), learning(3, 4), learning(4), learning(2)


# Mistakes


@mistake(CUT)
def without_a_graph(y, h, w, v):
    return token_bias(y, h, w, v).detach()


@mistake(
    "Your product pairs the first token with the first number of v, the second with the second: N numbers "
    "times d numbers is no table. Where N is d PyTorch multiplies them without a word; elsewhere it stops. "
    "Make a column of the first: `(h @ w)[:, None] * v`."
)
def number_by_number(y, h, w, v):
    return y + (h @ w) * v


@mistake(
    "Your table lies on its side: its rows are the numbers of v. Tokens are rows here, so their numbers "
    "come first."
)
def table_on_its_side(y, h, w, v):
    return y + torch.outer(v, h @ w)


@mistake(
    "You added the same v to every token. That is a bias as BitFit has it; here each token says by its "
    "own number how far it moves."
)
def same_for_every_token(y, h, w, v):
    return y + v


@mistake("You lost y: the shift is added to what the layer gives out.")
def without_y(y, h, w, v):
    return torch.outer(h @ w, v)


@mistake(
    "You exchanged w and v. w asks the token's hidden values (how far?), v answers (in which direction?)."
)
def w_and_v_exchanged(y, h, w, v):
    return y + torch.outer(h @ v, w)


@mistake(
    "You gave all tokens the mean of their numbers. Then they all move alike, and the point was that "
    "they need not."
)
def mean_over_tokens(y, h, w, v):
    return y + (h @ w).mean() * v


@mistake(
    "You left out v: each token's number was added to all of its width. v says in which direction to "
    "go, and it is the part that is learned first."
)
def without_v(y, h, w, v):
    return y + (h @ w)[:, None]


EXERCISE = Exercise(
    reference=token_bias,
    challenges=(
        Challenge("two tokens: three hidden values each, two given out", two_tokens),
        Challenge("four random tokens: five hidden values each, three given out", four_tokens),
        Challenge("three tokens and weights that ask for gradients, as in training", weights_that_learn),
    ),
    result=learnable,
    mistakes=(
        without_a_graph,
        number_by_number,
        table_on_its_side,
        same_for_every_token,
        without_y,
        w_and_v_exchanged,
        mean_over_tokens,
        without_v,
    ),
    hints=(
        "One number for each token; one direction for all of them.",
        "y + (h w) v': h w has N numbers, v has d, and their product must have N rows and d columns.",
        "Make a column of the N numbers, `(h @ w)[:, None]`; a column times a row is a matrix.",
    ),
)
