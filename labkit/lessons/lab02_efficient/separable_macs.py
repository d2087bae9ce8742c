"""`separable_macs`: what a depthwise and a pointwise convolution cost together."""

from __future__ import annotations

import torch

from labkit.lessons.exercise import Challenge, Exercise, mistake


def separable_macs(M: int, N: int, k: int, H: int, W: int) -> int:
    """MACs of a separable convolution, k x k, of M channels to N, at H x W places."""
    return (k * k * M + M * N) * H * W


# Challenges


def random_sizes() -> tuple:
    M = torch.randint(6, 20, ()).item()
    N = torch.randint(21, 40, ()).item()
    k = torch.randint(2, 8, ()).item()
    H = torch.randint(8, 20, ()).item()
    W = torch.randint(21, 30, ()).item()
    return M, N, k, H, W


# Mistakes


@mistake(
    "That is the ordinary convolution: k x k for every pair of channels. The depthwise part has one kernel "
    "for each input channel, and mixes none."
)
def ordinary_convolution(M, N, k, H, W):
    return k * k * M * N * H * W


@mistake("You counted parameters. Each is used once at every place: times H W.")
def counted_parameters(M, N, k, H, W):
    return k * k * M + M * N


@mistake(
    "Your depthwise part has one kernel for each output channel. It works on the M input channels, before "
    "there are N."
)
def a_kernel_for_each_output(M, N, k, H, W):
    return (k * k * N + M * N) * H * W


@mistake("Your kernel has k weights. It is k x k.")
def kernel_of_k_weights(M, N, k, H, W):
    return (k * M + M * N) * H * W


@mistake("You counted a multiply-add as two. So do FLOPs; a MAC is one.")
def multiply_add_as_two(M, N, k, H, W):
    return 2 * (k * k * M + M * N) * H * W


EXERCISE = Exercise(
    reference=separable_macs,
    challenges=(
        Challenge("4 to 8 channels, 3 x 3, on 5 x 6 places", lambda: (4, 8, 3, 5, 6)),
        Challenge("3 to 2 channels, 5 x 5, on 7 x 4 places", lambda: (3, 2, 5, 7, 4)),
        Challenge("random sizes", random_sizes),
    ),
    mistakes=(
        ordinary_convolution,
        counted_parameters,
        a_kernel_for_each_output,
        kernel_of_k_weights,
        multiply_add_as_two,
    ),
    hints=(
        "Two layers, one after the other. What does each compute at one place?",
        "Depthwise: k k M at every place. Pointwise: M N at every place.",
        "(k * k * M + M * N) * H * W.",
    ),
)
