"""Small tensors, written out; and whether what an answer computed can be learned from."""

from __future__ import annotations

import torch

from labkit.lessons.authoring import gradient, tensor

CUT = (
    "Your numbers are right, but no gradient comes back through them, so nothing could learn: `.detach()`, "
    "`.data`, torch.no_grad() and a new tensor made of its numbers all cut the record of what was computed."
)


def row(*values: float) -> torch.Tensor:
    """n numbers as a tensor: (n)."""
    return torch.tensor(values, dtype=torch.float32)


def rows(*values: tuple[float, ...]) -> torch.Tensor:
    """n rows of k numbers as a matrix: (n, k)."""
    return torch.tensor(values, dtype=torch.float32)


def learning(*shape: int) -> torch.Tensor:
    """Random numbers that ask for a gradient."""
    return torch.randn(*shape).requires_grad_()


def with_gradients(output: torch.Tensor, **leaves: torch.Tensor) -> dict[str, torch.Tensor]:
    """What is compared: the numbers of an answer, and the gradient of each leaf that asks for one.

    Unfit: the output is no tensor.
    """
    output = tensor(output, "the result")
    weights = torch.linspace(-1, 1, output.numel()).view(output.shape)  # that no sum cancels
    asking = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    arrived = {f"gradient of {name}": gradient(output * weights, leaf) for name, leaf in asking.items()}
    return {"result": output.detach(), **arrived}
