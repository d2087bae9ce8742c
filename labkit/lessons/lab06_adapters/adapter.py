"""`adapter`: a token made narrow, bent, made wide again, and added to what it was."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from labkit.lessons.exercise import Challenge, Exercise, mistake
from labkit.lessons.lab06_adapters.inputs import CUT, learning, row, rows, with_gradients


def adapter(
    x: torch.Tensor, W1: torch.Tensor, b1: torch.Tensor, W2: torch.Tensor, b2: torch.Tensor
) -> torch.Tensor:
    """x + GELU(x W1' + b1) W2' + b2: x (N, d), W1 (m, d), W2 (d, m)."""
    return x + F.linear(F.gelu(F.linear(x, W1, b1)), W2, b2)


def learnable(
    output: torch.Tensor,
    x: torch.Tensor,
    W1: torch.Tensor,
    b1: torch.Tensor,
    W2: torch.Tensor,
    b2: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """What is compared: the tokens, and the gradients by which this adapter and those below it learn."""
    return with_gradients(output, x=x, W1=W1, b1=b1, W2=W2, b2=b2)


# Challenges


def narrow() -> tuple:
    x = rows((-2, 1))
    W1, b1 = rows((1, 0)), row(1)
    W2, b2 = rows((2,), (3,)), row(0.5, 0)
    return x, W1, b1, W2, b2


def random_tokens() -> tuple:
    N, d, m = 5, 6, 3
    return torch.randn(N, d), torch.randn(m, d), torch.randn(m), torch.randn(d, m), torch.randn(d)


def weights_that_learn() -> tuple:
    N, d, m = 3, 4, 2
    return learning(N, d), learning(m, d), learning(m), learning(d, m), learning(d)


# Mistakes


@mistake(CUT)
def without_a_graph(x, W1, b1, W2, b2):
    return adapter(x, W1, b1, W2, b2).detach()


@mistake(
    "You detached the tokens. The numbers are right, but no gradient passes on to the blocks below: their "
    "adapters would never learn."
)
def tokens_detached(x, W1, b1, W2, b2):
    return adapter(x.detach(), W1, b1, W2, b2)


@mistake("You went through NumPy, which keeps no record for gradients: nothing could learn. Stay with torch.")
def through_numpy(x, W1, b1, W2, b2):
    return adapter(*(torch.from_numpy(M.numpy()) for M in (x, W1, b1, W2, b2)))


@mistake("You did not transpose W1. Tokens are rows, and W1 is (m, d), outputs by inputs: x @ W1.T.")
def W1_not_transposed(x, W1, b1, W2, b2):
    return x + F.linear(F.gelu(x @ W1 + b1), W2, b2)


@mistake(
    "You bent with PyTorch's approximation by tanh. Its numbers are close, but the formula's GELU is exact: "
    "F.gelu(z) without more."
)
def bent_by_tanh(x, W1, b1, W2, b2):
    return x + F.linear(F.gelu(F.linear(x, W1, b1), approximate="tanh"), W2, b2)


@mistake(
    "You left out the skip connection. Then the adapter replaces what the network computed instead of "
    "adding to it, and everything that the blocks above learned to expect is gone."
)
def without_skip(x, W1, b1, W2, b2):
    return F.linear(F.gelu(F.linear(x, W1, b1)), W2, b2)


@mistake(
    "You left out the activation. Two matrices in a row are one matrix, of low rank: that is LoRA, and "
    "it cannot bend."
)
def without_activation(x, W1, b1, W2, b2):
    return x + F.linear(F.linear(x, W1, b1), W2, b2)


@mistake(
    "You bent the output of the up-projection. GELU cuts off what is negative, so such an adapter could "
    "hardly take anything away; the bend belongs between the two layers."
)
def output_bent(x, W1, b1, W2, b2):
    return x + F.gelu(F.linear(F.linear(x, W1, b1), W2, b2))


@mistake(
    "You bent the input. Then what is negative in a token hardly reaches the adapter; the bend belongs "
    "between the two layers."
)
def input_bent(x, W1, b1, W2, b2):
    return x + F.linear(F.linear(F.gelu(x), W1, b1), W2, b2)


@mistake("You added x twice. The stream would double at every adapter, before anything was learned.")
def skip_twice(x, W1, b1, W2, b2):
    return 2 * x + F.linear(F.gelu(F.linear(x, W1, b1)), W2, b2)


@mistake("You used ReLU where the formula says GELU. Both bend, but they are not the same network.")
def relu_for_gelu(x, W1, b1, W2, b2):
    return x + F.linear(F.relu(F.linear(x, W1, b1)), W2, b2)


@mistake("You left out b1, the bias of the down-projection: it sets where GELU bends.")
def without_b1(x, W1, b1, W2, b2):
    return x + F.linear(F.gelu(F.linear(x, W1)), W2, b2)


@mistake("You left out b2, the bias of the up-projection.")
def without_b2(x, W1, b1, W2, b2):
    return x + F.linear(F.gelu(F.linear(x, W1, b1)), W2)


EXERCISE = Exercise(
    reference=adapter,
    challenges=(
        Challenge("one token of width 2, through a bottleneck of 1", narrow),
        Challenge("five random tokens of width 6, through a bottleneck of 3", random_tokens),
        Challenge("tokens and weights that ask for gradients, as in training", weights_that_learn),
    ),
    result=learnable,
    mistakes=(
        without_a_graph,
        tokens_detached,
        through_numpy,
        W1_not_transposed,
        bent_by_tanh,
        without_skip,
        without_activation,
        output_bent,
        input_bent,
        skip_twice,
        relu_for_gelu,
        without_b1,
        without_b2,
    ),
    hints=(
        "Four stations: make it narrow, bend it, make it wide again, add it to what was there.",
        "x + W2 GELU(W1 x + b1) + b2. The tokens are the rows of x, so each matrix works from the right, "
        "transposed, as in nn.Linear.",
        "`F.linear(x, W1, b1)` is x @ W1.T + b1. Bend it with F.gelu, do the same with W2 and b2, add x.",
    ),
)
