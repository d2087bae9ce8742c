"""`rates`: LoRA+'s learning rates, a larger one for B than for all else."""

from __future__ import annotations

import random

from labkit.lessons.exercise import Challenge, Exercise, mistake


def rates(names: list[str], lr: float, ratio: float) -> dict[str, float]:
    """The learning rate of each parameter, by its name: lr * ratio for every B, lr for all others."""
    return {name: lr * ratio if name.endswith(".B") else lr for name in names}


# Challenges


def one_layer_and_the_head() -> tuple:
    return ["q.A", "q.B", "head.weight", "head.bias"], 1e-3, 16


def names_of_a_network() -> tuple:
    return ["Backbone.0.fc1.A", "Backbone.0.fc1.B", "Backbone.norm.weight"], 2e-3, 4


def rates_drawn() -> tuple:
    names = [
        f"blocks.{number}.qkv.{part}"
        for number in range(random.randint(2, 5))
        for part in ("weight", "A", "B")
    ]
    return names, random.choice((1e-4, 3e-4, 5e-3)) * random.randint(1, 9), random.randint(2, 32)


# Mistakes


@mistake("You gave the ratio to A. It is B that must learn faster.")
def ratio_for_A(names, lr, ratio):
    return {name: lr * ratio if name.endswith(".A") else lr for name in names}


@mistake("You gave the ratio to both. Then nothing changed between them: it is LoRA with a larger rate.")
def ratio_for_both(names, lr, ratio):
    return {name: lr * ratio if name.endswith((".A", ".B")) else lr for name in names}


@mistake("You slowed A down instead. The ratio between the two is right, and both are too slow by it.")
def slower_A(names, lr, ratio):
    return {name: lr / ratio if name.endswith(".A") else lr for name in names}


@mistake("Only A has the plain rate: you sped up the head as well.")
def faster_head(names, lr, ratio):
    return {name: lr if name.endswith(".A") else lr * ratio for name in names}


@mistake("You left out what is neither A nor B. It would not learn at all.")
def head_left_out(names, lr, ratio):
    by_name = {}
    for name in names:
        if name.endswith(".A"):
            by_name[name] = lr
        if name.endswith(".B"):
            by_name[name] = lr * ratio
    return by_name


@mistake("You looked for a B anywhere in the name. Ask how the name ends.")
def B_anywhere_in_the_name(names, lr, ratio):
    return {name: lr * ratio if "B" in name else lr for name in names}


EXERCISE = Exercise(
    reference=rates,
    challenges=(
        Challenge("one LoRA layer and the head", one_layer_and_the_head),
        Challenge("names as they come from a network", names_of_a_network),
        Challenge("blocks, a rate and a ratio drawn at random", rates_drawn),
    ),
    mistakes=(ratio_for_A, ratio_for_both, slower_A, faster_head, head_left_out, B_anywhere_in_the_name),
    hints=(
        "There are three kinds of names here, and two rates.",
        "lr · ratio for a name that ends with .B, lr for every other.",
        'A dictionary over all names; name.endswith(".B") decides.',
    ),
)
