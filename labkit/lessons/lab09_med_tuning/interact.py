"""`interact`: what the stage before handed on (prev), made to fit and fused with this stage's M."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from labkit.lessons.exercise import Challenge, Exercise, mistake


def interact(M: torch.Tensor, prev: torch.Tensor, align: Callable, fuse: Callable) -> torch.Tensor:
    """fuse([M, align(prev)]), channels are axis 1: M (B, m, ...) -> (B, m, ...)."""
    return fuse(torch.cat([M, align(prev)], 1))


# Challenges


def twice_plus_1(z: torch.Tensor) -> torch.Tensor:
    """A simple align, 2z + 1, for z of any shape."""
    return 2 * z + 1


def a_plus_3b(both: torch.Tensor) -> torch.Tensor:
    """A simple fuse, a + 3b, where a is the first half of the channels and b the other: (B, 2m) -> (B, m)."""
    half = both.shape[1] // 2
    return both[:, :half] + 3 * both[:, half:]


def later_stage() -> tuple:
    return torch.ones(1, 1), torch.full((1, 1), 10.0), twice_plus_1, a_plus_3b


def first_stage() -> tuple:
    return torch.ones(1, 1), torch.zeros(1, 1), twice_plus_1, a_plus_3b


def swin_stages() -> tuple:
    m = 4
    w_align = torch.randn(m, m // 2, 1, 3, 3)
    w_fuse = torch.randn(m, 2 * m, 1, 1, 1)
    M = torch.randn(1, m, 3, 2, 2)
    prev = torch.randn(1, m // 2, 3, 4, 4)

    def align(z: torch.Tensor) -> torch.Tensor:
        return F.conv3d(z, w_align, stride=(1, 2, 2), padding=(0, 1, 1))

    def fuse(both: torch.Tensor) -> torch.Tensor:
        return F.conv3d(both, w_fuse)

    return M, prev, align, fuse


# Mistakes


@mistake(
    "You added. The paper tried that (its ablation has Add, Max and Concat) and then let a learned matrix "
    "see both side by side."
)
def added(M, prev, align, fuse):
    return M + align(prev)


@mistake("You took the larger of the two. The paper tried that as well; its method puts them side by side.")
def larger_of_the_two(M, prev, align, fuse):
    return torch.maximum(M, align(prev))


@mistake(
    "You did not align. The stage before may have another grid and other channels; align makes its "
    "feature fit."
)
def without_align(M, prev, align, fuse):
    return fuse(torch.cat([M, prev], 1))


@mistake("You put the stage before first. fuse has learned that M comes first.")
def stage_before_first(M, prev, align, fuse):
    return fuse(torch.cat([align(prev), M], 1))


@mistake("You aligned M. M is of this stage and fits already; it is the stage before that must be aligned.")
def M_aligned(M, prev, align, fuse):
    return fuse(torch.cat([align(M), prev], 1))


@mistake(
    "You aligned both. M is of this stage and fits already; in a Swin, aligning it would fail, as its "
    "channels are not the earlier ones."
)
def both_aligned(M, prev, align, fuse):
    return fuse(torch.cat([align(M), align(prev)], 1))


@mistake(
    "You stopped after the concatenation: now there are twice as many channels as the up-projection takes."
)
def without_fuse(M, prev, align, fuse):
    return torch.cat([M, align(prev)], 1)


@mistake(
    "You joined along the batch, which is where torch.cat joins unless told the axis. Channels are axis 1."
)
def joined_along_the_batch(M, prev, align, fuse):
    return fuse(torch.cat([M, align(prev)]))


@mistake("You stacked: that makes a new axis. torch.cat joins along the channels.")
def stacked(M, prev, align, fuse):
    return fuse(torch.stack([M, align(prev)], 1))


@mistake(
    "You gave fuse two tensors. It takes one, in which both lie side by side along the channels: "
    "torch.cat makes it."
)
def two_tensors_to_fuse(M, prev, align, fuse):
    return fuse(M, align(prev))


@mistake("You added M once more. What fuse makes takes the place of M, as the arrow in the formula says.")
def M_added_once_more(M, prev, align, fuse):
    return M + fuse(torch.cat([M, align(prev)], 1))


@mistake("You left the first stage out. Given zeros, align still makes its bias of them, and fuse mixes M.")
def first_stage_left_out(M, prev, align, fuse):
    if not prev.any():
        return M
    return fuse(torch.cat([M, align(prev)], 1))


EXERCISE = Exercise(
    reference=interact,
    challenges=(
        Challenge("M = 1, before it was 10; align makes 2z + 1, fuse makes a + 3b", later_stage),
        Challenge("the same at the first stage, which is given 0", first_stage),
        Challenge("a Swin's stages: twice the grid and half the channels before", swin_stages),
    ),
    mistakes=(
        added,
        larger_of_the_two,
        without_align,
        stage_before_first,
        M_aligned,
        both_aligned,
        without_fuse,
        joined_along_the_batch,
        stacked,
        two_tensors_to_fuse,
        M_added_once_more,
        first_stage_left_out,
    ),
    hints=(
        "First make the older feature fit. Then let one matrix see both.",
        "fuse([M, align(prev)]), the brackets meaning: side by side, along the channels.",
        "`torch.cat([M, align(prev)], 1)` puts them side by side; give that to fuse.",
    ),
)
