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


def _shift(a: torch.Tensor, m: int, n: int) -> torch.Tensor:
    """Of the cut, as row, column; with m and n exchanged that of pasting."""
    return (2 * a - 1) * (n - m) / n


def _theta(shift: Callable = _shift, zoom: Callable = lambda m, n: m / n) -> Callable:
    """`window_grid` with another shift(a, m, n), as row, column, or another zoom(m, n)."""

    def wrong(a, m, n):
        theta = torch.zeros(len(a), 2, 3)
        theta[:, 0, 0] = theta[:, 1, 1] = zoom(m, n)
        theta[:, :, 2] = shift(a, m, n).flip(1)
        return theta

    return wrong


def _reading(theta: torch.Tensor, a: torch.Tensor, m: int, n: int) -> dict[str, torch.Tensor]:
    """The transform, and the window that it reads from a picture whose value at row i, column j is 100 i + j."""
    rows, columns = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    picture = (100.0 * rows + columns).expand(len(a), 1, n, n)
    grid = F.affine_grid(theta, [len(a), 1, m, m], align_corners=False)
    return {"theta": theta, "window": F.grid_sample(picture, grid, align_corners=False)}


# Pasting


def _paste(theta: Callable, corners: bool = False, small: bool = False) -> Callable:
    """`paste` by another transform (zoom, shift as row, column) of (a, m, n), or `small`, onto m x m pixels."""

    def wrong(window, a, n):
        m = window.shape[-1]
        zoom, shift = theta(a, m, n)
        transform = torch.zeros(len(a), 2, 3)
        transform[:, 0, 0] = transform[:, 1, 1] = zoom
        transform[:, :, 2] = shift.flip(1)
        size = window.shape if small else [*window.shape[:2], n, n]
        grid = F.affine_grid(transform, size, align_corners=corners)
        return F.grid_sample(window, grid, align_corners=corners)

    return wrong


def _sliced(window, a, n):
    m, canvas = window.shape[-1], torch.zeros(*window.shape[:2], n, n)
    for i, (row, column) in enumerate((a * (n - m)).round().int().tolist()):
        canvas[i, :, row : row + m, column : column + m] = window[i]
    return canvas


def _window(corner: tuple[int, int], m: int, n: int) -> tuple:
    a = torch.tensor([corner], dtype=torch.float32) / (n - m)
    return torch.arange(1.0, m * m + 1).view(1, 1, m, m), a, n


# Choices


def _with_gradient(output: torch.Tensor, z: torch.Tensor) -> dict[str, torch.Tensor]:
    """The choice, and the gradient that reaches z from a loss that weighs each choice of each slice otherwise."""
    weights = torch.tensor([1.0, 2, 4]) * torch.arange(1.0, len(z) + 1)[:, None]
    loss = (attached(output, hard_choice, z) * weights).sum()
    gradient = torch.autograd.grad(loss, z)[0] if loss.requires_grad else torch.zeros_like(z)
    return {"choice": output.detach(), "gradient": gradient}


def _one_hot(z: torch.Tensor) -> torch.Tensor:
    return F.one_hot(z.argmax(1), z.shape[1]).float()


def _through(choice: Callable = _one_hot, soft: Callable = lambda z: z.softmax(1)) -> Callable:
    """`hard_choice` by another choice(z), or with the gradient of another soft(z)."""
    return lambda z: choice(z) + (soft(z) - soft(z).detach())


# Costs


def _tables() -> tuple[torch.Tensor, torch.Tensor]:
    """Stages (3, 4) and the rest (3,) of skip, crop and whole, in round numbers."""
    stages = torch.tensor([[0.0, 0, 0, 0], [32, 64, 64, 96], [64, 96, 128, 160]])
    return stages, torch.tensor([0.0, 10, 30])


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
            "column.": _theta(lambda a, m, n: _shift(a, m, n).flip(1)),
            "Your shift has the wrong sign: a = 0 is the left or upper end, which is -1 for "
            "grid_sample.": _theta(lambda a, m, n: -_shift(a, m, n)),
            "You zoomed by n / m. The window's own coordinates run from -1 to 1, and it covers m / n of the "
            "picture.": _theta(zoom=lambda m, n: n / m),
            "Your zoom is 0: all pixels of the window read the same place.": _theta(zoom=lambda m, n: 0),
            "You placed the window's centre at 2 a - 1, so that at a = 0 half of it lies outside. Its centre can "
            "move by (n - m) / n to either side.": _theta(lambda a, m, n: 2 * a - 1),
            "Your shift is in pixels. For grid_sample the picture runs from -1 to 1.": _theta(
                lambda a, m, n: a * (n - m)
            ),
            "You left out the factor 2: the picture is 2 wide, from -1 to 1.": _theta(
                lambda a, m, n: (a - 0.5) * (n - m) / n
            ),
            "You shifted by the window's upper left corner. t is its centre, half a window further.": _theta(
                lambda a, m, n: 2 * a * (n - m) / n - 1
            ),
            "You counted from 0. For grid_sample the picture's middle is 0, so that a = 0 and a = 1 have opposite "
            "shifts.": _theta(lambda a, m, n: a * (n - m) / n),
            "Your centre runs from 0 to 1 over the picture. For grid_sample it runs from -1 to 1: double it, take 1 "
            "away.": _theta(lambda a, m, n: (a * (n - m) + m / 2) / n),
            "You divided the shift by m. It is in units of what is read, the picture: divide by n.": _theta(
                lambda a, m, n: (2 * a - 1) * (n - m) / m
            ),
            "Brackets are missing around 2 a - 1: without them the factor (n - m) / n meets the 1 "
            "alone.": _theta(lambda a, m, n: 2 * a - (n - m) / n),
            "You exchanged the windows of the batch, flip(0). Row and column are a's dimension 1: "
            "flip(1).": _theta(lambda a, m, n: _shift(a, m, n).flip(0, 1)),
            "You return one matrix, (2, 3). Each window of the batch has its own.": lambda *x: window_grid(
                *x
            )[0],
            "You return the grid itself. Asked for is theta, of which the next cells make the grid.": (
                lambda a, m, n: F.affine_grid(window_grid(a, m, n), [len(a), 1, m, m], align_corners=False)
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
            Challenge("a window of 2 on a canvas of 3, at row 0, column 1", lambda: _window((0, 1), 2, 3)),
            Challenge("a window of 4 on a canvas of 10, at row 1, column 5", lambda: _window((1, 5), 4, 10)),
            Challenge(  # a tenth to four tenths of a pixel beyond a whole one: rounded either way, the same
                "random windows with three channels, at places between pixels",
                lambda: (
                    torch.randn(2, 3, 6, 6),
                    (torch.randint(0, 14, (2, 2)) + 0.1 + 0.3 * torch.rand(2, 2)) / 14,
                    20,
                ),
            ),
        ),
        mistakes={
            "You pasted with x and y exchanged, as the released code of Med-DANet V2 does: the window comes back at its "
            "mirrored place, unless row and column are "
            "equal.": _paste(lambda a, m, n: (n / m, _shift(a, n, m).flip(1))),
            "Your shift has the sign of the cut. Now the window is the picture that is read: to move it to the right, "
            "read further left.": _paste(lambda a, m, n: (n / m, -_shift(a, n, m))),
            "You read with the cut's own transform. Now the window is read: solve the equation for "
            "u.": _paste(lambda a, m, n: (m / n, _shift(a, m, n))),
            "You turned the shift's sign alone. Solving for u divides by the zoom, too: n / m, and the shift times "
            "n / m.": _paste(lambda a, m, n: (m / n, -_shift(a, m, n))),
            "You zoomed by m / n. Seen from the window, the canvas reaches from -n/m to n/m.": _paste(
                lambda a, m, n: (m / n, _shift(a, n, m))
            ),
            "You divided the shift by n. It is in units of what is read, the window: divide by m.": _paste(
                lambda a, m, n: (n / m, -_shift(a, m, n))
            ),
            "You set align_corners=True, and the window is stretched by a pixel. Use False, as for the "
            "cut.": _paste(lambda a, m, n: (n / m, _shift(a, n, m)), corners=True),
            "You gave affine_grid the window's size. It wants the size of what is written: the canvas, n x "
            "n.": _paste(lambda a, m, n: (n / m, _shift(a, n, m)), small=True),
            "You pasted by slicing, at whole pixels: that is no smooth function of the place, which gets no gradient. "
            "Use grid_sample.": _sliced,
        },
        hints=(
            "The window at a = 0 touches the canvas's left edge, x = -1: there u is -1. And at a = 1 which u is 1?",
            "Zoom n / m. Invert u_picture = (m/n) u_window + t: u_window = (n/m) u_picture - (n/m) t.",
            "The shift is ((1 - 2 * a) * (n - m) / m).flip(1); affine_grid gets the size of the canvas.",
        ),
    ),
    "hard_choice": Exercise(
        reference=hard_choice,
        challenges=(
            Challenge("one slice, skipped", lambda: (torch.tensor([[0.4, 0.2, 0.0]], requires_grad=True),)),
            Challenge(
                "two slices",
                lambda: (torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.5, 1.0]], requires_grad=True),),
            ),
            Challenge("random: five slices", lambda: (torch.randn(5, 3, requires_grad=True),)),
        ),
        result=_with_gradient,
        mistakes={
            "No gradient reaches the logits: argmax has none, and a softmax that is added and taken away as it is has none either. What is taken away must be detached.": _one_hot,
            "You return the one-hot rows alone, in whole numbers. No gradient passes them: add the softmax, and take its "
            "own value, detached, away again.": lambda z: F.one_hot(z.argmax(1), z.shape[1]),
            "You return the number of the choice. Asked for is its one-hot row.": lambda z: z.argmax(1),
            "You did not tell one_hot how many choices there are: it counts up to the largest one that is taken. Where "
            "no slice is looked at whole, the rows are too "
            "short.": _through(lambda z: F.one_hot(z.argmax(1))),
            "You rounded the softmax. Where no choice has more than a half, none is taken.": _through(
                lambda z: z.softmax(1).round()
            ),
            "You took one argmax for all slices together. Each row has its own: argmax(1).": _through(
                lambda z: F.one_hot(z.argmax(), z.shape[1])
            ),
            "Your argmax compares the slices with each other. Compare the choices of a slice: "
            "argmax(1).": _through(lambda z: F.one_hot(z.argmax(0), z.shape[1])),
            "Your softmax runs over the slices. The choices of one slice compete: softmax(1).": _through(
                soft=lambda z: z.softmax(0)
            ),
            "You multiplied by the softmax: the chosen one gets its probability, not 1.": lambda z: (
                _one_hot(z) * z.softmax(1)
            ),
            "You return the softmax. Then all three branches must be computed and mixed, and nothing is "
            "saved.": lambda z: z.softmax(1),
            "Your result is one-hot minus softmax plus itself without a gradient: the detach is on the wrong "
            "one.": lambda z: _one_hot(z) + (z.softmax(1).detach() - z.softmax(1)),
            "You added the softmax and did not take it away again: the choices no longer sum to "
            "1.": lambda z: _one_hot(z) + z.softmax(1),
            "Your gradient is that of the logits themselves. With the softmax, choices compete: one can only gain what "
            "others lose.": _through(soft=lambda z: z),
            "You added noise. It helps to explore in training; in use the same slice must get the same "
            "choice.": lambda z: F.gumbel_softmax(z, hard=True),
        },
        hints=(
            "s - s.detach() is 0, and has the gradient of s. What is s here, and what is it added to?",
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
            "You scaled the rest too. Only the encoder's stages are in few bits; stem, decoder and head stay at "
            "32.": lambda c, s, o, b: (c * (b @ s.T + b.mean(1, keepdim=True) * o) / 32).sum(1).mean(),
            "You divided the rest by 32, too. Stem, decoder and head are in full precision: they cost their "
            "MACs.": lambda c, s, o, b: (c * (b @ s.T + o) / 32).sum(1).mean(),
            "You added the rest once for each stage. Sum over the stages first.": lambda c, s, o, b: (
                (c @ s * b / 32 + (c @ o)[:, None]).sum(1).mean()
            ),
            "You added the rest of all three ways. The choice picks the rest, too.": lambda c, s, o, b: (
                (c @ s * b / 32).sum(1) + o
            ).mean(),
            "You divided by the bits, so that few of them cost much. Few must cost little: multiply by bits / "
            "32.": lambda c, s, o, b: (c * (32 / b @ s.T + o)).sum(1).mean(),
            "bits is (B, 4) and stages (3, 4): to sum over the stages, turn the second, bits @ "
            "stages.T.": lambda c, s, o, b: (c * (b @ s / 32 + o)).sum(1).mean(),
            "stages @ bits.T has a row for each way and a column for each slice. choice is the other way round: use "
            "bits @ stages.T.": lambda c, s, o, b: (c * (s @ b.T / 32 + o)).sum(1).mean(),
            "You multiplied stages and bits row by row. A row of stages is a way, a row of bits a slice: every slice "
            "meets every way.": lambda c, s, o, b: (c * ((s * b / 32).sum(1) + o)).sum(1).mean(),
            "You return a number for each slice. Asked for is their mean.": lambda c, s, o, b: (
                c * (b @ s.T / 32 + o)
            ).sum(1),
            "You return a plain number, which has no gradient. Leave the tensor as it is, without "
            ".item().": lambda c, s, o, b: mean_cost(c, s, o, b).item(),
            "You took the mean over the slices that are looked at. A skipped slice costs nothing, but it "
            "counts.": lambda c, s, o, b: (each := (c * (b @ s.T / 32 + o)).sum(1))[each > 0].mean(),
            "You took the mean of all three ways, whatever is chosen. Multiply by the choice and sum over "
            "them.": lambda c, s, o, b: (b @ s.T / 32 + o).mean(),
            "You summed over the batch. Then the price means something else for every batch size: take the "
            "mean.": lambda c, s, o, b: len(c) * mean_cost(c, s, o, b),
            "You forgot to divide by 32: full precision must cost its MACs, no more.": lambda c, s, o, b: (
                (c * (b @ s.T + o)).sum(1).mean()
            ),
            "You left out the rest of the network: stem, decoder and head.": lambda c, s, o, b: mean_cost(
                c, s, 0 * o, b
            ),
            "You charged every slice for all three choices. Only the chosen one is computed: multiply by the "
            "choice.": lambda c, s, o, b: (b @ s.T / 32 + o).sum(1).mean(),
            "You used one mean number of bits for all stages. Each stage has its own, and stages cost "
            "differently.": lambda c, s, o, b: mean_cost(c, s, o, b.mean(1, keepdim=True).expand(-1, 4)),
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
