"""`kept`: how many numbers a network keeps in memory for its backward pass."""

from __future__ import annotations

import random
from collections.abc import Sequence

from labkit.lessons.exercise import Challenge, Exercise, mistake


def kept(n: int, widths: Sequence[int], learns: Sequence[bool], input_learns: bool) -> int:
    """Numbers that linear, GELU, linear, ..., linear keep for the backward pass of n tokens.

    widths: w0 in front of the first linear layer, w1 behind it, and so on; learns: one for each layer.
    """
    total = 0
    flows = input_learns  # does anything in front of this place learn?
    for i, layer_learns in enumerate(learns):
        if layer_learns:
            total += n * widths[i]  # dW needs the layer's input
            flows = True
        if flows and i + 1 < len(learns):
            total += n * widths[i + 1]  # GELU' needs GELU's input
    return total


# Challenges: the smallest first


def both_learn() -> tuple:
    return 100, (10, 20, 30), (True, True), False


def second_learns() -> tuple:
    return 100, (10, 20, 30), (False, True), False


def first_learns() -> tuple:
    return 100, (10, 20, 30), (True, False), False


def nothing_learns() -> tuple:
    return 100, (10, 20, 30), (False, False), False


def prompts_learn() -> tuple:
    return 100, (10, 20, 30), (False, False), True


def second_of_four_learns() -> tuple:
    return 100, (7, 11, 13, 17, 19), (False, True, False, False), False


def four_layers_behind_prompts() -> tuple:
    return 100, (7, 11, 13, 17, 19), (False, True, False, True), True


def layers_drawn() -> tuple:
    count = random.randint(1, 6)
    widths = tuple(random.sample(range(5, 60), count + 1))
    return (
        random.randint(50, 200),
        widths,
        tuple(random.choices((True, False), k=count)),
        random.random() < 0.5,
    )


# Mistakes


@mistake(
    "You let everything be kept always. "
    "A weight that does not learn needs no gradient, so its input can be forgotten."
)
def everything_kept(n, widths, learns, input_learns):
    total = 0
    for i in range(len(learns)):
        total += n * widths[i]
        if i + 1 < len(learns):
            total += n * widths[i + 1]
    return total


@mistake(
    "You forgot GELU. Its slope depends on what went in, so it keeps its input as soon as a gradient passes."
)
def without_gelu(n, widths, learns, input_learns):
    total = 0
    for i, layer_learns in enumerate(learns):
        if layer_learns:
            total += n * widths[i]
    return total


@mistake(
    "You let a frozen layer keep its input because a gradient passes. "
    "Backwards it only multiplies by its weights, and these are there anyway."
)
def frozen_layer_keeps_its_input(n, widths, learns, input_learns):
    total = 0
    flows = input_learns
    for i, layer_learns in enumerate(learns):
        if layer_learns or flows:
            total += n * widths[i]
            flows = True
        if flows and i + 1 < len(learns):
            total += n * widths[i + 1]
    return total


@mistake(
    "You let GELU keep its input always. "
    "Where nothing in front of it learns, no gradient ever comes that far down."
)
def gelu_always_keeps_its_input(n, widths, learns, input_learns):
    total = 0
    for i, layer_learns in enumerate(learns):
        if layer_learns:
            total += n * widths[i]
        if i + 1 < len(learns):
            total += n * widths[i + 1]
    return total


@mistake(
    "You let GELU keep its input when a layer *above* it learns. The gradient comes from above and stops at "
    "the lowest thing that learns: what counts is whether anything in front learns."
)
def gelu_looks_above(n, widths, learns, input_learns):
    total = 0
    for i, layer_learns in enumerate(learns):
        if layer_learns:
            total += n * widths[i]
        if any(learns[i + 1 :]):
            total += n * widths[i + 1]
    return total


@mistake(
    "You let a learning weight keep its output. "
    "Its gradient is the product of what comes from above with the layer's *input*."
)
def weight_keeps_its_output(n, widths, learns, input_learns):
    total = 0
    flows = input_learns
    for i, layer_learns in enumerate(learns):
        if layer_learns:
            total += n * widths[i + 1]
            flows = True
        if flows and i + 1 < len(learns):
            total += n * widths[i + 1]
    return total


@mistake(
    "You ignored input_learns. "
    "Prompts in front of a frozen network learn, so a gradient has to pass through all of it."
)
def input_learns_ignored(n, widths, learns, input_learns):
    total = 0
    flows = False
    for i, layer_learns in enumerate(learns):
        if layer_learns:
            total += n * widths[i]
            flows = True
        if flows and i + 1 < len(learns):
            total += n * widths[i + 1]
    return total


@mistake(
    "You set the flag after the GELU. A layer's output depends on its own weight, so the GELU right behind "
    "the lowest layer that learns already has to pass a gradient on."
)
def flag_set_behind_the_gelu(n, widths, learns, input_learns):
    total = 0
    flows = input_learns
    for i, layer_learns in enumerate(learns):
        if layer_learns:
            total += n * widths[i]
        if flows and i + 1 < len(learns):
            total += n * widths[i + 1]
        flows = flows or layer_learns
    return total


@mistake(
    "You started at the lowest layer that learns and found none. Where nothing learns there is no backward "
    "pass, and nothing is kept: 0."
)
def lowest_layer_looked_up(n, widths, learns, input_learns):
    lowest = 0 if input_learns else learns.index(True)
    total = n * sum(width for width, layer_learns in zip(widths[:-1], learns, strict=True) if layer_learns)
    return total + n * sum(widths[lowest + 1 : -1])


@mistake("You put a GELU behind the last layer as well; the chain ends with a linear layer.")
def gelu_behind_the_last_layer(n, widths, learns, input_learns):
    total = 0
    flows = input_learns
    for i, layer_learns in enumerate(learns):
        if layer_learns:
            total += n * widths[i]
            flows = True
        if flows:
            total += n * widths[i + 1]
    return total


EXERCISE = Exercise(
    reference=kept,
    challenges=(
        Challenge("both layers learn", both_learn),
        Challenge("the second alone learns", second_learns),
        Challenge("the first alone learns", first_learns),
        Challenge("nothing learns at all", nothing_learns),
        Challenge("nothing learns but prompts in front", prompts_learn),
        Challenge("four layers, the second learns", second_of_four_learns),
        Challenge("one layer, and no GELU behind it", lambda: (100, (10, 20), (True,), False)),
        Challenge("four layers behind prompts", four_layers_behind_prompts),
        Challenge("layers drawn at random", layers_drawn),
    ),
    mistakes=(
        everything_kept,
        without_gelu,
        frozen_layer_keeps_its_input,
        gelu_always_keeps_its_input,
        gelu_looks_above,
        weight_keeps_its_output,
        input_learns_ignored,
        flag_set_behind_the_gelu,
        lowest_layer_looked_up,
        gelu_behind_the_last_layer,
    ),
    hints=(
        "What does each derivative need? dW needs the layer's input, dx needs W, GELU' needs GELU's input.",
        "Walk from the input to the output with a flag: does anything in front of this place learn?",
        "For each layer: if it learns, add n * widths[i] and set the flag; then, unless it was the last, "
        "add n * widths[i + 1] for the GELU if the flag is set.",
    ),
)
