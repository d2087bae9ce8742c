"""`insert`: a frozen backbone, and a new layer in the place of each block's attention and MLP."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from labkit.lessons.compare import kind
from labkit.lessons.exercise import Challenge, Exercise, Unfit, mistake


def insert(backbone: nn.Module, make: Callable[[nn.Module], nn.Module], first: int = 0) -> int:
    """Freeze the backbone, put make(layer) in the place of `attn` and `mlp` of its blocks from number `first`
    on; returns how many numbers learn."""
    backbone.requires_grad_(False)
    for block in backbone.blocks[first:]:
        block.attn = make(block.attn)
        block.mlp = make(block.mlp)
    return learn(backbone)


def learn(module: nn.Module) -> int:
    """How many numbers of a module learn."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def a_count(output: Any, *inputs: Any) -> Any:
    """What is compared. Unfit: the backbone was returned, not a number."""
    if isinstance(output, nn.Module):
        raise Unfit(
            f"return how many numbers learn, not {kind(output)}: the backbone is changed in place, and "
            "whoever called you has it already"
        )
    return output


# Challenges


class Block(nn.Module):
    """The parts of a transformer's block under timm's names, of width 2."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(2), nn.LayerNorm(2)
        self.attn = nn.Sequential(OrderedDict(qkv=nn.Linear(2, 6), proj=nn.Linear(2, 2)))
        self.mlp = nn.Sequential(OrderedDict(fc1=nn.Linear(2, 3), act=nn.GELU(), fc2=nn.Linear(3, 2)))


class Backbone(nn.Module):
    """Blocks between a patch embedding and a norm, as in timm's vision transformer."""

    def __init__(self, depth: int):
        super().__init__()
        self.patch_embed = nn.Conv2d(1, 2, 1)
        self.blocks = nn.Sequential(*(Block() for _ in range(depth)))
        self.norm = nn.LayerNorm(2)


def make(layer: nn.Module) -> nn.Module:
    """The layer with three numbers that learn, in two parameters beside it; no class of ours, for only
    functions can be carried into the grader's jail."""
    made = nn.Sequential(layer)
    made.weight, made.bias = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    return made


def some_of_many() -> tuple:
    depth = torch.randint(5, 25, ()).item()
    return Backbone(depth), make, torch.randint(depth - 1, ()).item()


def frozen_before() -> tuple:
    return Backbone(2).requires_grad_(False), make, 1


# Mistakes


@mistake(
    "You froze after you had inserted: the new layers belong to the backbone by then, and were frozen with "
    "it. No error would say so; the training would run and change nothing. First freeze, then insert."
)
def frozen_last(backbone, make, first=0):
    insert(backbone, make, first)
    backbone.requires_grad_(False)
    return learn(backbone)


@mistake("You did not freeze the backbone. Then all of it learns, and the adapters are a small part of that.")
def not_frozen(backbone, make, first=0):
    for block in backbone.blocks[first:]:
        block.attn, block.mlp = make(block.attn), make(block.mlp)
    return learn(backbone)


@mistake(
    "You froze the blocks and left the rest learning: the patch embedding and the last norm belong to the "
    "backbone too."
)
def blocks_frozen_alone(backbone, make, first=0):
    backbone.blocks.requires_grad_(False)
    for block in backbone.blocks[first:]:
        block.attn, block.mlp = make(block.attn), make(block.mlp)
    return learn(backbone)


@mistake("You counted all numbers. Only those whose `requires_grad` is on learn.")
def all_counted(backbone, make, first=0):
    insert(backbone, make, first)
    return sum(p.numel() for p in backbone.parameters())


@mistake("You counted parameters, not numbers: a parameter is a whole matrix; `p.numel()` says how many.")
def parameters_counted(backbone, make, first=0):
    insert(backbone, make, first)
    return len([p for p in backbone.parameters() if p.requires_grad])


@mistake("You returned how many layers were wrapped. How many *numbers* learn in them?")
def layers_counted(backbone, make, first=0):
    insert(backbone, make, first)
    return 2 * len(backbone.blocks[first:])


@mistake("You took no notice of `first`: the blocks below it stay as they are.")
def in_every_block(backbone, make, first=0):
    return insert(backbone, make)


@mistake("You took the blocks *below* `first`. It is those from number `first` on: `blocks[first:]`.")
def in_the_lower_blocks(backbone, make, first=0):
    backbone.requires_grad_(False)
    for block in backbone.blocks[:first]:
        block.attn, block.mlp = make(block.attn), make(block.mlp)
    return learn(backbone)


@mistake("You began one block too late. Blocks are counted from 0, and block `first` has adapters.")
def one_block_late(backbone, make, first=0):
    return insert(backbone, make, first + 1)


@mistake("You put one behind the attention and none behind the MLP. Houlsby et al. have two a block.")
def attention_alone(backbone, make, first=0):
    backbone.requires_grad_(False)
    for block in backbone.blocks[first:]:
        block.attn = make(block.attn)
    return learn(backbone)


@mistake("You put one behind the MLP and none behind the attention. Houlsby et al. have two a block.")
def mlp_alone(backbone, make, first=0):
    backbone.requires_grad_(False)
    for block in backbone.blocks[first:]:
        block.mlp = make(block.mlp)
    return learn(backbone)


@mistake(
    "You wrapped the whole block. That is an adapter *after the block*, of which section 4 speaks; here each "
    "block's `attn` and `mlp` get one each."
)
def whole_blocks(backbone, make, first=0):
    backbone.requires_grad_(False)
    for i in range(first, len(backbone.blocks)):
        backbone.blocks[i] = make(backbone.blocks[i])
    return learn(backbone)


@mistake(
    "You gave a variable of your loop another value. The block does not notice: set its attribute, "
    "`block.attn = ...`."
)
def variables_alone(backbone, make, first=0):
    backbone.requires_grad_(False)
    for block in backbone.blocks[first:]:
        for layer in (block.attn, block.mlp):
            layer = make(layer)
    return learn(backbone)


@mistake("You wrapped each layer twice. Your loop goes through its places more than once.")
def twice(backbone, make, first=0):
    insert(backbone, make, first)
    for block in backbone.blocks[first:]:
        block.attn, block.mlp = make(block.attn), make(block.mlp)
    return learn(backbone)


EXERCISE = Exercise(
    reference=insert,
    challenges=(
        Challenge("one block; `make` adds three numbers to a layer", lambda: (Backbone(1), make, 0)),
        Challenge("three blocks, adapters in the last of them alone", lambda: (Backbone(3), make, 2)),
        Challenge("four blocks, adapters in all of them", lambda: (Backbone(4), make, 0)),
        Challenge("two blocks, frozen before; adapters in the upper one", frozen_before),
        Challenge("two blocks, and adapters in none", lambda: (Backbone(2), make, 2)),
        Challenge("some of many blocks", some_of_many),
    ),
    result=a_count,
    changes=("backbone",),
    mistakes=(
        frozen_last,
        not_frozen,
        blocks_frozen_alone,
        all_counted,
        parameters_counted,
        layers_counted,
        in_every_block,
        in_the_lower_blocks,
        one_block_late,
        attention_alone,
        mlp_alone,
        whole_blocks,
        variables_alone,
        twice,
    ),
    hints=(
        "Three steps, and their order matters: freeze what is there, put in what is new, count what learns.",
        "A block is an object with the attributes `attn` and `mlp`. Give each of the two the value "
        "make(its old value), for all blocks of backbone.blocks[first:].",
        "backbone.requires_grad_(False); in the loop block.attn = make(block.attn), and the same for mlp; "
        "last sum(p.numel() for p in backbone.parameters() if p.requires_grad).",
    ),
)
