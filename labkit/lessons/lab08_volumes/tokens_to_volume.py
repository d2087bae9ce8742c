"""`tokens_to_volume`: the tokens of many slices as volumes that a convolution can read."""

from __future__ import annotations

import torch

from labkit.lessons.exercise import Challenge, Exercise, mistake


def tokens_to_volume(x: torch.Tensor, S: int, h: int, w: int) -> torch.Tensor:
    """(B·S, h·w, d) -> (B, d, S, h, w)."""
    return x.unflatten(1, (h, w)).unflatten(0, (-1, S)).permute(0, 4, 1, 2, 3)


# Challenges


def sixteen_numbers() -> tuple:
    return torch.arange(16.0).view(4, 2, 2), 2, 1, 2


def random_tokens() -> tuple:
    return torch.randn(6, 12, 5), 3, 3, 4


# Mistakes


@mistake(
    "You reshaped at once. That keeps the order of the numbers in memory, where the d numbers of a token "
    "stand side by side, and only gives the axes other names: channels and places are mixed."
)
def reshaped_at_once(x, S, h, w):
    return x.reshape(-1, x.shape[-1], S, h, w)


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


EXERCISE = Exercise(
    reference=tokens_to_volume,
    challenges=(
        Challenge("two volumes of two slices, each of 1 x 2 tokens of width 2", sixteen_numbers),
        Challenge("two volumes of three slices, each of 3 x 4 random tokens of width 5", random_tokens),
    ),
    mistakes=(
        reshaped_at_once,
        volumes_and_slices_exchanged,
        width_last,
        rows_and_columns_exchanged,
        one_long_volume,
    ),
    hints=(
        "Give every axis a name before you move one.",
        "(B·S, h·w, d) -> (B, S, h, w, d) -> (B, d, S, h, w). The first arrow moves no number, the second "
        "does.",
        "unflatten the second axis into (h, w), the first into (-1, S); then permute(0, 4, 1, 2, 3).",
    ),
)
