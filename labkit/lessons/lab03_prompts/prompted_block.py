"""`PromptedBlock`: a frozen block as a module, with prompts of its own that learn."""

from __future__ import annotations

import torch
from torch import nn

from labkit.lessons.exercise import Challenge, Exercise, Unfit, mistake
from labkit.lessons.lab03_prompts.inputs import AddMean, transformer_block
from labkit.lessons.lab03_prompts.prompted import prompted


class PromptedBlock(nn.Module):
    """`block`, frozen, that sees the prompts P (n, d), which learn: (B, N, d) -> (B, N, d)."""

    def __init__(self, block: nn.Module, P: torch.Tensor):
        super().__init__()
        self.block = block.requires_grad_(False)
        self.prompts = nn.Parameter(P)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return prompted(self.block, x, self.prompts)


# What of a module is compared


def facts(layer: nn.Module, block: nn.Module, P: torch.Tensor) -> dict:
    """What learns and what is frozen, by name, the output for two images of three tokens, and the gradients
    that arrive."""
    if not isinstance(layer, nn.Module):
        raise Unfit("what came back is no nn.Module; begin with `class PromptedBlock(nn.Module):`")
    parameters = dict(sorted(layer.named_parameters()))
    learns = {name: p for name, p in parameters.items() if p.requires_grad}
    x = torch.linspace(-1, 2, 6 * P.shape[1]).sin().view(2, 3, -1)
    output = layer(x)
    arrived = {}
    if learns.keys() == {"prompts"} and output.requires_grad:
        arrived["prompts"] = torch.autograd.grad(output.square().sum(), learns["prompts"], allow_unused=True)
    return {
        "parameters that learn": {name: p.detach().clone() for name, p in learns.items()},
        "frozen parameters": {name: list(p.shape) for name, p in parameters.items() if name not in learns},
        "output": output.detach(),
        "gradients": arrived,
    }


# Challenges


def one_prompt() -> tuple:
    return AddMean(), torch.tensor([[5.0]])


def trainable_block() -> tuple:
    return transformer_block(), torch.randn(2, 4)


def more_prompts() -> tuple:
    return transformer_block(), torch.randn(5, 4)


# Mistakes


@mistake(
    "Your prompts are a plain tensor. A module finds what it owns, and an optimizer what it may change, only "
    "if it is an nn.Parameter: self.prompts = nn.Parameter(P)."
)
class PlainTensor(nn.Module):
    def __init__(self, block, P):
        super().__init__()
        self.block, self.prompts = block.requires_grad_(False), P

    def forward(self, x):
        return prompted(self.block, x, self.prompts)


@mistake("You did not freeze the block: block.requires_grad_(False). Only the prompts are to learn.")
class BlockLearns(PromptedBlock):
    def __init__(self, block, P):
        super().__init__(block, P)
        self.block.requires_grad_(True)


@mistake("You froze the prompts as well (after they were made the whole module was frozen): nothing learns.")
class AllFrozen(PromptedBlock):
    def __init__(self, block, P):
        super().__init__(block, P)
        self.requires_grad_(False)


@mistake(
    "`super().__init__()` is missing, or comes too late. It makes the lists in which a module keeps its "
    "parameters and parts, so it has to be the first line."
)
class WithoutSuper(nn.Module):
    def __init__(self, block, P):
        self.block = block.requires_grad_(False)


@mistake("Your forward returns the prompts' rows too: the next block would take them for patches.")
class PromptsKept(PromptedBlock):
    def forward(self, x):
        return self.block(torch.cat([self.prompts.expand(len(x), -1, -1), x], 1))


@mistake("Your forward runs the block without the prompts: they are parameters that nobody reads.")
class PromptsUnread(PromptedBlock):
    def forward(self, x):
        return self.block(x)


@mistake("Your forward makes new prompts at every call. They belong into __init__, or nothing is kept.")
class NewEachTime(PromptedBlock):
    def forward(self, x):
        return prompted(self.block, x, nn.Parameter(torch.randn_like(self.prompts)))


@mistake(
    "Your output is right, but no gradient reaches the prompts: something cuts it off (`.data`, `.detach()`, "
    "`torch.no_grad()`). Freezing is done by requires_grad alone."
)
class Detached(PromptedBlock):
    def forward(self, x):
        return prompted(self.block, x, self.prompts.detach())


EXERCISE = Exercise(
    reference=PromptedBlock,
    challenges=(
        Challenge("a block without parameters, one prompt", one_prompt),
        Challenge("a transformer's block, two prompts", trainable_block),
        Challenge("a transformer's block, five prompts", more_prompts),
    ),
    result=facts,
    changes=("block",),
    mistakes=(
        PlainTensor,
        BlockLearns,
        AllFrozen,
        WithoutSuper,
        PromptsKept,
        PromptsUnread,
        NewEachTime,
        Detached,
    ),
    hints=(
        "__init__ keeps two things: the frozen block and the prompts. forward is your `prompted`.",
        "self.block = block, frozen by requires_grad_(False); self.prompts = nn.Parameter(P); forward gives "
        "the block, x and self.prompts to `prompted`.",
        "return prompted(self.block, x, self.prompts)",
    ),
)
