"""`prompted`: a block that sees prompts beside the tokens, and gives out the tokens alone."""

from __future__ import annotations

from collections.abc import Callable

import torch

from labkit.lessons.exercise import Challenge, Exercise, mistake
from labkit.lessons.lab03_prompts.inputs import CUT, AddMean, lost_gradients, transformer_block


def prompted(block: Callable, x: torch.Tensor, P: torch.Tensor) -> torch.Tensor:
    """Tokens (B, N, d) and prompts (n, d) -> the tokens (B, N, d) that a block makes beside the prompts."""
    return block(torch.cat([P.expand(len(x), -1, -1), x], 1))[:, len(P) :]


# Challenges


def two_tokens() -> tuple:
    return AddMean(), torch.tensor([[[1.0], [3.0]]]), torch.tensor([[5.0]])


def two_images() -> tuple:
    return AddMean(), torch.randn(2, 3, 2), torch.randn(2, 2)


def frozen_block() -> tuple:
    return transformer_block().requires_grad_(False), torch.randn(3, 5, 4), torch.randn(2, 4)


# What a later section needs: prompts learn, and so do those of earlier blocks, through x


def lets_gradients_through(answer, output, block, x, P) -> str | None:
    """Which of x and P gets no gradient, in words."""
    return lost_gradients(answer, {"block": block, "x": x, "P": P}, ("x", "P"))


# Mistakes


@mistake(CUT)
def without_a_graph(block, x, P):
    return prompted(block, x, P).detach()


@mistake(
    "You kept the prompts: there are more tokens than came in, and the next block, or the decoder, takes the "
    "first ones for patches of the image."
)
def prompts_kept(block, x, P):
    return block(torch.cat([P.expand(len(x), -1, -1), x], 1))


@mistake("You cut off the last rows, but the prompts stand in front: you lose patches and keep prompts.")
def last_rows_cut_off(block, x, P):
    return block(torch.cat([P.expand(len(x), -1, -1), x], 1))[:, : x.shape[1]]


@mistake("You returned the prompts and threw the patches away; it is the other way round.")
def patches_thrown_away(block, x, P):
    return block(torch.cat([P.expand(len(x), -1, -1), x], 1))[:, : len(P)]


@mistake("Your block never saw the prompts: they were taken off before it ran, not after.")
def taken_off_before_the_block(block, x, P):
    return block(torch.cat([P.expand(len(x), -1, -1), x], 1)[:, len(P) :])


@mistake("You always cut off one row; there are n = len(P) prompts.")
def one_row_cut_off(block, x, P):
    return block(torch.cat([P.expand(len(x), -1, -1), x], 1))[:, 1:]


@mistake("You kept the last n rows, as many as there are prompts; it is N rows that belong to the image.")
def last_n_rows_kept(block, x, P):
    return block(torch.cat([P.expand(len(x), -1, -1), x], 1))[:, -len(P) :]


@mistake("You cut along the first axis, that of the images. Tokens lie along the second: [:, len(P):].")
def cut_along_the_images(block, x, P):
    return block(torch.cat([P.expand(len(x), -1, -1), x], 1))[len(P) :]


@mistake("You added the prompts to the tokens. They are tokens of their own, beside the others.")
def prompts_added_to_the_tokens(block, x, P):
    return block(x + P.sum(0))


@mistake("You put the prompts in the place of the first tokens: the image has lost patches.")
def in_place_of_the_first_tokens(block, x, P):
    others = x[:, len(P) :]
    return block(torch.cat([P.expand(len(x), -1, -1), others], 1))


@mistake(
    "Your prompts stand before the first image alone: with a batch, every image needs them. See "
    "`P.expand(len(x), -1, -1)`."
)
def before_the_first_image_alone(block, x, P):
    return block(torch.cat([P[None], x], 1))[:, len(P) :]


@mistake("You joined along the batch (axis 0), so prompts became images. Tokens are axis 1.")
def joined_along_the_batch(block, x, P):
    return block(torch.cat([P.expand(len(x), -1, -1), x], 0))[len(x) :]


EXERCISE = Exercise(
    reference=prompted,
    challenges=(
        Challenge("two tokens, one prompt", two_tokens),
        Challenge("two images of three tokens, two prompts", two_images),
        Challenge("a transformer's block", frozen_block),
    ),
    mistakes=(
        prompts_kept,
        last_rows_cut_off,
        patches_thrown_away,
        taken_off_before_the_block,
        one_row_cut_off,
        last_n_rows_kept,
        cut_along_the_images,
        prompts_added_to_the_tokens,
        in_place_of_the_first_tokens,
        before_the_first_image_alone,
        joined_along_the_batch,
        without_a_graph,
    ),
    properties={"lets gradients through": lets_gradients_through},
    hints=(
        "Who may see the prompts? And who must not leave the block?",
        "[P; x] goes in, along axis 1, for every image of the batch; of what comes out, leave out the first "
        "n tokens.",
        "return block(torch.cat([P.expand(len(x), -1, -1), x], 1))[:, len(P):]",
    ),
)
