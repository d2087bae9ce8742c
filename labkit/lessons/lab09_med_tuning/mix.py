"""`mix`: the three branches added, and every channel made out of all of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from labkit.lessons.exercise import Challenge, Exercise, mistake
from labkit.lessons.lab09_med_tuning.inputs import row


def mix(
    b3: torch.Tensor, b5: torch.Tensor, f: torch.Tensor, W: torch.Tensor, b: torch.Tensor
) -> torch.Tensor:
    """W (b3 + b5 + f) + b for every token: (N, m) each -> (N, m)."""
    return F.linear(b3 + b5 + f, W, b)


# Challenges


def one_token() -> tuple:
    b3, b5, f = row(1, 0)[None], row(2, 1)[None], row(0, 5)[None]
    W, b = torch.stack([row(1, 10), row(0, 1)]), row(0, 100)
    return b3, b5, f, W, b


def four_tokens() -> tuple:
    N, m = 4, 3
    return torch.randn(N, m), torch.randn(N, m), torch.randn(N, m), torch.randn(m, m), torch.randn(m)


# Mistakes


@mistake("You mixed each branch with the bias and added up: the bias came in three times.")
def bias_three_times(b3, b5, f, W, b):
    return F.linear(b3, W, b) + F.linear(b5, W, b) + F.linear(f, W, b)


@mistake(
    "You used W the wrong way round. Row o of W makes output channel o; with tokens as rows that is x @ W.T."
)
def without_transposing_W(b3, b5, f, W, b):
    return (b3 + b5 + f) @ W + b


@mistake("You took the mean; the paper adds.")
def mean_of_branches(b3, b5, f, W, b):
    return F.linear((b3 + b5 + f) / 3, W, b)


@mistake("You left out the Fourier branch.")
def without_fourier(b3, b5, f, W, b):
    return F.linear(b3 + b5, W, b)


@mistake("You left out the branch of kernel 5.")
def without_kernel_5(b3, b5, f, W, b):
    return F.linear(b3 + f, W, b)


@mistake("You left out the branch of kernel 3.")
def without_kernel_3(b3, b5, f, W, b):
    return F.linear(b5 + f, W, b)


@mistake(
    "You mixed f alone: in b3 + b5 + f @ W.T the product is taken before the sums. Put the sum of the three "
    "in brackets."
)
def f_alone_mixed(b3, b5, f, W, b):
    return b3 + b5 + f @ W.T + b


@mistake("You put W on the left. Tokens are rows, so it stands on the right, transposed: x @ W.T.")
def W_on_the_left(b3, b5, f, W, b):
    return W @ (b3 + b5 + f) + b


@mistake(
    "You multiplied number by number, with *. Then no channel hears of another; a matrix product is "
    "written @."
)
def number_by_number(b3, b5, f, W, b):
    return W * (b3 + b5 + f) + b


@mistake("You left out W: no channel hears of another.")
def without_W(b3, b5, f, W, b):
    return b3 + b5 + f + b


@mistake(
    "You added the bias before W, and W mixed it too. In W (b3 + b5 + f) + b it stands outside the brackets."
)
def bias_mixed_too(b3, b5, f, W, b):
    return (b3 + b5 + f + b) @ W.T


@mistake("You multiplied the branches: where one is silent, all are.")
def branches_multiplied(b3, b5, f, W, b):
    return F.linear(b3 * b5 * f, W, b)


@mistake("You left out the bias.")
def without_bias(b3, b5, f, W, b):
    return F.linear(b3 + b5 + f, W)


EXERCISE = Exercise(
    reference=mix,
    challenges=(
        Challenge("one token of two channels", one_token),
        Challenge("four random tokens of three channels", four_tokens),
    ),
    mistakes=(
        bias_three_times,
        without_transposing_W,
        mean_of_branches,
        without_fourier,
        without_kernel_5,
        without_kernel_3,
        f_alone_mixed,
        W_on_the_left,
        number_by_number,
        without_W,
        bias_mixed_too,
        branches_multiplied,
        without_bias,
    ),
    hints=(
        "Until here no channel has heard of another. What makes a new channel out of all of them, with the "
        "same weights at every token?",
        "W (b3 + b5 + f) + b. The tokens are rows, so W works from the right, transposed.",
        "F.linear(x, W, b) is x @ W.T + b; x is the sum of the three.",
    ),
)
