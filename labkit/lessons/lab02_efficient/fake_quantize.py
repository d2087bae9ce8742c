"""`fake_quantize`: weights as a network of few bits would have them, with a gradient all the same."""

from __future__ import annotations

import torch

from labkit.efficient import precision
from labkit.lessons.authoring import gradient, tensor
from labkit.lessons.exercise import Challenge, Exercise, mistake


def fake_quantize(w: torch.Tensor, bits: int) -> torch.Tensor:
    """Weights (o, i) -> (o, i): each row rounded on its own scale; the gradient goes straight through."""
    return precision.fake_quantize(w, bits, per_row=True)


def with_gradient(output: torch.Tensor, w: torch.Tensor, bits: int) -> dict[str, torch.Tensor]:
    """What is compared: the rounded weights (o, i), and the gradient (o, i) of their sum."""
    output = tensor(output, "w-hat")
    return {"w-hat": output.detach(), "gradient of its sum": gradient(output.sum(), w)}


# Challenges


def one_row() -> tuple:
    return torch.tensor([[-1, -0.3, 0.2, 1]], requires_grad=True), 3


def three_rows() -> tuple:
    return torch.tensor([[-7, 3.4, 2.6], [0.7, 0.11, -0.36], [0, 0, 0]], requires_grad=True), 4


def random_rows() -> tuple:
    return torch.randn(3, 5, requires_grad=True), 8


# Mistakes


@mistake(
    "Your largest code is 2^(b-1). Codes run from -Q to Q with Q = 2^(b-1) - 1, or the largest does not fit "
    "into b bits."
)
def largest_code_does_not_fit(w, bits):
    s = w.detach().abs().amax(1, keepdim=True) / 2 ** (bits - 1)
    s = torch.where(s > 0, s, 1.0)
    w_hat = s * (w / s).round()
    return w + (w_hat - w).detach()


@mistake("Your largest code is 2^b - 1. One bit is for the sign: Q = 2^(b-1) - 1.")
def no_bit_for_the_sign(w, bits):
    s = w.detach().abs().amax(1, keepdim=True) / (2**bits - 1)
    s = torch.where(s > 0, s, 1.0)
    w_hat = s * (w / s).round()
    return w + (w_hat - w).detach()


@mistake("You cut the digits off. Round to the nearest code, or every weight shrinks.")
def digits_cut_off(w, bits):
    s = w.detach().abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    s = torch.where(s > 0, s, 1.0)
    w_hat = s * (w / s).trunc()
    return w + (w_hat - w).detach()


@mistake(
    "Your gradient is zero: rounding is flat nearly everywhere. Pass it straight through: "
    "w + (w_hat - w).detach()."
)
def gradient_of_rounding(w, bits):
    s = w.detach().abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    s = torch.where(s > 0, s, 1.0)
    return s * (w / s).round()


@mistake("You return the codes. Multiply by s, so that the layer computes with numbers of the old size.")
def the_codes(w, bits):
    s = w.detach().abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    s = torch.where(s > 0, s, 1.0)
    codes = (w / s).round()
    return w + (codes - w).detach()


@mistake(
    "You have one scale for the whole matrix. Each row, one output, has its own: a row of small weights "
    "would be rounded to zero."
)
def one_scale_for_the_matrix(w, bits):
    s = w.detach().abs().max() / (2 ** (bits - 1) - 1)
    s = torch.where(s > 0, s, 1.0)
    w_hat = s * (w / s).round()
    return w + (w_hat - w).detach()


@mistake("Your scales belong to the columns, the inputs. Rows are the outputs: amax over dim 1.")
def a_scale_for_each_column(w, bits):
    s = w.detach().abs().amax(0, keepdim=True) / (2 ** (bits - 1) - 1)
    s = torch.where(s > 0, s, 1.0)
    w_hat = s * (w / s).round()
    return w + (w_hat - w).detach()


@mistake("You took the largest w, not the largest |w|: a row's largest weight can be negative.")
def without_the_magnitude(w, bits):
    s = w.detach().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    s = torch.where(s > 0, s, 1.0)
    w_hat = s * (w / s).round()
    return w + (w_hat - w).detach()


@mistake("A row of zeros became NaN: its scale is 0, and you divided by it. Use 1 there.")
def divided_by_0(w, bits):
    s = w.detach().abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    w_hat = s * (w / s).round()
    return w + (w_hat - w).detach()


@mistake(
    "You rounded down. Of the two codes around w / s `.round()` takes the nearer one, `.floor()` the lower, "
    "and every weight moves down."
)
def rounded_down(w, bits):
    s = w.detach().abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    s = torch.where(s > 0, s, 1.0)
    w_hat = s * (w / s).floor()
    return w + (w_hat - w).detach()


@mistake(
    "Your scales have lost an axis: amax(1) gives (rows,), which PyTorch lays along the columns. Keep it by "
    "amax(1, keepdim=True), so that each row is divided by its own."
)
def without_keepdim(w, bits):
    s = w.detach().abs().amax(1) / (2 ** (bits - 1) - 1)
    s = torch.where(s > 0, s, 1.0)
    w_hat = s * (w / s).round()
    return w + (w_hat - w).detach()


@mistake(
    "Your scale has a gradient of its own. It is found from w, but taken as a constant: `w.detach()` before "
    "`abs()`, or let the whole rounding be passed, w + (w_hat - w).detach()."
)
def scale_in_the_graph(w, bits):
    s = w.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    s = torch.where(s > 0, s, 1.0)
    codes = w / s + ((w / s).round() - w / s).detach()
    return s * codes


EXERCISE = Exercise(
    reference=fake_quantize,
    challenges=(
        Challenge("one row, 3 bits", one_row),
        Challenge("three rows of unlike size, one of zeros, 4 bits", three_rows),
        Challenge("random, 8 bits", random_rows),
    ),
    result=with_gradient,
    mistakes=(
        largest_code_does_not_fit,
        no_bit_for_the_sign,
        digits_cut_off,
        gradient_of_rounding,
        the_codes,
        one_scale_for_the_matrix,
        a_scale_for_each_column,
        without_the_magnitude,
        divided_by_0,
        rounded_down,
        without_keepdim,
        scale_in_the_graph,
    ),
    hints=(
        "How many codes are there with b bits, and which weight gets the largest one?",
        "Q = 2^(b-1) - 1, s = max |w| of the row / Q, w_hat = s round(w / s), and w + (w_hat - w).detach() "
        "for the gradient.",
        "s = w.detach().abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1); s = torch.where(s > 0, s, 1.0); "
        "w_hat = s * (w / s).round().",
    ),
)
