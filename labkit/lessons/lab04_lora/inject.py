"""`inject`: wrappers around the linear layers of some names, anywhere in a network."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Collection

from torch import nn

from labkit.lessons.exercise import Challenge, Exercise, mistake


def inject(model: nn.Module, names: Collection[str], wrap: Callable[[nn.Linear], nn.Module]) -> int:
    """Put wrap(layer) in the place of every nn.Linear whose own name is in `names`; returns how many."""
    count = 0
    for path, layer in list(model.named_modules()):
        parent, _, name = path.rpartition(".")
        if name in names and isinstance(layer, nn.Linear):
            setattr(model.get_submodule(parent), name, wrap(layer))
            count += 1
    return count


# Challenges


def wrapped(layer: nn.Linear) -> nn.Module:
    """A wrapper that does nothing but hold the layer."""
    return nn.Sequential(layer)


def block() -> nn.Sequential:
    """The linear layers of a transformer's block, under timm's names."""
    attn = nn.Sequential(OrderedDict(qkv=nn.Linear(2, 6), proj=nn.Linear(2, 2)))
    mlp = nn.Sequential(OrderedDict(fc1=nn.Linear(2, 3), act=nn.GELU(), fc2=nn.Linear(3, 2)))
    return nn.Sequential(OrderedDict(attn=attn, mlp=mlp))


def two_layers() -> tuple:
    model = nn.Sequential(OrderedDict(fc1=nn.Linear(2, 3), act=nn.GELU(), fc2=nn.Linear(3, 2)))
    return model, ("fc1",), wrapped


def network() -> tuple:
    """Its patches are embedded by a convolution that bears the name of a linear layer, as in timm."""
    embed = nn.Sequential(OrderedDict(proj=nn.Conv2d(1, 2, 1)))
    blocks = nn.Sequential(*(block() for _ in range(random.randint(2, 5))))
    return nn.Sequential(OrderedDict(patch_embed=embed, blocks=blocks)), ("qkv", "proj"), wrapped


def names_that_end_alike() -> tuple:
    model = nn.Sequential(OrderedDict(blocks=block(), pre_fc2=nn.Linear(2, 2), fc2=nn.Linear(2, 2)))
    return model, ("fc2",), wrapped


# Mistakes


@mistake(
    "A layer whose name only ends like one of `names` was replaced too: `pre_fc2` is not `fc2`. Compare the "
    "whole last part of the path."
)
def name_ends_so(model, names, wrap):
    count = 0
    for path, layer in list(model.named_modules()):
        parent, _, name = path.rpartition(".")
        if name.endswith(tuple(names)) and isinstance(layer, nn.Linear):
            setattr(model.get_submodule(parent), name, wrap(layer))
            count += 1
    return count


@mistake(
    "You replaced a convolution: in timm the patch embedding is a Conv2d called `proj`, as is the last "
    "linear layer of attention. Ask isinstance(layer, nn.Linear) too."
)
def whatever_bears_the_name(model, names, wrap):
    count = 0
    for path, layer in list(model.named_modules()):
        parent, _, name = path.rpartition(".")
        if name in names:
            setattr(model.get_submodule(parent), name, wrap(layer))
            count += 1
    return count


@mistake("You replaced every linear layer; only those whose name is in `names` are asked for.")
def every_linear_layer(model, names, wrap):
    count = 0
    for path, layer in list(model.named_modules()):
        parent, _, name = path.rpartition(".")
        if isinstance(layer, nn.Linear):
            setattr(model.get_submodule(parent), name, wrap(layer))
            count += 1
    return count


@mistake(
    "You looked at the network's own children alone. The layers lie deeper: named_modules() walks through "
    "all levels, named_children() through one."
)
def children_alone(model, names, wrap):
    count = 0
    for name, layer in list(model.named_children()):
        if name in names and isinstance(layer, nn.Linear):
            setattr(model, name, wrap(layer))
            count += 1
    return count


@mistake(
    "You gave the network itself an attribute with dots in its name. A layer is replaced in its parent: "
    "`blocks.0.fc1` is `fc1` of model.get_submodule('blocks.0')."
)
def path_as_a_name(model, names, wrap):
    count = 0
    for path, layer in list(model.named_modules()):
        if path.rpartition(".")[2] in names and isinstance(layer, nn.Linear):
            setattr(model, path, wrap(layer))
            count += 1
    return count


@mistake(
    "You gave a variable of your loop another value. The network does not notice: set the attribute of the "
    "layer's parent, by setattr(parent, name, ...)."
)
def variable_alone(model, names, wrap):
    count = 0
    for path, layer in list(model.named_modules()):
        if path.rpartition(".")[2] in names and isinstance(layer, nn.Linear):
            layer = wrap(layer)
            count += 1
    return count


@mistake("You returned how many names were given, not how many layers were replaced.")
def names_counted(model, names, wrap):
    inject(model, names, wrap)
    return len(names)


EXERCISE = Exercise(
    reference=inject,
    challenges=(
        Challenge("two linear layers, one to be wrapped", two_layers),
        Challenge("blocks behind a patch embedding, as in timm", network),
        Challenge("layers whose names end alike", names_that_end_alike),
    ),
    changes=("model",),
    mistakes=(
        name_ends_so,
        whatever_bears_the_name,
        every_linear_layer,
        children_alone,
        path_as_a_name,
        variable_alone,
        names_counted,
    ),
    hints=(
        "named_modules() gives pairs of path and module, as ('blocks.0.attn.qkv', Linear). Which ones do you "
        "want, and whose attribute are they?",
        "path.rpartition('.') parts 'blocks.0.attn.qkv' into 'blocks.0.attn', '.' and 'qkv'. The first is "
        "the path of the parent: model.get_submodule('blocks.0.attn').",
        "setattr(model.get_submodule(parent), name, wrap(layer)), if name in names and "
        "isinstance(layer, nn.Linear); make a list of named_modules() first: you change "
        "what you walk through.",
    ),
)
