"""`circular`: a convolution on a ring of slices, where the last is the neighbour of the first."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from labkit.lessons.exercise import Challenge, Exercise, mistake
from labkit.lessons.lab09_med_tuning.inputs import row


def circular(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """y_s = sum over t of w_t x_((s - t) mod T): (T,) and (T,) -> (T,)."""
    return sum(w[t] * x.roll(t) for t in range(len(w)))


# Challenges


def moved_on_by_one() -> tuple:
    return row(1, 2, 3), row(0, 1, 0)


def two_weights() -> tuple:
    return row(1, 2, 3), row(1, 2, 0)


def five_random_slices() -> tuple:
    return torch.randn(5), torch.randn(5)


# Mistakes


@mistake(
    "You went round the other way: x_(s + t). That is a correlation, which is what PyTorch's Conv layers "
    "compute; the Fourier transform gives the convolution, x_(s - t)."
)
def correlation(x, w):
    return sum(w[t] * x.roll(-t) for t in range(len(w)))


@mistake("You put zeros before the first slice. On a ring the slice before the first is the last.")
def zeros_before_the_first_slice(x, w):
    y = torch.zeros_like(x)
    for s in range(len(x)):
        for t in range(s + 1):
            y[s] += w[t] * x[s - t]
    return y


@mistake("You multiplied slice by slice: then no slice would hear of another.")
def slice_by_slice(x, w):
    return w * x


@mistake(
    "Your result is T times too large: a factor T is divided out once, on the way back from the frequencies."
)
def T_times_too_large(x, w):
    return len(x) * sum(w[t] * x.roll(t) for t in range(len(w)))


@mistake("You transformed x but not w. Both must be written in frequencies before they are multiplied.")
def w_not_transformed(x, w):
    return torch.fft.ifft(torch.fft.fft(x) * w).real


@mistake(
    "x[s + t] runs past the last slice, and the other way round. The sum asks for x[(s - t) % T]; a "
    "negative index comes in again at the end."
)
def past_the_last_slice(x, w):
    y = torch.zeros_like(x)
    for s in range(len(x)):
        for t in range(len(w)):
            y[s] += w[t] * x[s + t]
    return y


@mistake("PyTorch's conv1d does not flip its weights: yours meet the slices in reverse order.")
def conv1d_without_flip(x, w):
    ring = F.pad(x[None, None], (len(x) - 1, 0), mode="circular")
    return F.conv1d(ring, w[None, None])[0, 0]


@mistake("You kept the last term alone. Inside the loop, `y = ...` forgets the sum; add to y.")
def last_term_alone(x, w):
    for t in range(len(w)):
        y = w[t] * x.roll(t)
    return y


@mistake("You kept the first term alone: does `return` stand inside the loop?")
def first_term_alone(x, w):
    y = torch.zeros_like(x)
    for t in range(len(w)):
        y = y + w[t] * x.roll(t)
        return y


@mistake("You began with x. Begin with zeros; w_0 x is one of the terms.")
def begun_with_x(x, w):
    y = x
    for t in range(len(w)):
        y = y + w[t] * x.roll(t)
    return y


@mistake("You moved x on by t + 1. w_0 is for the slice itself.")
def moved_on_by_one_too_many(x, w):
    return sum(w[t] * x.roll(t + 1) for t in range(len(w)))


@mistake("You took x_(t - s): slices in reverse order.")
def slices_in_reverse_order(x, w):
    T = len(x)
    y = torch.zeros_like(x)
    for s in range(T):
        for t in range(T):
            y[s] += w[t] * x[(t - s) % T]
    return y


@mistake(
    "Your terms w_t x_(s - t) lie side by side, one t below the other. The sum still has to be taken, over t."
)
def terms_not_summed(x, w):
    return torch.stack([w[t] * x.roll(t) for t in range(len(w))])


@mistake("You returned complex numbers. From real ones the way back is real but for rounding: take `.real`.")
def complex_numbers(x, w):
    return torch.fft.ifft(torch.fft.fft(x) * torch.fft.fft(w))


EXERCISE = Exercise(
    reference=circular,
    challenges=(
        Challenge("three slices, moved on by one", moved_on_by_one),
        Challenge("three slices, two weights", two_weights),
        Challenge("five random slices, five random weights", five_random_slices),
    ),
    mistakes=(
        correlation,
        zeros_before_the_first_slice,
        slice_by_slice,
        T_times_too_large,
        w_not_transformed,
        past_the_last_slice,
        conv1d_without_flip,
        last_term_alone,
        first_term_alone,
        begun_with_x,
        moved_on_by_one_too_many,
        slices_in_reverse_order,
        terms_not_summed,
        complex_numbers,
    ),
    hints=(
        "The slice before the first one is the last one. By how many slices does weight w_t move the volume?",
        "y = w_0 x + w_1 (x moved on by 1) + w_2 (x moved on by 2) + ...",
        "`x.roll(t)` moves x on by t and lets what falls off come in again at the front. Add up over t.",
    ),
)
