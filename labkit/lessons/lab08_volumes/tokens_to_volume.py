"""`tokens_to_volume`: the tokens of many slices as volumes that a convolution can read."""

from __future__ import annotations

import torch

from labkit.lessons.authoring import gradient
from labkit.lessons.exercise import Challenge, Exercise, mistake


def tokens_to_volume(x: torch.Tensor, S: int, h: int, w: int) -> torch.Tensor:
    """(B·S, h·w, d) -> (B, d, S, h, w)."""
    return x.unflatten(1, (h, w)).unflatten(0, (-1, S)).permute(0, 4, 1, 2, 3)


def with_gradient(output: torch.Tensor, x: torch.Tensor, S: int, h: int, w: int) -> dict[str, torch.Tensor]:
    """What is compared: the volumes, and the gradient that goes on to the tokens."""
    weights = torch.linspace(-1, 1, output.numel()).view(output.shape)
    return {"volumes": output.detach(), "gradient of x": gradient(output * weights, x)}


# Challenges: the first two have 12 numbers, so few that a counter-example is shown in full


def one_volume() -> tuple:
    return torch.arange(12.0).view(2, 3, 2).requires_grad_(), 2, 1, 3


def two_volumes() -> tuple:
    return torch.arange(12.0).view(6, 1, 2).requires_grad_(), 3, 1, 1


def random_tokens() -> tuple:
    return torch.randn(6, 12, 5, requires_grad=True), 3, 3, 4


# Mistakes


@mistake(
    "You reshaped at once. That keeps the order of the numbers in memory, where the d numbers of a token "
    "stand side by side, and only gives the axes other names: channels and places are mixed."
)
def reshaped_at_once(x, S, h, w):
    return x.reshape(-1, x.shape[-1], S, h, w)


@mistake(
    "You moved the channels to the front of each slice, and then reshaped: so they stand in front of the "
    "slices' own axis only by name. Give each axis its name first (B, S, h, w, d), then move the last."
)
def channels_first_and_reshaped(x, S, h, w):
    return x.transpose(1, 2).reshape(-1, x.shape[-1], S, h, w)


@mistake(
    "You exchanged volumes and slices. The slices of one volume stand together in the stream; you took every "
    "other one, so neighbours come from different patients."
)
def volumes_and_slices_exchanged(x, S, h, w):
    return x.unflatten(1, (h, w)).unflatten(0, (S, -1)).permute(1, 4, 0, 2, 3)


@mistake("The width stayed last. A convolution takes the channels second: (B, d, S, h, w).")
def width_last(x, S, h, w):
    return x.unflatten(1, (h, w)).unflatten(0, (-1, S))


@mistake("You exchanged rows and columns: the tokens of a slice come row by row, w of them in each.")
def rows_and_columns_exchanged(x, S, h, w):
    return x.unflatten(1, (w, h)).unflatten(0, (-1, S)).permute(0, 4, 1, 2, 3)


@mistake(
    "You made one long volume of all slices. Then the last slice of a patient is the neighbour of the first "
    "slice of the next."
)
def one_long_volume(x, S, h, w):
    return x.unflatten(1, (h, w)).unflatten(0, (1, -1)).permute(0, 4, 1, 2, 3)


@mistake(
    "Your places are right, but no gradient goes on to the tokens: what lies below in the network could "
    "never learn. `.detach()`, `.data` and a way through NumPy cut the record of what was computed."
)
def without_gradients(x, S, h, w):
    return tokens_to_volume(x, S, h, w).detach()


EXERCISE = Exercise(
    reference=tokens_to_volume,
    challenges=(
        Challenge("one volume of two slices, each of 1 x 3 tokens of width 2", one_volume),
        Challenge("two volumes of three slices, each of one token of width 2", two_volumes),
        Challenge("two volumes of three slices, each of 3 x 4 random tokens of width 5", random_tokens),
    ),
    result=with_gradient,
    mistakes=(
        reshaped_at_once,
        channels_first_and_reshaped,
        volumes_and_slices_exchanged,
        width_last,
        rows_and_columns_exchanged,
        one_long_volume,
        without_gradients,
    ),
    hints=(
        "Give every axis a name before you move one.",
        "(B·S, h·w, d) -> (B, S, h, w, d) -> (B, d, S, h, w). The first arrow moves no number, the second "
        "does.",
        "unflatten the second axis into (h, w), the first into (-1, S); then permute(0, 4, 1, 2, 3).",
    ),
)
