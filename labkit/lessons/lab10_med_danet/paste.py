"""`paste`: windows back on a canvas of zeros, with gradients for their places."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from labkit.efficient import meddanet
from labkit.lessons.authoring import gradient
from labkit.lessons.exercise import Challenge, Exercise, mistake


def paste(window: torch.Tensor, a: torch.Tensor, n: int) -> torch.Tensor:
    """Windows (B, C, m, m), at a (B, 2) as row, column, on zeros (B, C, n, n)."""
    return meddanet.paste(window, a, n)


def with_gradient(output: torch.Tensor, window: torch.Tensor, a: torch.Tensor, n: int) -> dict:
    """What is compared: the canvas, and whether a place can be learned through it.

    Whether, not by how much: at whole pixels the gradient jumps, and rounding decides which of two it is.
    """
    weights = torch.linspace(-1, 2, output.numel()).view(output.shape) ** 2
    return {
        "canvas": output.detach(),
        "a gets a gradient": bool(gradient(output * weights, a).any()),
    }


# Challenges: small numbers. In float32 a place is known to some 1e-7 of the canvas, and what is sampled there
# to as much of the window's numbers, so that with large ones right answers differed by more than is allowed.


def window_of_2() -> tuple:
    window = torch.tensor([[0.1, 0.2], [0.3, 0.4]]).view(1, 1, 2, 2)
    return window, (torch.tensor([[0.0, 1]]) / (3 - 2)).requires_grad_(), 3


def window_of_4() -> tuple:
    window = torch.arange(1.0, 17).view(1, 1, 4, 4) / 100
    return window, (torch.tensor([[1.0, 5]]) / (10 - 4)).requires_grad_(), 10


def between_pixels() -> tuple:
    """A tenth to four tenths of a pixel beyond a whole one: rounded either way, the same."""
    windows = torch.randn(2, 2, 4, 4) / 20
    places = torch.randint(0, 4, (2, 2)) + 0.1 + 0.3 * torch.rand(2, 2)
    return windows, (places / 4).requires_grad_(), 8  # small: the grader takes a gradient of each pixel


# Mistakes


@mistake(
    "You pasted with x and y exchanged, as the released code of Med-DANet V2 does: the window comes back at "
    "its mirrored place, unless row and column are equal."
)
def x_and_y_exchanged(window, a, n):
    m = window.shape[-1]
    theta = torch.zeros(len(a), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = n / m
    theta[:, :, 2] = (1 - 2 * a) * (n - m) / m
    grid = F.affine_grid(theta, [*window.shape[:2], n, n], align_corners=False)
    return F.grid_sample(window, grid, align_corners=False)


@mistake(
    "Your shift has the sign of the cut. Now the window is the picture that is read: to move it to the "
    "right, read further left."
)
def shift_with_the_sign_of_the_cut(window, a, n):
    m = window.shape[-1]
    theta = torch.zeros(len(a), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = n / m
    theta[:, :, 2] = ((2 * a - 1) * (n - m) / m).flip(1)
    grid = F.affine_grid(theta, [*window.shape[:2], n, n], align_corners=False)
    return F.grid_sample(window, grid, align_corners=False)


@mistake("You read with the cut's own transform. Now the window is read: solve the equation for u.")
def transform_of_the_cut(window, a, n):
    m = window.shape[-1]
    theta = torch.zeros(len(a), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = m / n
    theta[:, :, 2] = ((2 * a - 1) * (n - m) / n).flip(1)
    grid = F.affine_grid(theta, [*window.shape[:2], n, n], align_corners=False)
    return F.grid_sample(window, grid, align_corners=False)


@mistake(
    "You turned the shift's sign alone. Solving for u divides by the zoom, too: n / m, and the shift times "
    "n / m."
)
def only_the_sign_turned(window, a, n):
    m = window.shape[-1]
    theta = torch.zeros(len(a), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = m / n
    theta[:, :, 2] = ((1 - 2 * a) * (n - m) / n).flip(1)
    grid = F.affine_grid(theta, [*window.shape[:2], n, n], align_corners=False)
    return F.grid_sample(window, grid, align_corners=False)


@mistake("You zoomed by m / n. Seen from the window, the canvas reaches from -n/m to n/m.")
def zoomed_by_m_over_n(window, a, n):
    m = window.shape[-1]
    theta = torch.zeros(len(a), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = m / n
    theta[:, :, 2] = ((1 - 2 * a) * (n - m) / m).flip(1)
    grid = F.affine_grid(theta, [*window.shape[:2], n, n], align_corners=False)
    return F.grid_sample(window, grid, align_corners=False)


@mistake("You divided the shift by n. It is in units of what is read, the window: divide by m.")
def shift_divided_by_n(window, a, n):
    m = window.shape[-1]
    theta = torch.zeros(len(a), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = n / m
    theta[:, :, 2] = ((1 - 2 * a) * (n - m) / n).flip(1)
    grid = F.affine_grid(theta, [*window.shape[:2], n, n], align_corners=False)
    return F.grid_sample(window, grid, align_corners=False)


@mistake("You set align_corners=True, and the window is stretched by a pixel. Use False, as for the cut.")
def corners_aligned(window, a, n):
    m = window.shape[-1]
    theta = torch.zeros(len(a), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = n / m
    theta[:, :, 2] = ((1 - 2 * a) * (n - m) / m).flip(1)
    grid = F.affine_grid(theta, [*window.shape[:2], n, n], align_corners=True)
    return F.grid_sample(window, grid, align_corners=True)


@mistake("You gave affine_grid the window's size. It wants the size of what is written: the canvas, n x n.")
def size_of_the_window(window, a, n):
    m = window.shape[-1]
    theta = torch.zeros(len(a), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = n / m
    theta[:, :, 2] = ((1 - 2 * a) * (n - m) / m).flip(1)
    grid = F.affine_grid(theta, window.shape, align_corners=False)
    return F.grid_sample(window, grid, align_corners=False)


@mistake(
    'Your window comes back at whole pixels, by slicing, rounding, or mode="nearest". That is no smooth '
    "function of the place, so the place gets no gradient: let grid_sample interpolate, as it does by itself."
)
def pasted_by_slicing(window, a, n):
    m = window.shape[-1]
    canvas = torch.zeros(*window.shape[:2], n, n)
    corners = (a * (n - m)).round().int()
    for i, (row, column) in enumerate(corners.tolist()):
        canvas[i, :, row : row + m, column : column + m] = window[i]
    return canvas


@mistake(
    "Your canvas is right, but no gradient leads from it to a, so that a place could never be learned: "
    "`.item()`, `.tolist()`, `.detach()` and torch.tensor(...) of numbers cut the record of what was done."
)
def without_a_gradient(window, a, n):
    return paste(window, a, n).detach()


EXERCISE = Exercise(
    reference=paste,
    result=with_gradient,
    challenges=(
        Challenge("a window of 2 on a canvas of 3, at row 0, column 1", window_of_2),
        Challenge("a window of 4 on a canvas of 10, at row 1, column 5", window_of_4),
        Challenge("random windows with three channels, at places between pixels", between_pixels),
    ),
    mistakes=(
        x_and_y_exchanged,
        shift_with_the_sign_of_the_cut,
        transform_of_the_cut,
        only_the_sign_turned,
        zoomed_by_m_over_n,
        shift_divided_by_n,
        corners_aligned,
        size_of_the_window,
        pasted_by_slicing,
        without_a_gradient,
    ),
    hints=(
        "The window at a = 0 touches the canvas's left edge, x = -1: there u is -1. And at a = 1 which u is "
        "1?",
        "Zoom n / m. Invert u_picture = (m/n) u_window + t: u_window = (n/m) u_picture - (n/m) t.",
        "The shift is ((1 - 2 * a) * (n - m) / m).flip(1); affine_grid gets the size of the canvas.",
    ),
)
