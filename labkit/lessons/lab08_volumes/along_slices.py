"""`along_slices`: a depthwise convolution over the slices of a volume."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from labkit.lessons.authoring import gradient
from labkit.lessons.exercise import Challenge, Exercise, mistake


def along_slices(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Each channel of x (B, m, S) weighs the slice before, its own and the next by its row of w (m, 3)."""
    return F.conv1d(x, w[:, None], padding=1, groups=len(w))


def with_gradient(output: torch.Tensor, x: torch.Tensor, w: torch.Tensor) -> dict[str, torch.Tensor]:
    """What is compared: the filtered channels, and the gradient by which the filters learn."""
    weights = torch.linspace(-1, 1, output.numel()).view(output.shape)
    return {"filtered": output.detach(), "gradient of w": gradient(output * weights, w)}


# Challenges


def one_channel() -> tuple:
    return torch.tensor([[[1.0, 10, 100]]]), torch.tensor([[1.0, 0, 0]], requires_grad=True)


def two_volumes() -> tuple:
    return torch.arange(1.0, 13).view(2, 2, 3), torch.tensor([[1.0, 2, 4], [0, 1, 0]], requires_grad=True)


def random_volumes() -> tuple:
    return torch.randn(3, 4, 5), torch.randn(4, 3, requires_grad=True)


# Mistakes


@mistake(
    "You turned the filter round: the first weight belongs to the slice before. (Mathematicians call the "
    "turned one a convolution, PyTorch the other.)"
)
def filter_turned_round(x, w):
    return F.conv1d(x, w.flip(-1)[:, None], padding=1, groups=len(w))


@mistake(
    "You closed the volume to a ring: the slice below the first became the last. The neck is no neighbour of "
    "the crown."
)
def closed_to_a_ring(x, w):
    padded = F.pad(x, (1, 1), mode="circular")
    return F.conv1d(padded, w[:, None], groups=len(w))


@mistake(
    "You repeated the border: below the first slice you put the first slice again. Here, zeros lie outside."
)
def border_repeated(x, w):
    padded = F.pad(x, (1, 1), mode="replicate")
    return F.conv1d(padded, w[:, None], groups=len(w))


@mistake("You glued the volumes together: at its ends each volume saw the slices of another patient.")
def volumes_glued_together(x, w):
    stack = torch.cat(list(x), dim=1)  # (m, B·S)
    filtered = F.conv1d(stack, w[:, None], padding=1, groups=len(w))
    return torch.stack(filtered.chunk(len(x), dim=1))


@mistake(
    "You added the channels up. Depthwise means that each channel is filtered by itself; mixing them is what "
    "the two linear layers around are for."
)
def channels_added_up(x, w):
    filtered = F.conv1d(x, w[:, None], padding=1, groups=len(w))
    return filtered.sum(dim=1, keepdim=True).expand_as(x)


@mistake("You used the filter of the first channel for all. Each channel has a row of w of its own.")
def first_filter_for_all(x, w):
    first = w[:1].expand_as(w)
    return F.conv1d(x, first[:, None], padding=1, groups=len(w))


@mistake(
    "Your values are right, but no gradient reaches w, so that the filters could never learn: `.detach()`, "
    "`.data`, torch.no_grad() and a way through NumPy cut the record of what was computed."
)
def without_gradients(x, w):
    return along_slices(x, w).detach()


EXERCISE = Exercise(
    reference=along_slices,
    challenges=(
        Challenge("one channel, three slices, and a filter that takes what lies below", one_channel),
        Challenge("two volumes of two channels and three slices", two_volumes),
        Challenge("three random volumes of four channels and five slices", random_volumes),
    ),
    result=with_gradient,
    mistakes=(
        filter_turned_round,
        closed_to_a_ring,
        border_repeated,
        volumes_glued_together,
        channels_added_up,
        first_filter_for_all,
        without_gradients,
    ),
    hints=(
        "Which slice stands before the first one of the second volume? None.",
        "y[s] = w[0] x[s-1] + w[1] x[s] + w[2] x[s+1], for each volume and channel, zeros outside.",
        "F.conv1d(x, w[:, None], padding=1, groups=...) does it; how many groups has it if no channel mixes "
        "with another?",
    ),
)
