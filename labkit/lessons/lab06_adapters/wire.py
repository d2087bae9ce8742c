"""`wire`: the three places where an adapter is put, told apart by what it reads."""

from __future__ import annotations

from collections.abc import Callable

import torch

from labkit.lessons.exercise import Challenge, Exercise, mistake
from labkit.lessons.lab06_adapters.inputs import row


def wire(x: torch.Tensor, layer: Callable, added: Callable, where: str, s: float) -> torch.Tensor:
    """The stream x (N, d) after a frozen layer and an adapter, which reads three different things: (N, d)."""
    y = layer(x)
    if where == "sequential":
        return x + y + added(y)
    if where == "parallel":
        return x + y + s * added(x)
    return x + y + added(x + y)


# Challenges


def triple(x: torch.Tensor) -> torch.Tensor:
    """A layer that triples what it reads, of any shape."""
    return 3 * x


def square(z: torch.Tensor) -> torch.Tensor:
    """What an adapter adds: the square of what it reads, of any shape."""
    return z * z


def one_number(where: str) -> tuple:
    """A stream of one number, between a layer and an adapter that can be followed by hand: (1)."""
    return row(1), triple, square, where, 0.5


def two_slices(where: str) -> tuple:
    """Two slices of two random tokens (2, 2, 3), a random matrix (3, 3) as layer, a bent line as adapter."""
    matrix = torch.randn(3, 3)
    x = torch.randn(2, 2, 3)

    def layer(x: torch.Tensor) -> torch.Tensor:
        return x @ matrix

    return x, layer, torch.tanh, where, 0.1


# Mistakes


@mistake(
    "Your sequential adapter reads x. It comes *after* the layer, so it reads what the layer gives out; "
    "reading x is what the parallel one does."
)
def sequential_reads_x(x, layer, added, where, s):
    y = layer(x)
    if where == "sequential":
        return x + y + added(x)
    if where == "parallel":
        return x + y + s * added(x)
    return x + y + added(x + y)


@mistake(
    "Your sequential adapter has no skip of its own: what the layer gave out is lost, and only what the "
    "adapter made of it is added to the stream."
)
def sequential_without_skip(x, layer, added, where, s):
    y = layer(x)
    if where == "sequential":
        return x + added(y)
    if where == "parallel":
        return x + y + s * added(x)
    return x + y + added(x + y)


@mistake(
    "Your parallel adapter reads the layer's output. It stands *beside* the layer and reads the same x, "
    "so both can be computed at once."
)
def parallel_reads_output(x, layer, added, where, s):
    y = layer(x)
    if where == "sequential":
        return x + y + added(y)
    if where == "parallel":
        return x + y + s * added(y)
    return x + y + added(x + y)


@mistake(
    "You scaled the frozen layer too. s belongs to what is new; the pretrained network must stay as it is."
)
def parallel_scales_layer(x, layer, added, where, s):
    y = layer(x)
    if where == "sequential":
        return x + y + added(y)
    if where == "parallel":
        return x + s * (y + added(x))
    return x + y + added(x + y)


@mistake("You left out s. In AdaptFormer it is 0.1 and keeps what is added small.")
def parallel_without_scale(x, layer, added, where, s):
    y = layer(x)
    if where == "sequential":
        return x + y + added(y)
    if where == "parallel":
        return x + y + added(x)
    return x + y + added(x + y)


@mistake(
    "You scaled in all three places. The sequential adapter and the one after the block have "
    "no s: it belongs to the parallel one alone."
)
def scaled_everywhere(x, layer, added, where, s):
    y = layer(x)
    reads = {"sequential": y, "parallel": x, "after": x + y}
    return x + y + s * added(reads[where])


@mistake(
    "Your adapter's s stands inside: you scaled what it reads, s belongs to what it adds. With a bend in "
    "between they are not the same."
)
def parallel_scales_what_it_reads(x, layer, added, where, s):
    y = layer(x)
    if where == "sequential":
        return x + y + added(y)
    if where == "parallel":
        return x + y + added(s * x)
    return x + y + added(x + y)


@mistake("You lost x: what a layer and its adapter make is *added* to the stream, in all three places.")
def stream_lost(x, layer, added, where, s):
    y = layer(x)
    reads = {"sequential": y, "parallel": x, "after": x + y}
    return y + (s if where == "parallel" else 1) * added(reads[where])


@mistake(
    "Your adapter after the block reads what the layer gives out, as the sequential one does. After the "
    "block, the residual has been added already: it reads x + F(x)."
)
def after_reads_output(x, layer, added, where, s):
    y = layer(x)
    if where == "sequential":
        return x + y + added(y)
    if where == "parallel":
        return x + y + s * added(x)
    return x + y + added(y)


@mistake("Your adapter after the block lost the block's residual: what it adds to is x + F(x), not F(x).")
def after_without_residual(x, layer, added, where, s):
    y = layer(x)
    if where == "sequential":
        return x + y + added(y)
    if where == "parallel":
        return x + y + s * added(x)
    return y + added(x + y)


EXERCISE = Exercise(
    reference=wire,
    challenges=(
        Challenge(
            "where = 'sequential': the layer triples what it reads, the adapter's two matrices square it",
            lambda: one_number("sequential"),
        ),
        Challenge(
            "where = 'parallel': the layer triples what it reads, the adapter's two matrices square it",
            lambda: one_number("parallel"),
        ),
        Challenge(
            "where = 'after': the layer triples what it reads, the adapter's two matrices square it",
            lambda: one_number("after"),
        ),
        Challenge(
            "where = 'sequential': a random layer and a bent line as adapter, for two slices of two tokens",
            lambda: two_slices("sequential"),
        ),
        Challenge(
            "where = 'parallel': a random layer and a bent line as adapter, for two slices of two tokens",
            lambda: two_slices("parallel"),
        ),
        Challenge(
            "where = 'after': a random layer and a bent line as adapter, for two slices of two tokens",
            lambda: two_slices("after"),
        ),
    ),
    mistakes=(
        sequential_reads_x,
        sequential_without_skip,
        parallel_reads_output,
        parallel_scales_layer,
        parallel_without_scale,
        scaled_everywhere,
        parallel_scales_what_it_reads,
        stream_lost,
        after_reads_output,
        after_without_residual,
    ),
    hints=(
        "What does the adapter read in each case: x, F(x), or their sum? And what was there before stays.",
        "sequential: x + F(x) + a(F(x)). parallel: x + F(x) + s a(x). after: (x + F(x)) + a(x + F(x)).",
        "Compute y = layer(x) once. What the three have in common is x + y; only the last term differs.",
    ),
)
