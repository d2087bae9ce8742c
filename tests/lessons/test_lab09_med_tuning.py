"""Lab 09: right answers that look unlike ours pass; wrong ones, and what would stop a later cell, fail in
words; and what the exercises rest on is the method."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from labkit.lessons import check, exercises
from labkit.lessons.lab09_med_tuning import parts
from labkit.methods import MedTuning
from labkit.methods.fourier import RealFilter
from labkit.methods.med_tuning import depthwise
from labkit.networks.segmenter import segmenter
from labkit.tuning import count, tune

EXERCISES = exercises("09")


def checked(name, answer):
    return check(name, EXERCISES[name], answer)


# Right answers


def kernel_by_loops(w_plane, w_slice):
    return torch.stack([weight * w_plane for weight in w_slice])


def kernel_by_convolution(w_plane, w_slice):
    return torch.tensordot(w_slice[:, None], w_plane[None], dims=1)


def ring_by_a_matrix(x, w):
    s = torch.arange(len(x))
    return w[(s[:, None] - s) % len(x)] @ x


def ring_by_frequencies(x, w):
    return torch.fft.irfft(torch.fft.rfft(x) * torch.fft.rfft(w), n=len(x))


def axis_by_axis(h, W, b):
    for axis in (4, 3, 2):
        h = torch.fft.fft(h, dim=axis)
    h = h * W + b
    for axis in (2, 3, 4):
        h = torch.fft.ifft(h, dim=axis)
    return torch.sqrt(h.real**2 + h.imag**2)


def along_slices_and_the_corner(h, W, b):
    """What section 5 of the lab finds out: a sum on a ring, and b in the corner."""
    y = torch.fft.ifft(torch.fft.fft(h, dim=2) * W, dim=2)
    corner = torch.zeros_like(h)
    corner[..., 0, 0] = 1
    return (y + corner * torch.fft.ifft(b[:, 0, 0])[:, None, None]).abs()


def forward_step_by_step(self, x, before):
    B, S, rows, columns, _ = x.shape
    h = torch.permute(F.gelu(self.down(x)), (0, 4, 1, 2, 3))
    M = self.mix(torch.stack([self.fourier(h), self.conv5(h), self.conv3(h)]).sum(0))
    M = self.fuse(torch.concat((M, self.align(before)), dim=1))
    inner = torch.permute(torch.add(M, h), (0, 2, 3, 4, 1)).reshape(-1, h.shape[1])
    return [F.gelu(self.up(inner)).view(B, S, rows, columns, -1) + x, M]


def forward_without_cat(self, x, before):
    """fuse is linear in both: each half of its matrix sees one of them."""
    h = F.gelu(self.down(x)).movedim(4, 1)
    M, earlier = self.mix(self.conv3(h) + self.conv5(h) + self.fourier(h)), self.align(before)
    of_M, of_earlier = self.fuse.weight.chunk(2, 1)
    M = F.conv3d(M, of_M, self.fuse.bias) + F.conv3d(earlier, of_earlier)
    return x + F.gelu(self.up((h + M).movedim(1, 4))), M


def widest_by_the_roots(budget, d, T, blocks):
    """4 m^2 + (2d + 54) m + d + 2T <= budget // blocks, solved."""
    p, q = 2 * d + 54, d + 2 * T - budget // blocks
    return max(0, (math.isqrt(max(0, p * p - 16 * q)) - p) // 8)


def widest_by_search(budget, d, T, blocks):
    fits = [m for m in range(1, 600) if blocks * (4 * m * m + 2 * d * m + 54 * m + d + 2 * T) <= budget]
    return max(fits, default=0)


@pytest.mark.parametrize(
    "name, answer",
    [
        ("one_kernel", kernel_by_loops),
        ("one_kernel", kernel_by_convolution),
        ("circular", ring_by_a_matrix),
        ("circular", ring_by_frequencies),
        ("fourier", axis_by_axis),
        ("fourier", along_slices_and_the_corner),
        ("forward", forward_step_by_step),
        ("forward", forward_without_cat),
        ("widest", widest_by_the_roots),
        ("widest", widest_by_search),
    ],
)
def test_a_right_answer_passes_however_it_is_written(name, answer):
    feedback = checked(name, answer)
    assert feedback, str(feedback)


# Wrong ones


def through_numpy(h, W, b):
    h, W, b = (one.numpy() for one in (h, W, b))
    axes = (-3, -2, -1)
    return torch.from_numpy(np.abs(np.fft.ifftn(np.fft.fftn(h, axes=axes) * W + b, axes=axes)).astype("f4"))


@torch.no_grad()
def fourier_without_gradients(h, W, b):
    return axis_by_axis(h, W, b)


def W_detached(h, W, b):
    return axis_by_axis(h, W.detach(), b)


def by_rfft(h, W, b):
    half = torch.fft.rfftn(h, dim=(2, 3, 4))
    return torch.fft.irfftn(half * W + b, s=h.shape[2:], dim=(2, 3, 4)).abs()


def widest_as_a_float(budget, d, T, blocks):
    return float(widest_by_search(budget, d, T, blocks))


def at_least_one(budget, d, T, blocks):
    return max(1, widest_by_search(budget, d, T, blocks))


def three_things(self, x, before):
    return (*forward_step_by_step(self, x, before), before)


def words_for_M(self, x, before):
    return forward_step_by_step(self, x, before)[0], "M"


def tokens_alone(self, x, before):
    return forward_step_by_step(self, x, before)[0]


def tokens_detached(self, x, before):
    tokens, M = forward_step_by_step(self, x, before)
    return tokens.detach(), M


def before_detached(self, x, before):
    return forward_step_by_step(self, x, before.detach())


def M_detached(self, x, before):
    tokens, M = forward_step_by_step(self, x, before)
    return tokens, M.detach()


def in_place(self, x, before):
    x += 1
    return forward_step_by_step(self, x, before)


def whole_tokens(self, x, before):
    return tuple(one.long() for one in forward_step_by_step(self, x, before))


def two_mistakes_at_once(self, x, before):
    """Neither GELU after W_up nor h beside M; the first challenge shows the larger of them."""
    return M_alone_up(self, x, before), forward_step_by_step(self, x, before)[1].flip(1)


def M_alone_up(self, x, before):
    M = forward_step_by_step(self, x, before)[1]
    return x + F.gelu(self.up(M.movedim(1, -1)))


@pytest.mark.parametrize(
    "name, answer, words",
    [
        ("fourier", through_numpy, "NumPy keeps no record for gradients"),
        ("fourier", fourier_without_gradients, "no gradient reaches h or W or b"),
        ("fourier", W_detached, "no gradient reaches W,"),
        ("fourier", by_rfft, "You used rfftn"),
        ("widest", widest_as_a_float, "return a whole number, an int, not"),
        ("widest", at_least_one, "Where not even m = 1 fits the answer is 0"),
        ("forward", three_things, "return two tensors, the tokens and M"),
        ("forward", words_for_M, "return two tensors, the tokens and M"),
        ("forward", tokens_alone, "The next stage needs M too"),
        ("forward", tokens_detached, "gradients"),
        ("forward", before_detached, "gradients"),
        ("forward", M_detached, "gradients through M"),
        ("forward", in_place, "in-place"),
        ("forward", whole_tokens, "float32 as x is"),
        ("forward", two_mistakes_at_once, "h passes by the branches"),
    ],
)
def test_what_is_wrong_or_would_stop_a_later_cell_is_refused_in_words(name, answer, words):
    feedback = checked(name, answer)
    assert not feedback and words in str(feedback), str(feedback)


# What the notebook rests on


def test_the_parts_that_students_get_are_those_of_the_method():
    m, T = 3, 4
    made, grid = parts.parts(5, m, T), (2, 2)
    for ours, theirs in (
        (made.conv3, depthwise(m, 3)),
        (made.conv5, depthwise(m, 5)),
        (made.fourier, RealFilter(T, grid)),
    ):
        theirs.load_state_dict(
            {
                name.replace("W", "W_F").replace("b", "b_F") if ours is made.fourier else name: tensor
                for name, tensor in ours.state_dict().items()
            }
        )
        h = torch.randn(2, m, T, *grid)
        torch.testing.assert_close(ours(h), theirs.eval()(h))


@pytest.mark.parametrize("ratio", [6, 20])
def test_the_count_behind_the_widest_bottleneck_is_that_of_the_method(ratio):
    inserted = count(tune(segmenter("tiny", 1, 2), MedTuning(ratio=ratio, fourier="released"))).inserted
    widest = EXERCISES["widest"].reference
    assert widest(inserted, 384, 16, 4) == 384 // ratio
    assert widest(inserted - 1, 384, 16, 4) == 384 // ratio - 1
