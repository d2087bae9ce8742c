"""`as_prefix`: the keys and values that a block's attention makes of prompts."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from labkit.lessons.exercise import Challenge, Exercise, mistake
from labkit.lessons.lab03_prompts.inputs import CUT, lost_gradients


def as_prefix(
    P: torch.Tensor, norm: Callable, W: torch.Tensor, b: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts (n, d) -> the keys and the values that they become, (n, d) each; W (3d, d), b (3d)."""
    _, keys, values = F.linear(norm(P), W, b).chunk(3, -1)
    return keys, values


# Challenges


class Twice(nn.Module):
    """The smallest thing that can stand for a norm."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    def __repr__(self) -> str:
        return "a norm that doubles"


def width_1() -> tuple:
    P = torch.tensor([[3.0], [1.0]])
    W = torch.tensor([[1.0], [10.0], [100.0]])
    b = torch.tensor([0.0, 1.0, 2.0])
    return P, Twice(), W, b


def random_projection(n: int, d: int) -> tuple:
    """n prompts (n, d), a norm that is not at its start, W (3d, d) and b (3d)."""
    norm = nn.LayerNorm(d)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return torch.randn(n, d), norm.requires_grad_(False), torch.randn(3 * d, d), torch.randn(3 * d)


# What training needs


def lets_gradients_through(answer, output, P, norm, W, b) -> str | None:
    """Whether keys and values both hand gradients to P; a sentence where one does not."""
    return lost_gradients(answer, {"P": P, "norm": norm, "W": W, "b": b}, ("P",))


# Mistakes


@mistake(CUT)
def without_a_graph(P, norm, W, b):
    return as_prefix(P.detach(), norm, W, b)


@mistake(
    "You left out the norm. The block normalises its tokens before it makes keys of them, and a prompt is a "
    "token."
)
def without_the_norm(P, norm, W, b):
    _, keys, values = F.linear(P, W, b).chunk(3, -1)
    return keys, values


@mistake("You left out the bias b.")
def without_the_bias(P, norm, W, b):
    _, keys, values = F.linear(norm(P), W).chunk(3, -1)
    return keys, values


@mistake(
    "You took the first two thirds: those are queries and keys. A prompt's query is what is thrown away."
)
def queries_and_keys(P, norm, W, b):
    queries, keys, _ = F.linear(norm(P), W, b).chunk(3, -1)
    return queries, keys


@mistake("You exchanged keys and values: the rows of W are q, then k, then v.")
def keys_and_values_exchanged(P, norm, W, b):
    _, keys, values = F.linear(norm(P), W, b).chunk(3, -1)
    return values, keys


@mistake(
    "You returned the prompts themselves. In a free prefix, keys and values are learned directly; here the "
    "block makes them of P."
)
def the_prompts_themselves(P, norm, W, b):
    return P, P


@mistake("You took every third number. The thirds lie one after the other: the first d are the query.")
def every_third_number(P, norm, W, b):
    qkv = F.linear(norm(P), W, b)
    return qkv[:, 1::3], qkv[:, 2::3]


@mistake("You multiplied P by W from the wrong side: a linear layer computes x W^T + b.")
def multiplied_from_the_wrong_side(P, norm, W, b):
    _, keys, values = (norm(P) @ W + b).chunk(3, -1)
    return keys, values


@mistake(
    "You reshaped to (3, n, d). That cuts the numbers in the order in which they lie in memory, prompt after "
    "prompt; q, k and v lie side by side in each row: cut columns."
)
def thirds_by_memory(P, norm, W, b):
    _, keys, values = F.linear(norm(P), W, b).view(3, *P.shape)
    return keys, values


@mistake("You sliced the rows of W rightly, but multiplied without transposing: a linear layer is x W^T + b.")
def sliced_not_transposed(P, norm, W, b):
    d = P.shape[1]
    return norm(P) @ W[d : 2 * d] + b[d : 2 * d], norm(P) @ W[2 * d :] + b[2 * d :]


@mistake("You cut rows, but each row is a prompt. Its query, key and value lie side by side, d columns each.")
def rows_cut(P, norm, W, b):
    d = P.shape[1]
    _, keys, values = F.linear(norm(P), W, b).tensor_split((d, 2 * d))
    return keys, values


EXERCISE = Exercise(
    reference=as_prefix,
    challenges=(
        Challenge("two prompts of width 1", width_1),
        Challenge("three prompts of width 2", lambda: random_projection(3, 2)),
        Challenge("four prompts of width 6", lambda: random_projection(4, 6)),
    ),
    mistakes=(
        without_the_norm,
        without_the_bias,
        queries_and_keys,
        keys_and_values_exchanged,
        the_prompts_themselves,
        every_third_number,
        multiplied_from_the_wrong_side,
        thirds_by_memory,
        sliced_not_transposed,
        rows_cut,
        without_a_graph,
    ),
    properties={"lets gradients through": lets_gradients_through},
    hints=(
        "What does the block do to a token before it makes a key of it? A prompt is a token.",
        "norm(P) W^T + b is (n, 3d): queries, keys, values, d numbers each.",
        "q, k, v = F.linear(norm(P), W, b).chunk(3, -1), and return two of them.",
    ),
)
