"""Lab 10: windows that are cut and pasted with gradients, hard choices with soft ones, and what a choice costs."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from labkit.efficient import meddanet
from labkit.lessons.authoring import attached
from labkit.lessons.exercise import Challenge, Exercise


def window_grid(a: torch.Tensor, m: int, n: int) -> torch.Tensor:
    """Where `F.affine_grid` should read: theta (B, 2, 3) of windows at a (n - m), a (B, 2) as row, column."""
    theta = torch.zeros(len(a), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = m / n
    theta[:, :, 2] = ((2 * a - 1) * (n - m) / n).flip(1)
    return theta


def paste(window: torch.Tensor, a: torch.Tensor, n: int) -> torch.Tensor:
    return meddanet.paste(window, a, n)


def hard_choice(z: torch.Tensor) -> torch.Tensor:
    return meddanet.hard_choice(z)


def mean_cost(
    choice: torch.Tensor, stages: torch.Tensor, other: torch.Tensor, bits: torch.Tensor
) -> torch.Tensor:
    """Mean MACs x bits/32 of slices: choice (B, 3), stages (3, 4), other (3,), bits (B, 4)."""
    return (choice * (bits @ stages.T / 32 + other)).sum(1).mean()


# Windows


def _theta(zoom: Callable, shift: Callable) -> Callable:
    """`window_grid` with another zoom(m, n) or another shift(a, m, n), which is (B, 2) as x, y."""

    def wrong(a, m, n):
        theta = torch.zeros(len(a), 2, 3)
        theta[:, 0, 0] = theta[:, 1, 1] = zoom(m, n)
        theta[:, :, 2] = shift(a, m, n)
        return theta

    return wrong


def _zoom(m: int, n: int) -> float:
    return m / n


def _shift(a: torch.Tensor, m: int, n: int) -> torch.Tensor:
    return ((2 * a - 1) * (n - m) / n).flip(1)


def _reading(theta: torch.Tensor, a: torch.Tensor, m: int, n: int) -> dict[str, torch.Tensor]:
    """The transform, and the window that it reads from a picture whose value at row i, column j is 100 i + j."""
    rows, columns = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    picture = (100.0 * rows + columns).expand(len(a), 1, n, n)
    grid = F.affine_grid(theta, [len(a), 1, m, m], align_corners=False)
    return {"theta": theta, "window": F.grid_sample(picture, grid, align_corners=False)}


# Pasting


def _paste(theta: Callable, corners: bool = False) -> Callable:
    """`paste` by another transform (zoom, shift as x, y) of (a, m, n)."""

    def wrong(window, a, n):
        m = window.shape[-1]
        zoom, shift = theta(a, m, n)
        transform = torch.zeros(len(a), 2, 3)
        transform[:, 0, 0] = transform[:, 1, 1] = zoom
        transform[:, :, 2] = shift
        grid = F.affine_grid(transform, [*window.shape[:2], n, n], align_corners=corners)
        return F.grid_sample(window, grid, align_corners=corners)

    return wrong


def _window(corner: tuple[int, int], m: int, n: int) -> tuple:
    a = torch.tensor([corner], dtype=torch.float32) / (n - m)
    return torch.arange(1.0, m * m + 1).view(1, 1, m, m), a, n


# Choices


def _with_gradient(output: torch.Tensor, z: torch.Tensor) -> dict[str, torch.Tensor]:
    """The choice, and the gradient that reaches z from a loss that weighs the choices 1, 2, 4."""
    loss = (attached(output, hard_choice, z) * torch.tensor([1.0, 2, 4])).sum()
    gradient = torch.zeros_like(z)
    if loss.requires_grad:
        gradient = torch.autograd.grad(loss, z)[0]
    return {"choice": output.detach(), "gradient": gradient}


def _one_hot(z: torch.Tensor) -> torch.Tensor:
    return F.one_hot(z.argmax(1), z.shape[1]).float()


def _noisy(z):
    return meddanet.hard_choice(z, torch.Generator().manual_seed(3))


# Costs


def _tables() -> tuple[torch.Tensor, torch.Tensor]:
    """Stages (3, 4) and the rest (3,) of skip, crop and whole, in round numbers."""
    stages = torch.tensor([[0.0, 0, 0, 0], [32, 64, 64, 96], [64, 96, 128, 160]])
    return stages, torch.tensor([0.0, 10, 20])


def _choices(*which: int) -> torch.Tensor:
    return F.one_hot(torch.tensor(which), 3).float()


EXERCISES = {
    "window_grid": Exercise(
        reference=window_grid,
        challenges=(
            Challenge(
                "a window of 4 in a picture of 10, at row 1, column 5",
                lambda: (torch.tensor([[1 / 6, 5 / 6]]), 4, 10),
            ),
            Challenge(
                "two windows of 8 in 32",
                lambda: (torch.tensor([[5.0, 20], [24, 0]]) / 24, 8, 32),
            ),
            Challenge("random places, a window of 6 in 20", lambda: (torch.rand(3, 2), 6, 20)),
        ),
        result=_reading,
        mistakes={
            "You exchanged rows and columns. a is (row, column), and grid_sample wants x first, which is the "
            "column.": _theta(_zoom, lambda a, m, n: _shift(a, m, n).flip(1)),
            "Your shift has the wrong sign: a = 0 is the left or upper end, which is -1 for grid_sample.": _theta(
                _zoom, lambda a, m, n: -_shift(a, m, n)
            ),
            "You zoomed by n / m. The window's own coordinates run from -1 to 1, and it covers m / n of the picture.": (
                _theta(lambda m, n: n / m, _shift)
            ),
            "You placed the window's centre at 2 a - 1, so that at a = 0 half of it lies outside. Its centre can "
            "move by (n - m) / n to either side.": _theta(_zoom, lambda a, m, n: (2 * a - 1).flip(1)),
            "Your shift is in pixels. For grid_sample the picture runs from -1 to 1.": _theta(
                _zoom, lambda a, m, n: (a * (n - m)).flip(1)
            ),
            "You left out the factor 2: the picture is 2 wide, from -1 to 1.": _theta(
                _zoom, lambda a, m, n: ((a - 0.5) * (n - m) / n).flip(1)
            ),
        },
        hints=(
            "Where is the window's centre, if the picture's is 0 and its edges are -1 and 1?",
            "theta = [[m/n, 0, t_x], [0, m/n, t_y]], t = (2 a - 1)(n - m)/n, with a's column first.",
            "theta[:, 0, 0] = theta[:, 1, 1] = m / n; theta[:, :, 2] = ((2 * a - 1) * (n - m) / n).flip(1).",
        ),
    ),
    "paste": Exercise(
        reference=paste,
        challenges=(
            Challenge(
                "a window of 4 into a canvas of 10, at row 1, column 5", lambda: _window((1, 5), 4, 10)
            ),
            Challenge("a window of 2 into a canvas of 7, at row 4, column 0", lambda: _window((4, 0), 2, 7)),
            Challenge(
                "random windows with three channels",
                lambda: (torch.randn(2, 3, 6, 6), torch.rand(2, 2), 20),
            ),
        ),
        mistakes={
            "You pasted with x and y exchanged, as the released code of Med-DANet V2 does: the window comes back at its "
            "mirrored place, unless row and column are equal.": _paste(
                lambda a, m, n: (n / m, (1 - 2 * a) * (n - m) / m)
            ),
            "Your shift has the sign of the cut. Now the window is the picture that is read: to move it to the right, "
            "read further left.": _paste(lambda a, m, n: (n / m, ((2 * a - 1) * (n - m) / m).flip(1))),
            "You zoomed by m / n. Seen from the window, the canvas reaches from -n/m to n/m.": _paste(
                lambda a, m, n: (m / n, ((1 - 2 * a) * (n - m) / m).flip(1))
            ),
            "You divided the shift by n. It is in units of what is read, the window: divide by m.": _paste(
                lambda a, m, n: (n / m, ((1 - 2 * a) * (n - m) / n).flip(1))
            ),
            "You set align_corners=True, and the window is stretched by a pixel. Use False, as for the cut.": _paste(
                lambda a, m, n: (n / m, ((1 - 2 * a) * (n - m) / m).flip(1)), corners=True
            ),
        },
        hints=(
            "It is the cut once more, but what is read is the window, and what is written the canvas.",
            "Zoom n / m. Invert u_picture = (m/n) u_window + t: u_window = (n/m) u_picture - (n/m) t.",
            "The shift is ((1 - 2 * a) * (n - m) / m).flip(1); affine_grid gets the size of the canvas.",
        ),
    ),
    "hard_choice": Exercise(
        reference=hard_choice,
        challenges=(
            Challenge(
                "two slices",
                lambda: (torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.5, 1.0]], requires_grad=True),),
            ),
            Challenge("random: five slices", lambda: (torch.randn(5, 3, requires_grad=True),)),
        ),
        result=_with_gradient,
        mistakes={
            "No gradient reaches the logits: argmax has none, and a softmax that is added and taken away as it is has none either. What is taken away must be detached.": _one_hot,
            "You return the softmax. Then all three branches must be computed and mixed, and nothing is saved.": (
                lambda z: z.softmax(1)
            ),
            "Your result is one-hot minus softmax plus itself without a gradient: the detach is on the wrong one.": (
                lambda z: _one_hot(z) + (z.softmax(1).detach() - z.softmax(1))
            ),
            "You added the softmax and did not take it away again: the choices no longer sum to 1.": (
                lambda z: _one_hot(z) + z.softmax(1)
            ),
            "Your gradient is that of the logits themselves. With the softmax, choices compete: one can only gain what "
            "others lose.": lambda z: _one_hot(z) + (z - z.detach()),
            "You added noise. It helps to explore in training; in use the same slice must get the same choice.": _noisy,
        },
        hints=(
            "The value of one thing, the gradient of another. You did that with rounding in Lab 01.",
            "one_hot(argmax z) + (softmax z - its own value, detached).",
            "soft = z.softmax(1); return F.one_hot(z.argmax(1), z.shape[1]) + (soft - soft.detach()).",
        ),
    ),
    "mean_cost": Exercise(
        reference=mean_cost,
        challenges=(
            Challenge(
                "one slice, cropped, in 8 and 16 bits",
                lambda: (_choices(1), *_tables(), torch.tensor([[8.0, 16, 16, 8]])),
            ),
            Challenge(
                "three slices, one of each choice",
                lambda: (
                    _choices(2, 0, 1),
                    *_tables(),
                    torch.tensor([[16.0, 8, 8, 32], [8, 8, 16, 16], [16, 16, 8, 8]]),
                ),
            ),
            Challenge(
                "random choices and tables",
                lambda: (_choices(0, 2, 1, 1), torch.rand(3, 4), torch.rand(3), 8 * torch.ones(4, 4)),
            ),
        ),
        mistakes={
            "You scaled the rest too. Only the encoder's stages are in few bits; stem, decoder and head stay at 32.": (
                lambda c, s, o, b: (c * (b @ s.T + b.mean(1, keepdim=True) * o) / 32).sum(1).mean()
            ),
            "You summed over the batch. Then the price means something else for every batch size: take the mean.": (
                lambda c, s, o, b: len(c) * mean_cost(c, s, o, b)
            ),
            "You forgot to divide by 32: full precision must cost its MACs, no more.": (
                lambda c, s, o, b: (c * (b @ s.T + o)).sum(1).mean()
            ),
            "You left out the rest of the network: stem, decoder and head.": (
                lambda c, s, o, b: mean_cost(c, s, 0 * o, b)
            ),
            "You charged every slice for all three choices. Only the chosen one is computed: multiply by the choice.": (
                lambda c, s, o, b: (b @ s.T / 32 + o).sum(1).mean()
            ),
            "You used one mean number of bits for all stages. Each stage has its own, and stages cost differently.": (
                lambda c, s, o, b: mean_cost(c, s, o, b.mean(1, keepdim=True).expand(-1, 4))
            ),
            "You took the mean over the choices, too. Sum over the three, of which one is chosen; then the mean over "
            "slices.": lambda c, s, o, b: mean_cost(c, s, o, b) / 3,
        },
        hints=(
            "First the cost of each of the three choices for each slice, (B, 3); then the choice picks one of them.",
            "cost[b, k] = sum over stages of stages[k, i] bits[b, i] / 32, plus other[k].",
            "each = bits @ stages.T / 32 + other; return (choice * each).sum(1).mean().",
        ),
    ),
}
