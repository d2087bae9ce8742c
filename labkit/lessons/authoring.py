"""For those who write exercises: `flaws` tests one, `filled` compares where the answer is a class, `gradient`
where its gradients count (the grader brings them out of the jail with the value)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from labkit.lessons.compare import kind
from labkit.lessons.exercise import Exercise, Unfit, check
from labkit.lessons.feedback import NOT_YET


def flaws(name: str, exercise: Exercise) -> list[str]:
    """What is wrong with an exercise itself: a reference that fails, a mistake not caught or not named."""
    found = []
    if not (feedback := check(name, exercise, exercise.reference)):
        found.append(f"{name}: the reference does not pass its own check:\n{feedback}")
    for known in exercise.mistakes:
        feedback = check(name, exercise, known.code)
        if feedback.status != NOT_YET:
            found.append(f"{name}: the check does not catch {known.says!r} ({feedback.status})")
        elif feedback.misconception != known.says:
            found.append(f"{name}: {known.says!r} is taken for {feedback.misconception or 'none'!r}")
    if len(exercise.mistakes) < 3 or len(exercise.hints) != 3:
        found.append(f"{name}: three mistakes at least, and three hints: a nudge, the formula, the line")
    return found


def filled(module: nn.Module, *inputs: torch.Tensor) -> dict[str, Any]:
    """The shapes of a module's parameters by name, and its output for `inputs` once they are filled.

    They are filled with numbers that depend on names and shapes alone, as when weights are copied from one
    network into another. An exercise that asks for `Adapter(d, m)` says

        Exercise(reference=Adapter, result=lambda adapter, d, m: filled(adapter, torch.ones(1, d)), ...)
    """
    numbers = torch.Generator().manual_seed(0)
    parameters = dict(sorted(module.named_parameters()))
    with torch.no_grad():
        for p in parameters.values():
            p.copy_(torch.randn(p.shape, generator=numbers))
    return {"parameters": {name: list(p.shape) for name, p in parameters.items()}, "output": module(*inputs)}


def tensor(output: Any, what: str) -> torch.Tensor:
    """An answer's tensor. Unfit: it is something else, and nothing could learn from it."""
    if isinstance(output, torch.Tensor):
        return output
    raise Unfit(
        f"{what} must be a tensor, not {kind(output)}: only a tensor has a gradient, and without "
        "one nothing could learn; leave out `.item()`, `.tolist()` and NumPy"
    )


def gradient(value: torch.Tensor, leaf: torch.Tensor) -> torch.Tensor:
    """The gradient of a number, or of a tensor's sum, in the shape of `leaf`; zeros where none arrives."""
    if not value.requires_grad:
        return torch.zeros_like(leaf)
    (arrived,) = torch.autograd.grad(value.sum(), leaf, retain_graph=True, allow_unused=True)
    return torch.zeros_like(leaf) if arrived is None else arrived
