"""`biases`: what BitFit trains, found by the names of the parameters."""

from __future__ import annotations

import random
from collections.abc import Iterable

from labkit.lessons.exercise import Challenge, Exercise, mistake


def biases(names: Iterable[str]) -> list[str]:
    """The names whose last part is "bias"."""
    return [name for name in names if name.split(".")[-1] == "bias"]


# Challenges


def swin_transformer() -> tuple:
    names = [
        "patch_embed.proj.weight",
        "patch_embed.proj.bias",
        "layers.0.blocks.0.norm1.weight",
        "layers.0.blocks.0.norm1.bias",
        "layers.0.blocks.0.attn.relative_position_bias_table",
        "layers.0.blocks.0.attn.qkv.weight",
        "layers.0.blocks.0.attn.qkv.bias",
        "layers.0.blocks.0.mlp.fc1.weight",
        "layers.0.blocks.0.mlp.fc1.bias",
    ]
    return (names,)


def layer_called_bias() -> tuple:
    names = ["bias.weight", "bias.bias", "blocks.3.norm2.bias", "pos_embed"]
    return (names,)


def names_drawn() -> tuple:
    layers = ("norm1", "norm2", "attn.qkv", "mlp.fc1", "bias_proj")
    names = [
        f"blocks.{number}.{layer}.{part}"
        for number in range(3)
        for layer in layers
        for part in ("weight", "bias")
    ]
    return (random.sample(names, 12),)


# Mistakes


@mistake(
    'You took every name with "bias" somewhere in it. Swin\'s relative_position_bias_table is a table of '
    "what positions mean to each other; nothing adds it to an activation."
)
def bias_anywhere(names):
    return [name for name in names if "bias" in name]


@mistake(
    'You took every name that starts or ends with "bias" as a text. What counts is the last part, after '
    "the last dot."
)
def starts_or_ends_with_bias(names):
    return [name for name in names if name.startswith("bias") or name.endswith("bias")]


@mistake("You left out the norms. A LayerNorm has a bias like any other layer, and BitFit trains it.")
def without_norms(names):
    return [name for name in names if name.split(".")[-1] == "bias" and "norm" not in name]


@mistake("You took the norms' weights too. They multiply; a bias is added.")
def weights_of_norms_too(names):
    return [name for name in names if name.split(".")[-1] == "bias" or "norm" in name]


EXERCISE = Exercise(
    reference=biases,
    challenges=(
        Challenge("some parameters of a Swin transformer", swin_transformer),
        Challenge("a layer called bias, whose weight is none", layer_called_bias),
        Challenge("twelve parameters drawn at random", names_drawn),
    ),
    mistakes=(bias_anywhere, starts_or_ends_with_bias, without_norms, weights_of_norms_too),
    hints=(
        "Look at the parts of a name between its dots. Which part says what the parameter is?",
        'A parameter is a bias if the last part of its name is "bias", and only then.',
        'name.split(".") is the list of the parts, [-1] the last of them.',
    ),
)
