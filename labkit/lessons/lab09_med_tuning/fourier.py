"""`fourier`: Med-Tuning's filter over the whole volume, in the frequency domain."""

from __future__ import annotations

import torch

from labkit.lessons.exercise import Challenge, Exercise, mistake
from labkit.methods.fourier import RING, filtered


def fourier(h: torch.Tensor, W: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """|F^-1(W F(h) + b)|, F over slices, rows and columns: h (B, m, T, h, w), W and b (T, 1 or h, 1 or w)."""
    return filtered(h, W, b)


# Challenges


def per_slice(*values: float) -> torch.Tensor:
    """One number for each of T slices, as a volume with one token a slice: (T, 1, 1)."""
    return torch.tensor(values, dtype=torch.float32)[:, None, None]


def four_slices() -> torch.Tensor:
    """Four slices of one token and one channel, one of them negative: (1, 1, 4, 1, 1)."""
    return per_slice(1, -2, 3, 0)[None, None]


def every_frequency() -> tuple:
    return four_slices(), per_slice(1, 1, 1, 1), per_slice(0, 0, 0, 0)


def frequency_0_alone() -> tuple:
    return four_slices(), per_slice(1, 0, 0, 0), per_slice(0, 0, 0, 0)


def two_frequencies() -> tuple:
    return four_slices(), per_slice(1, 2, 0, 0), per_slice(0, 0, 0, 0)


def two_slices_of_2_x_3_tokens() -> tuple:
    return torch.randn(1, 1, 2, 2, 3), per_slice(1, 1), per_slice(2, 1)


def random_volumes() -> tuple:
    B, m, T, h, w = 2, 3, 4, 2, 3
    return torch.randn(B, m, T, h, w), torch.randn(T, 1, 1), torch.randn(T, 1, 1)


# What a later cell needs: W and b learn


def lets_gradients_through(answer, output, h: torch.Tensor, W: torch.Tensor, b: torch.Tensor) -> str | None:
    """Whether h, W and b get gradients through an answer; a sentence where one does not."""
    leaves = {name: one.clone().requires_grad_() for name, one in {"h": h, "W": W, "b": b}.items()}
    try:
        output = answer(*leaves.values())
    except RuntimeError as error:
        if "numpy()" not in str(error):
            raise
        return "NumPy keeps no record for gradients, so W and b could never learn: stay with torch.fft"
    found = (None,) * len(leaves)
    if isinstance(output, torch.Tensor) and output.requires_grad:
        found = torch.autograd.grad(output.sum(), tuple(leaves.values()), allow_unused=True)
    if lost := [name for name, gradient in zip(leaves, found, strict=True) if gradient is None]:
        return (
            f"no gradient reaches {' or '.join(lost)}, so it could never learn: `.detach()`, `.data`, "
            "torch.no_grad() and a way through NumPy all cut the record of what was computed"
        )
    return None


# Mistakes


@mistake("You took the real part. The paper takes the modulus, so a negative feature comes out positive.")
def real_part(h, W, b):
    spectrum = W * torch.fft.fftn(h, dim=RING) + b
    return torch.fft.ifftn(spectrum, dim=RING).real


@mistake(
    "You never left the slices: W multiplies frequencies. Without the transform it would weigh slice 0, "
    "slice 1 and so on."
)
def without_transform(h, W, b):
    return (W * h + b).abs()


@mistake("You did not come back: these are the sizes of frequencies, not tokens.")
def without_the_way_back(h, W, b):
    spectrum = W * torch.fft.fftn(h, dim=RING) + b
    return spectrum.abs()


@mistake("You transformed W too. W is learned in frequencies; it *is* the filter's transform already.")
def W_transformed(h, W, b):
    spectrum = torch.fft.fft(W, dim=0) * torch.fft.fftn(h, dim=RING) + b
    return torch.fft.ifftn(spectrum, dim=RING).abs()


@mistake(
    "You took the modulus before coming back. That throws away the phases, and they say where in the "
    "volume things are."
)
def modulus_before_coming_back(h, W, b):
    spectrum = W * torch.fft.fftn(h, dim=RING) + b
    return torch.fft.ifftn(spectrum.abs(), dim=RING).real


@mistake(
    "You took the modulus twice. Before the way back it throws away the phases, and they say where in the "
    "volume things are."
)
def modulus_twice(h, W, b):
    spectrum = W * torch.fft.fftn(h, dim=RING) + b
    return torch.fft.ifftn(spectrum.abs(), dim=RING).abs()


@mistake("You returned complex numbers. The bars of the formula are their size: `.abs()`.")
def complex_numbers(h, W, b):
    spectrum = W * torch.fft.fftn(h, dim=RING) + b
    return torch.fft.ifftn(spectrum, dim=RING)


@mistake("You took the size of the real part. What comes back is complex, and its size needs both parts.")
def size_of_the_real_part(h, W, b):
    spectrum = W * torch.fft.fftn(h, dim=RING) + b
    return torch.fft.ifftn(spectrum, dim=RING).real.abs()


@mistake(
    "You added b last, to the sizes. In the formula it stands inside: it is added to the frequencies, before "
    "the way back."
)
def b_added_to_the_sizes(h, W, b):
    spectrum = W * torch.fft.fftn(h, dim=RING)
    return torch.fft.ifftn(spectrum, dim=RING).abs() + b


@mistake("You added b to the tokens, after the way back. It is added to the frequencies.")
def b_added_to_the_tokens(h, W, b):
    spectrum = W * torch.fft.fftn(h, dim=RING)
    return (torch.fft.ifftn(spectrum, dim=RING) + b).abs()


@mistake("W multiplied b too. It is W F(h) + b.")
def b_multiplied_by_W(h, W, b):
    spectrum = W * (torch.fft.fftn(h, dim=RING) + b)
    return torch.fft.ifftn(spectrum, dim=RING).abs()


@mistake("You transformed b too. It is learned in frequencies, as W is.")
def b_transformed(h, W, b):
    spectrum = W * torch.fft.fftn(h, dim=RING) + torch.fft.fft(b, dim=0)
    return torch.fft.ifftn(spectrum, dim=RING).abs()


@mistake("You left out W.")
def without_W(h, W, b):
    spectrum = torch.fft.fftn(h, dim=RING) + b
    return torch.fft.ifftn(spectrum, dim=RING).abs()


@mistake("You left out b. It is added before the way back.")
def without_b(h, W, b):
    spectrum = W * torch.fft.fftn(h, dim=RING)
    return torch.fft.ifftn(spectrum, dim=RING).abs()


@mistake(
    "You transformed along slices only. With W alone that would come to the same, as you will see; but b "
    "then reaches every token."
)
def along_slices_only(h, W, b):
    spectrum = W * torch.fft.fftn(h, dim=(-3,)) + b
    return torch.fft.ifftn(spectrum, dim=(-3,)).abs()


@mistake(
    "You transformed over all axes. Patients and channels are no places in a volume, and they must not "
    "be filtered into one another."
)
def over_all_axes(h, W, b):
    spectrum = W * torch.fft.fftn(h) + b
    return torch.fft.ifftn(spectrum).abs()


@mistake("You transformed the columns alone, as fft does unless told the axis. F runs over three.")
def columns_only(h, W, b):
    spectrum = W * torch.fft.fft(h) + b
    return torch.fft.ifft(spectrum).abs()


@mistake("You transformed in the plane only. Then W weighs slices.")
def in_the_plane_only(h, W, b):
    spectrum = W * torch.fft.fftn(h, dim=(-2, -1)) + b
    return torch.fft.ifftn(spectrum, dim=(-2, -1)).abs()


@mistake(
    "You used rfftn. It keeps half of the frequencies and takes for granted that the way back is real; with "
    "a real W that is not symmetric it is complex. Take fftn and ifftn, and the modulus at the end."
)
def rfft(h, W, b):
    spectrum = W * torch.fft.rfftn(h, dim=RING) + b
    return torch.fft.irfftn(spectrum, s=h.shape[-3:], dim=RING).abs()


@mistake(
    "You used rfftn. It keeps half of the frequencies, so irfftn has to guess the number of columns, and the "
    "way back is taken to be real, which it is not here. Take fftn and ifftn."
)
def rfft_without_size(h, W, b):
    spectrum = W * torch.fft.rfftn(h, dim=RING) + b
    return torch.fft.irfftn(spectrum, dim=RING).abs()


EXERCISE = Exercise(
    reference=fourier,
    challenges=(
        Challenge("four slices of one token; W is 1 everywhere", every_frequency),
        Challenge("the same slices; W keeps frequency 0 alone", frequency_0_alone),
        Challenge("the same slices; W keeps two frequencies, one of them doubled", two_frequencies),
        Challenge("slices of 2 x 3 tokens, and a b", two_slices_of_2_x_3_tokens),
        Challenge("two random volumes of three channels", random_volumes),
    ),
    properties={"lets gradients through": lets_gradients_through},
    mistakes=(
        real_part,
        without_transform,
        without_the_way_back,
        W_transformed,
        modulus_before_coming_back,
        modulus_twice,
        complex_numbers,
        size_of_the_real_part,
        b_added_to_the_sizes,
        b_added_to_the_tokens,
        b_multiplied_by_W,
        b_transformed,
        without_W,
        without_b,
        along_slices_only,
        over_all_axes,
        columns_only,
        in_the_plane_only,
        rfft,
        rfft_without_size,
    ),
    hints=(
        "There, multiply, add, back. And what is the size of a complex number?",
        "|F^-1(W F(h) + b)|, with F over the last three axes: slices, rows, columns.",
        "torch.fft.fftn(h, dim=(-3, -2, -1)), then torch.fft.ifftn over the same axes, then .abs().",
    ),
)
