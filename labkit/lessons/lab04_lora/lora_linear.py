"""`LoRALinear`: a frozen linear layer with an update beside it that learns."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from labkit.lessons.exercise import Challenge, Exercise, Unfit, mistake
from labkit.lessons.lab04_lora.inputs import matrix, small_A


class LoRALinear(nn.Module):
    """`original`, frozen, plus (alpha / r) B A that learns, A (r, k) and B (d, r): (..., k) -> (..., d)."""

    def __init__(self, original: nn.Linear, A: torch.Tensor, B: torch.Tensor, alpha: float):
        super().__init__()
        self.original = original.requires_grad_(False)
        self.A, self.B = nn.Parameter(A), nn.Parameter(B)
        self.scale = alpha / len(A)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.original(x) + self.scale * (x @ self.A.T) @ self.B.T


# What of a layer is compared


def facts(layer: nn.Module, original: nn.Linear, A: torch.Tensor, B: torch.Tensor, alpha: float) -> dict:
    """What learns and what is frozen, by name, the output for two rows, and the gradients that arrive."""
    if not isinstance(layer, nn.Module):
        raise Unfit("what came back is no nn.Module; begin with `class LoRALinear(nn.Module):`")
    parameters = dict(sorted(layer.named_parameters()))
    learns = {name: p for name, p in parameters.items() if p.requires_grad}
    x = torch.linspace(-1, 2, 2 * original.in_features).view(2, -1)
    output = layer(x)
    arrived = {}
    if learns.keys() == {"A", "B"} and output.requires_grad:
        gradients = torch.autograd.grad(output.sum(), tuple(learns.values()), allow_unused=True)
        arrived = dict(zip(learns, gradients, strict=True))
    return {
        "parameters that learn": {name: p.detach().clone() for name, p in learns.items()},
        "frozen parameters": {name: list(p.shape) for name, p in parameters.items() if name not in learns},
        "output": output.detach(),
        "gradients": arrived,
    }


# Challenges


def one_output() -> tuple:
    original = nn.Linear(3, 1)
    with torch.no_grad():
        original.weight.copy_(matrix((1, 2, 1)))
        original.bias.fill_(10)
    return original, small_A(), matrix((2, 1)), 4


def at_the_start() -> tuple:
    return nn.Linear(4, 3), torch.randn(2, 4), torch.zeros(3, 2), 2


def without_bias() -> tuple:
    return nn.Linear(5, 4, bias=False), torch.randn(3, 5), torch.randn(4, 3), 4


# Mistakes


@mistake(
    "Your A and B are plain tensors. A module finds what it owns, and an optimizer what it may change, only "
    "if it is an nn.Parameter: self.A = nn.Parameter(A)."
)
class PlainTensors(nn.Module):
    def __init__(self, original, A, B, alpha):
        super().__init__()
        self.original = original.requires_grad_(False)
        self.A, self.B, self.scale = A, B, alpha / len(A)

    def forward(self, x):
        return self.original(x) + self.scale * (x @ self.A.T) @ self.B.T


@mistake(
    "You did not freeze the original layer: original.requires_grad_(False), for its weight and its bias."
)
class OriginalLearns(LoRALinear):
    def __init__(self, original, A, B, alpha):
        super().__init__(original, A, B, alpha)
        self.original.requires_grad_(True)


@mistake("You froze the weight of the original layer and not its bias.")
class BiasLearns(LoRALinear):
    def __init__(self, original, A, B, alpha):
        super().__init__(original, A, B, alpha)
        if original.bias is not None:
            original.bias.requires_grad_(True)


@mistake("You froze A and B as well (after they were made the whole module was frozen): nothing learns.")
class AllFrozen(LoRALinear):
    def __init__(self, original, A, B, alpha):
        super().__init__(original, A, B, alpha)
        self.requires_grad_(False)


@mistake(
    "`super().__init__()` is missing, or comes too late. It makes the lists in which a module keeps its "
    "parameters and parts, so it has to be the first line."
)
class WithoutSuper(nn.Module):
    def __init__(self, original, A, B, alpha):
        self.original = original.requires_grad_(False)


@mistake("You left out the scale alpha / r.")
class WithoutScale(LoRALinear):
    def forward(self, x):
        return self.original(x) + (x @ self.A.T) @ self.B.T


@mistake("You scaled by alpha; the scale is alpha / r, and r is the number of rows of A.")
class ScaledByAlpha(LoRALinear):
    def forward(self, x):
        return self.original(x) + len(self.A) * self.scale * (x @ self.A.T) @ self.B.T


@mistake("Your forward returns the update alone. The frozen layer goes on working: LoRA adds to it.")
class UpdateAlone(LoRALinear):
    def forward(self, x):
        return self.scale * (x @ self.A.T) @ self.B.T


@mistake("You lost the bias of the original layer. Call it, self.original(x), and it adds its own.")
class BiasLost(LoRALinear):
    def forward(self, x):
        return F.linear(x, self.original.weight) + self.scale * (x @ self.A.T) @ self.B.T


@mistake("There is a ReLU between A and B. Then it is an adapter, and can no longer be merged into W0.")
class Bent(LoRALinear):
    def forward(self, x):
        return self.original(x) + self.scale * F.relu(x @ self.A.T) @ self.B.T


@mistake(
    "Your output is right, but no gradient reaches A or B: something cuts it off (`.data`, `.detach()`, "
    "`torch.no_grad()`). Freezing is done by requires_grad alone."
)
class Detached(LoRALinear):
    def forward(self, x):
        with torch.no_grad():
            return super().forward(x)


EXERCISE = Exercise(
    reference=LoRALinear,
    challenges=(
        Challenge("three inputs, one output, rank 2", one_output),
        Challenge("B at zero, as at the start", at_the_start),
        Challenge("a layer without bias, rank 3", without_bias),
    ),
    result=facts,
    changes=("original",),
    mistakes=(
        PlainTensors,
        OriginalLearns,
        BiasLearns,
        AllFrozen,
        WithoutSuper,
        WithoutScale,
        ScaledByAlpha,
        UpdateAlone,
        BiasLost,
        Bent,
        Detached,
    ),
    hints=(
        "__init__ keeps four things: the frozen layer, A, B and the scale. forward is your `lora`, with the "
        "frozen layer called instead of written out.",
        "First super().__init__(), then self.original (frozen by requires_grad_(False)), self.A and self.B "
        "as nn.Parameter, self.scale = alpha / r. forward: original(x) + scale (x A^T) B^T.",
        "return self.original(x) + self.scale * (x @ self.A.T) @ self.B.T",
    ),
)
