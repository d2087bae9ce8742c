"""`prompt_counts`: how many numbers prompts and prefixes learn, and how many stay."""

from __future__ import annotations

import random

from labkit.lessons.exercise import Challenge, Exercise, mistake


def prompt_counts(n: int, d: int, L: int, mid: int) -> dict[str, int]:
    """Numbers that learn with n prompts of width d in L blocks; `mid`: hidden units of the prefix's MLP."""
    trained = n * d + (d + 1) * mid + (mid + 1) * 2 * L * d
    return {"shallow": n * d, "deep": L * n * d, "trained": trained, "kept": 2 * L * n * d}


# Challenges


def random_network() -> tuple:
    n = random.randint(2, 9)
    d = random.randint(10, 20)
    L = random.randint(3, 7)
    mid = random.randint(21, 30)
    return n, d, L, mid


# Mistakes


@mistake("A prefix has keys and values: n rows of 2d numbers in every block, not of d.")
def kept_without_the_values(n, d, L, mid):
    trained = n * d + (d + 1) * mid + (mid + 1) * 2 * L * d
    return {"shallow": n * d, "deep": L * n * d, "trained": trained, "kept": L * n * d}


@mistake(
    "You left out the values twice: in what is kept and in what the MLP gives out. Every block needs 2d "
    "numbers of each prompt."
)
def without_the_values(n, d, L, mid):
    trained = n * d + (d + 1) * mid + (mid + 1) * L * d
    return {"shallow": n * d, "deep": L * n * d, "trained": trained, "kept": L * n * d}


@mistake("You left out the biases of the MLP's two layers: they learn as well.")
def without_the_biases(n, d, L, mid):
    trained = n * d + d * mid + mid * 2 * L * d
    return {"shallow": n * d, "deep": L * n * d, "trained": trained, "kept": 2 * L * n * d}


@mistake("You left out the bias of the MLP's first layer: its d inputs become mid numbers, each with one.")
def without_the_first_bias(n, d, L, mid):
    trained = n * d + d * mid + (mid + 1) * 2 * L * d
    return {"shallow": n * d, "deep": L * n * d, "trained": trained, "kept": 2 * L * n * d}


@mistake("You left out the bias of the MLP's second layer: it has one for each of its 2Ld outputs.")
def without_the_second_bias(n, d, L, mid):
    trained = n * d + (d + 1) * mid + mid * 2 * L * d
    return {"shallow": n * d, "deep": L * n * d, "trained": trained, "kept": 2 * L * n * d}


@mistake("You counted an MLP for every block. One MLP makes the keys and values of all: d -> mid -> 2Ld.")
def an_mlp_for_every_block(n, d, L, mid):
    trained = n * d + L * ((d + 1) * mid + (mid + 1) * 2 * d)
    return {"shallow": n * d, "deep": L * n * d, "trained": trained, "kept": 2 * L * n * d}


@mistake(
    "You used the formula of the lecture's table. It gives P' the width of the hidden layer and counts no "
    "biases; here P' is (n, d) and the MLP is d -> mid -> 2Ld with biases."
)
def formula_of_the_lecture(n, d, L, mid):
    trained = n * mid + mid**2 + 2 * L * d * mid
    return {"shallow": n * d, "deep": L * n * d, "trained": trained, "kept": 2 * L * n * d}


@mistake("You left P' out: the MLP needs something to make keys and values of.")
def without_the_input_of_the_mlp(n, d, L, mid):
    trained = (d + 1) * mid + (mid + 1) * 2 * L * d
    return {"shallow": n * d, "deep": L * n * d, "trained": trained, "kept": 2 * L * n * d}


@mistake("VPT-deep has prompts of its own in every block: L times as many as VPT-shallow.")
def deep_as_shallow(n, d, L, mid):
    trained = n * d + (d + 1) * mid + (mid + 1) * 2 * L * d
    return {"shallow": n * d, "deep": n * d, "trained": trained, "kept": 2 * L * n * d}


@mistake("VPT-shallow has prompts before the first block only. They travel on, but nothing new is learned.")
def shallow_as_deep(n, d, L, mid):
    trained = n * d + (d + 1) * mid + (mid + 1) * 2 * L * d
    return {"shallow": L * n * d, "deep": L * n * d, "trained": trained, "kept": 2 * L * n * d}


@mistake("What is trained is more than what is kept: while it trains, an MLP makes the keys and values.")
def trained_as_kept(n, d, L, mid):
    return {"shallow": n * d, "deep": L * n * d, "trained": 2 * L * n * d, "kept": 2 * L * n * d}


@mistake("What is kept is less than what is trained: the keys and values stay, the MLP goes.")
def kept_as_trained(n, d, L, mid):
    trained = n * d + (d + 1) * mid + (mid + 1) * 2 * L * d
    return {"shallow": n * d, "deep": L * n * d, "trained": trained, "kept": trained}


EXERCISE = Exercise(
    reference=prompt_counts,
    challenges=(
        Challenge("2 prompts of width 3, 2 blocks, 4 hidden units", lambda: (2, 3, 2, 4)),
        Challenge("10 prompts in a ViT-B: width 768, 12 blocks", lambda: (10, 768, 12, 512)),
        Challenge("a random network", random_network),
    ),
    mistakes=(
        kept_without_the_values,
        without_the_values,
        without_the_biases,
        without_the_first_bias,
        without_the_second_bias,
        an_mlp_for_every_block,
        formula_of_the_lecture,
        without_the_input_of_the_mlp,
        deep_as_shallow,
        shallow_as_deep,
        trained_as_kept,
        kept_as_trained,
    ),
    hints=(
        "What is there once, what once per block, and what twice per block?",
        "nd; Lnd; nd + (d + 1)mid + (mid + 1)2Ld, the + 1 being biases; 2Lnd.",
        'return {"shallow": n * d, "deep": L * n * d, "trained": n * d + (d + 1) * mid + ..., "kept": ...}',
    ),
)
