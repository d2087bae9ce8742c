"""`st_adapter`: ST-Adapter on the stream of tokens, out of its three weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from labkit.lessons.authoring import gradient
from labkit.lessons.exercise import Challenge, Exercise, mistake


def st_adapter(
    x: torch.Tensor, S: int, h: int, w: int, down: torch.Tensor, filters: torch.Tensor, up: torch.Tensor
) -> torch.Tensor:
    """x + up filter(down x), without biases: x (B·S, h·w, d), down (m, d), filters (m, 3), up (d, m)."""
    return x + back(filtered(volume(x @ down.T, S, h, w), filters)) @ up.T


def volume(z: torch.Tensor, S: int, h: int, w: int) -> torch.Tensor:
    """(B·S, h·w, m) -> (B, m, S, h, w)."""
    return z.unflatten(1, (h, w)).unflatten(0, (-1, S)).permute(0, 4, 1, 2, 3)


def filtered(z: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    """Each channel of volumes z (B, m, S, h, w) along its slices, by its own row of filters (m, 3)."""
    return F.conv3d(z, filters[:, None, :, None, None], padding=(1, 0, 0), groups=len(filters))


def back(z: torch.Tensor) -> torch.Tensor:
    """(B, m, S, h, w) -> (B·S, h·w, m)."""
    return z.permute(0, 2, 3, 4, 1).flatten(2, 3).flatten(0, 1)


def with_gradients(
    output: torch.Tensor,
    x: torch.Tensor,
    S: int,
    h: int,
    w: int,
    down: torch.Tensor,
    filters: torch.Tensor,
    up: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """What is compared: the new stream, and the gradients by which the three weights learn."""
    weights = torch.linspace(-1, 1, output.numel()).view(output.shape)
    learns = {"down": down, "filters": filters, "up": up}
    arrived = {f"gradient of {name}": gradient(output * weights, M) for name, M in learns.items()}
    return {"stream": output.detach(), **arrived}


# Challenges


def learned(*weights: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tuple(M.requires_grad_() for M in weights)


def one_channel() -> tuple:
    """One volume of three slices, each of one token of width 2; the filter takes what lies below."""
    x = torch.tensor([[[1.0, 0]], [[10, 0]], [[100, 0]]])
    down, up = torch.tensor([[1.0, 0]]), torch.tensor([[0.0], [1]])
    return x, 3, 1, 1, *learned(down, torch.tensor([[1.0, 0, 0]]), up)


def two_volumes() -> tuple:
    x = torch.arange(1.0, 9).view(4, 2, 1)
    return x, 2, 1, 2, *learned(torch.tensor([[1.0]]), torch.tensor([[1.0, 10, 100]]), torch.tensor([[1.0]]))


def random_stream() -> tuple:
    weights = learned(torch.randn(3, 5), torch.randn(3, 3), torch.randn(5, 3))
    return torch.randn(6, 12, 5), 3, 3, 4, *weights


# Mistakes


@mistake(
    "You left the skip away: what was there is gone, and only what is added remains. At the start of the "
    "training, where up is 0, the network would hand on nothing."
)
def without_the_skip(x, S, h, w, down, filters, up):
    return back(filtered(volume(x @ down.T, S, h, w), filters)) @ up.T


@mistake(
    "You left the filter away. Down and up alone are the adapter of lab 06, which sees its own slice only."
)
def without_the_filter(x, S, h, w, down, filters, up):
    return x + x @ down.T @ up.T


@mistake(
    "Your filter runs along the columns of the plane. Neighbouring slices stand along the third axis, S."
)
def along_the_columns(x, S, h, w, down, filters, up):
    z = volume(x @ down.T, S, h, w)
    z = F.conv3d(z, filters[:, None, None, None], padding=(0, 0, 1), groups=len(filters))
    return x + back(z) @ up.T


@mistake(
    "You filtered all slices of the stream as one volume: the last slice of a patient became the neighbour "
    "of the first slice of the next. Say S where you make the volume."
)
def one_long_volume(x, S, h, w, down, filters, up):
    return x + back(filtered(volume(x @ down.T, len(x), h, w), filters)) @ up.T


@mistake("You turned the filter round: the first weight belongs to the slice before.")
def filter_turned_round(x, S, h, w, down, filters, up):
    return x + back(filtered(volume(x @ down.T, S, h, w), filters.flip(1))) @ up.T


@mistake(
    "You reshaped the filtered volume back at once: its channels stand second, a token's numbers last. Move "
    "them first (permute), then make the stream of it."
)
def reshaped_back_at_once(x, S, h, w, down, filters, up):
    z = filtered(volume(x @ down.T, S, h, w), filters)
    return x + z.reshape(*x.shape[:2], -1) @ up.T


@mistake("You used the activation of the formula. The authors' code has none here, and neither has labkit.")
def with_an_activation(x, S, h, w, down, filters, up):
    return x + back(F.gelu(filtered(volume(x @ down.T, S, h, w), filters))) @ up.T


@mistake(
    "Your values are right, but no gradient reaches the weights, so that they could never learn: "
    "`.detach()`, `.data`, torch.no_grad() and a way through NumPy cut the record of what was computed."
)
def without_gradients(x, S, h, w, down, filters, up):
    return st_adapter(x, S, h, w, down, filters, up).detach()


EXERCISE = Exercise(
    reference=st_adapter,
    challenges=(
        Challenge("three slices of one token; one channel, filtered by what lies below", one_channel),
        Challenge("two volumes of two slices, each of 1 x 2 tokens of width 1", two_volumes),
        Challenge("two volumes of three slices of random tokens, with random weights", random_stream),
    ),
    result=with_gradients,
    mistakes=(
        without_the_skip,
        without_the_filter,
        along_the_columns,
        one_long_volume,
        filter_turned_round,
        reshaped_back_at_once,
        with_an_activation,
        without_gradients,
    ),
    hints=(
        "Five steps, and the shape after each: down, a volume, filtered, the stream again, up. What is added "
        "to what?",
        "x @ down.T has the shape (B·S, h·w, m). As a volume (B, m, S, h, w) it can be filtered; then "
        "permute it to (B, S, h, w, m), and reshape it to (B·S, h·w, m).",
        "F.conv3d(z, filters[:, None, :, None, None], padding=(1, 0, 0), groups=len(filters)) filters a "
        "volume along its slices.",
    ),
)
