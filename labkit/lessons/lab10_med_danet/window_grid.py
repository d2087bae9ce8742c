"""`window_grid`: the affine transforms by which grid_sample cuts windows out of pictures."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from labkit.lessons.authoring import gradient
from labkit.lessons.exercise import Challenge, Exercise, mistake


def window_grid(a: torch.Tensor, m: int, n: int) -> torch.Tensor:
    """Where `F.affine_grid` should read: theta (B, 2, 3) of windows at a (n - m), a (B, 2) as row, column."""
    theta = torch.zeros(len(a), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = m / n
    theta[:, :, 2] = ((2 * a - 1) * (n - m) / n).flip(1)
    return theta


def reading(theta: torch.Tensor, a: torch.Tensor, m: int, n: int) -> dict[str, torch.Tensor]:
    """What is compared: theta, the window (B, 1, m, m) it reads where row i, column j is 100 i + j, and the
    gradient by which a place is learned."""
    rows, columns = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    picture = (100.0 * rows + columns).expand(len(a), 1, n, n)
    grid = F.affine_grid(theta, [len(a), 1, m, m], align_corners=False)
    window = F.grid_sample(picture, grid, align_corners=False).detach()
    weights = torch.arange(1.0, 7).view(2, 3)
    return {"theta": theta.detach(), "window": window, "gradient of a": gradient(theta * weights, a)}


# Challenges


def one_window() -> tuple:
    return torch.tensor([[1 / 6, 5 / 6]], requires_grad=True), 4, 10


def two_windows() -> tuple:
    return (torch.tensor([[5.0, 20], [24, 0]]) / 24).requires_grad_(), 8, 32


def random_places() -> tuple:
    return torch.rand(3, 2, requires_grad=True), 6, 20


# Mistakes


@mistake(
    "You exchanged rows and columns. a is (row, column), and grid_sample wants x first, which is the column."
)
def rows_and_columns_exchanged(a, m, n):
    theta = torch.zeros(len(a), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = m / n
    theta[:, :, 2] = (2 * a - 1) * (n - m) / n
    return theta


@mistake("Your shift has the wrong sign: a = 0 is the left or upper end, which is -1 for grid_sample.")
def shift_of_the_wrong_sign(a, m, n):
    theta = torch.zeros(len(a), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = m / n
    theta[:, :, 2] = ((1 - 2 * a) * (n - m) / n).flip(1)
    return theta


@mistake(
    "You zoomed by n / m. The window's own coordinates run from -1 to 1, and it covers m / n of the picture."
)
def zoomed_by_n_over_m(a, m, n):
    theta = torch.zeros(len(a), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = n / m
    theta[:, :, 2] = ((2 * a - 1) * (n - m) / n).flip(1)
    return theta


@mistake("Your zoom is 0: all pixels of the window read the same place.")
def without_the_zoom(a, m, n):
    theta = torch.zeros(len(a), 2, 3)
    theta[:, :, 2] = ((2 * a - 1) * (n - m) / n).flip(1)
    return theta


@mistake(
    "You placed the window's centre at 2 a - 1, so that at a = 0 half of it lies outside. Its centre can "
    "move by (n - m) / n to either side."
)
def centre_moves_too_far(a, m, n):
    theta = torch.zeros(len(a), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = m / n
    theta[:, :, 2] = (2 * a - 1).flip(1)
    return theta


@mistake("Your shift is in pixels. For grid_sample the picture runs from -1 to 1.")
def shift_in_pixels(a, m, n):
    theta = torch.zeros(len(a), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = m / n
    theta[:, :, 2] = (a * (n - m)).flip(1)
    return theta


@mistake("You left out the factor 2: the picture is 2 wide, from -1 to 1.")
def without_the_factor_2(a, m, n):
    theta = torch.zeros(len(a), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = m / n
    theta[:, :, 2] = ((a - 0.5) * (n - m) / n).flip(1)
    return theta


@mistake("You shifted by the window's upper left corner. t is its centre, half a window further.")
def shifted_by_the_corner(a, m, n):
    theta = torch.zeros(len(a), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = m / n
    theta[:, :, 2] = (2 * a * (n - m) / n - 1).flip(1)
    return theta


@mistake(
    "You counted from 0. For grid_sample the picture's middle is 0, so that a = 0 and a = 1 have opposite "
    "shifts."
)
def counted_from_0(a, m, n):
    theta = torch.zeros(len(a), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = m / n
    theta[:, :, 2] = (a * (n - m) / n).flip(1)
    return theta


@mistake(
    "Your centre runs from 0 to 1 over the picture. For grid_sample it runs from -1 to 1: double it, take 1 "
    "away."
)
def centre_from_0_to_1(a, m, n):
    theta = torch.zeros(len(a), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = m / n
    theta[:, :, 2] = ((a * (n - m) + m / 2) / n).flip(1)
    return theta


@mistake("You divided the shift by m. It is in units of what is read, the picture: divide by n.")
def shift_divided_by_m(a, m, n):
    theta = torch.zeros(len(a), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = m / n
    theta[:, :, 2] = ((2 * a - 1) * (n - m) / m).flip(1)
    return theta


@mistake("Brackets are missing around 2 a - 1: without them the factor (n - m) / n meets the 1 alone.")
def without_the_brackets(a, m, n):
    theta = torch.zeros(len(a), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = m / n
    theta[:, :, 2] = (2 * a - 1 * (n - m) / n).flip(1)
    return theta


@mistake("You exchanged the windows of the batch, flip(0). Row and column are a's dimension 1: flip(1).")
def windows_of_the_batch_exchanged(a, m, n):
    theta = torch.zeros(len(a), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = m / n
    theta[:, :, 2] = ((2 * a - 1) * (n - m) / n).flip(0)
    return theta


@mistake("You return one matrix, (2, 3). Each window of the batch has its own.")
def one_matrix_for_all(a, m, n):
    theta = torch.zeros(2, 3)
    theta[0, 0] = theta[1, 1] = m / n
    theta[:, 2] = ((2 * a[0] - 1) * (n - m) / n).flip(0)
    return theta


@mistake("You return the grid itself. Asked for is theta, of which the next cells make the grid.")
def the_grid_itself(a, m, n):
    theta = torch.zeros(len(a), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = m / n
    theta[:, :, 2] = ((2 * a - 1) * (n - m) / n).flip(1)
    return F.affine_grid(theta, [len(a), 1, m, m], align_corners=False)


@mistake(
    "Your theta is right, but no gradient leads from it to a, so that a place could never be learned: "
    "`.item()`, `.tolist()`, `.detach()` and torch.tensor(...) of numbers cut the record of what was done."
)
def without_a_gradient(a, m, n):
    return window_grid(a, m, n).detach()


EXERCISE = Exercise(
    reference=window_grid,
    challenges=(
        Challenge("a window of 4 in a picture of 10, at row 1, column 5", one_window),
        Challenge("two windows of 8 in 32", two_windows),
        Challenge("random places, a window of 6 in 20", random_places),
    ),
    result=reading,
    mistakes=(
        rows_and_columns_exchanged,
        shift_of_the_wrong_sign,
        zoomed_by_n_over_m,
        without_the_zoom,
        centre_moves_too_far,
        shift_in_pixels,
        without_the_factor_2,
        shifted_by_the_corner,
        counted_from_0,
        centre_from_0_to_1,
        shift_divided_by_m,
        without_the_brackets,
        windows_of_the_batch_exchanged,
        one_matrix_for_all,
        the_grid_itself,
        without_a_gradient,
    ),
    hints=(
        "Where is the window's centre, if the picture's is 0 and its edges are -1 and 1?",
        "theta = [[m/n, 0, t_x], [0, m/n, t_y]], t = (2 a - 1)(n - m)/n, with a's column first.",
        "theta[:, 0, 0] = theta[:, 1, 1] = m / n; theta[:, :, 2] = ((2 * a - 1) * (n - m) / n).flip(1).",
    ),
)
