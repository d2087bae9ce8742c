"""Lab 09: the parts of Med-Tuning's adapter, one by one; and how each is usually got wrong."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from labkit.lessons.exercise import Challenge, Exercise
from labkit.methods.fourier import RING, filtered


def one_kernel(w_plane: torch.Tensor, w_slice: torch.Tensor) -> torch.Tensor:
    """(k, k) in the plane and (k,) along slices as one kernel: (k, k, k), slices first."""
    return w_slice[:, None, None] * w_plane


def circular(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """y_s = sum over t of w_t x_((s - t) mod T): (T,) and (T,) -> (T,)."""
    return sum(w[t] * x.roll(t) for t in range(len(w)))


def fourier(h: torch.Tensor, W: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """|F^-1(W F(h) + b)|, F over slices, rows and columns: h (B, m, T, h, w), W and b (T, 1 or h, 1 or w)."""
    return filtered(h, W, b)


def mix(
    b3: torch.Tensor, b5: torch.Tensor, f: torch.Tensor, W: torch.Tensor, b: torch.Tensor
) -> torch.Tensor:
    """W (b3 + b5 + f) + b for every token: (N, m) each -> (N, m)."""
    return F.linear(b3 + b5 + f, W, b)


def interact(M: torch.Tensor, prev: torch.Tensor, align: Callable, fuse: Callable) -> torch.Tensor:
    """fuse([M, align(prev)]), channels are axis 1."""
    return fuse(torch.cat([M, align(prev)], 1))


def _row(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


def _slices(*values: float) -> torch.Tensor:
    """One number for each slice, as a volume with one token a slice."""
    return _row(*values)[:, None, None]


# On a ring


def _cut(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """`circular` without the ring: zeros before the first slice."""
    return sum(w[t] * F.pad(x, (t, 0))[: len(x)] for t in range(len(w)))


def _past_the_end(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return torch.stack([sum(w[t] * x[s + t] for t in range(len(w))) for s in range(len(x))])


def _conv1d(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return F.conv1d(F.pad(x[None, None], (len(x) - 1, 0), mode="circular"), w[None, None])[0, 0]


# By frequencies


def _filtered(
    W: Callable = lambda W: W,
    b: Callable = lambda b: b,
    between: Callable = lambda z: z,
    out: Callable = torch.abs,
    ring: tuple[int, ...] | None = RING,
    back: bool = True,
) -> Callable:
    """`fourier` with another filter, shift, step before or after the way back, axes (None: all), or no way."""

    def wrong(h, W_F, b_F):
        spectrum = between(torch.fft.fftn(h, dim=ring) * W(W_F) + b(b_F))
        return out(torch.fft.ifftn(spectrum, dim=ring) if back else spectrum)

    return wrong


def _b_too_late(h: torch.Tensor, W: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (torch.fft.ifftn(torch.fft.fftn(h, dim=RING) * W, dim=RING) + b).abs()


def _along_slices(W: torch.Tensor) -> torch.Tensor:
    return torch.fft.fft(W, dim=0)


def _four(*W: float) -> Callable:
    return lambda: (_slices(1, -2, 3, 0)[None, None], _slices(*W), _slices(0, 0, 0, 0))


def _plane() -> tuple:
    return torch.randn(1, 1, 2, 2, 3), _slices(1, 1), _slices(2, 1)


def _random_volume() -> tuple:
    B, m, T, h, w = 2, 3, 4, 2, 3
    return torch.randn(B, m, T, h, w), torch.randn(T, 1, 1), torch.randn(T, 1, 1)


# Mixing


def _mixed(total: Callable = lambda b3, b5, f: b3 + b5 + f, bias: float = 1, turn: bool = False) -> Callable:
    """`mix` of something else than the sum, with the bias so many times, or with W transposed."""
    return lambda b3, b5, f, W, b: F.linear(total(b3, b5, f), W.T if turn else W, bias * b)


def _one_token() -> tuple:
    matrix = torch.tensor([[1.0, 10], [0, 1]])
    return _row(1, 0)[None], _row(2, 1)[None], _row(0, 5)[None], matrix, _row(0, 100)


def _tokens() -> tuple:
    N, m = 4, 3
    return *(torch.randn(N, m) for _ in range(3)), torch.randn(m, m), torch.randn(m)


# Stages


def _align(z: torch.Tensor) -> torch.Tensor:
    return 2 * z + 1


def _fuse(both: torch.Tensor) -> torch.Tensor:
    """One channel a, the other b: a + 3b."""
    half = both.shape[1] // 2
    return both[:, :half] + 3 * both[:, half:]


def _stages(prev: float) -> Callable:
    return lambda: (torch.ones(1, 1), torch.full((1, 1), prev), _align, _fuse)


def _swin_stages() -> tuple:
    m = 4
    weight, matrix = torch.randn(m, m // 2, 1, 3, 3), torch.randn(m, 2 * m, 1, 1, 1)

    def align(z: torch.Tensor) -> torch.Tensor:
        return F.conv3d(z, weight, stride=(1, 2, 2), padding=(0, 1, 1))

    return (
        torch.randn(1, m, 3, 2, 2),
        torch.randn(1, m // 2, 3, 4, 4),
        align,
        lambda both: F.conv3d(both, matrix),
    )


EXERCISES = {
    "one_kernel": Exercise(
        reference=one_kernel,
        challenges=(
            Challenge("1 x 2 in the plane, 2 along slices", lambda: (_row(1, 2)[None], _row(10, 100))),
            Challenge(
                "random: 3 x 3 in the plane, 3 along slices", lambda: (torch.randn(3, 3), torch.randn(3))
            ),
        ),
        mistakes={
            "You added the two kernels. One convolution after the other multiplies their weights: whatever the "
            "first made of a voxel, the second weighs again.": lambda p, s: s[:, None, None] + p,
            "You put the slices last. A volume is (slices, rows, columns), and so is "
            "its kernel.": lambda p, s: p[..., None] * s,
            "You kept the kernel of the plane alone, once for every slice. Then all slices would count "
            "alike.": lambda p, s: torch.ones_like(s)[:, None, None] * p,
            "You turned the slice kernel round. PyTorch's convolutions do not flip; a neighbour above would be "
            "taken for one below.": lambda p, s: one_kernel(p, s.flip(0)),
            "You kept the slice kernel alone, once for every place of the plane. Then all places would count "
            "alike.": lambda p, s: one_kernel(torch.ones_like(p), s),
            "Your w_slice lies along the rows: it needs a second new axis.": lambda p, s: s[:, None] * p,
            "Your w_slice lies along the columns: it needs two new axes behind its own.": lambda p, s: s * p,
            "You laid the plane out flat. The kernel keeps its rows and columns, as K[s, i, j] has three "
            "places.": lambda p, s: torch.outer(s, p.flatten()),
            "You added the slices up. The kernel needs a plane for each of them.": lambda p, s: s.sum() * p,
        },
        hints=(
            "Send in a volume that is 0 but for a single 1. What does the first kernel leave, and what does the "
            "second make of each of these numbers?",
            "K[s, i, j] = w_slice[s] * w_plane[i, j].",
            "Give w_slice two more axes, `w_slice[:, None, None]`, and multiply: PyTorch stretches both.",
        ),
    ),
    "circular": Exercise(
        reference=circular,
        challenges=(
            Challenge("three slices, moved on by one", lambda: (_row(1, 2, 3), _row(0, 1, 0))),
            Challenge("three slices, two weights", lambda: (_row(1, 2, 3), _row(1, 2, 0))),
            Challenge("five random slices, five random weights", lambda: (torch.randn(5), torch.randn(5))),
        ),
        mistakes={
            "You went round the other way: x_(s + t). That is a correlation, which is what PyTorch's Conv layers "
            "compute; the Fourier transform gives the convolution, x_(s - t).": lambda x, w: sum(
                w[t] * x.roll(-t) for t in range(len(w))
            ),
            "You put zeros before the first slice. On a ring the slice before the first is the last.": _cut,
            "You multiplied slice by slice: then no slice would hear of another.": lambda x, w: w * x,
            "Your result is T times too large: a factor T is divided out once, on the way back from the "
            "frequencies.": lambda x, w: len(x) * circular(x, w),
            "You transformed x but not w. Both must be written in frequencies before they are "
            "multiplied.": lambda x, w: torch.fft.ifft(torch.fft.fft(x) * w).real,
            "x[s + t] runs past the last slice, and the other way round. The sum asks for x[(s - t) % T]; a "
            "negative index comes in again at the end.": _past_the_end,
            "PyTorch's conv1d does not flip its weights: yours meet the slices in reverse order.": _conv1d,
            "You kept the last term alone. Inside the loop, `y = ...` forgets the sum; add to "
            "y.": lambda x, w: w[-1] * x.roll(len(w) - 1),
            "You kept the first term alone: does `return` stand inside the loop?": lambda x, w: w[0] * x,
            "You began with x. Begin with zeros; w_0 x is one of the terms.": lambda x, w: x + circular(x, w),
            "You moved x on by t + 1. w_0 is for the slice itself.": lambda x, w: circular(x.roll(1), w),
            "You took x_(t - s): slices in reverse order.": lambda x, w: circular(x.flip(0).roll(1), w),
            "Your terms w_t x_(s - t) lie side by side, one t below the other. The sum still has to be taken, over "
            "t.": lambda x, w: torch.stack([w[t] * x.roll(t) for t in range(len(w))]),
            "You returned complex numbers. From real ones the way back is real but for rounding: take "
            "`.real`.": lambda x, w: circular(x, w).to(torch.complex64),
        },
        hints=(
            "The slice before the first one is the last one. By how many slices does weight w_t move the volume?",
            "y = w_0 x + w_1 (x moved on by 1) + w_2 (x moved on by 2) + ...",
            "`x.roll(t)` moves x on by t and lets what falls off come in again at the front. Add up over t.",
        ),
    ),
    "fourier": Exercise(
        reference=fourier,
        challenges=(
            Challenge("four slices of one token; W is 1 everywhere", _four(1, 1, 1, 1)),
            Challenge("the same slices; W keeps frequency 0 alone", _four(1, 0, 0, 0)),
            Challenge("the same slices; W keeps two frequencies, one of them doubled", _four(1, 2, 0, 0)),
            Challenge("slices of 2 x 3 tokens, and a b", _plane),
            Challenge("two random volumes of three channels", _random_volume),
        ),
        mistakes={
            "You took the real part. The paper takes the modulus, so a negative feature comes out "
            "positive.": _filtered(out=lambda z: z.real),
            "You never left the slices: W multiplies frequencies. Without the transform it would weigh slice 0, "
            "slice 1 and so on.": lambda h, W, b: (h * W + b).abs(),
            "You did not come back: these are the sizes of frequencies, not tokens.": _filtered(back=False),
            "You transformed W too. W is learned in frequencies; it *is* the filter's transform "
            "already.": _filtered(W=_along_slices),
            "You took the modulus before coming back. That throws away the phases, and they say where in the "
            "volume things are.": _filtered(between=torch.abs, out=lambda z: z.real),
            "You took the modulus twice. Before the way back it throws away the phases, and they say where in the "
            "volume things are.": _filtered(between=torch.abs),
            "You returned complex numbers. The bars of the formula are their size: `.abs()`.": _filtered(
                out=lambda z: z
            ),
            "You took the size of the real part. What comes back is complex, and its size needs both "
            "parts.": _filtered(out=lambda z: z.real.abs()),
            "You added b last, to the sizes. In the formula it stands inside: it is added to the frequencies, before "
            "the way back.": lambda h, W, b: fourier(h, W, 0 * b) + b,
            "You added b to the tokens, after the way back. It is added to the frequencies.": _b_too_late,
            "W multiplied b too. It is W F(h) + b.": lambda h, W, b: fourier(h, W, W * b),
            "You transformed b too. It is learned in frequencies, as W is.": _filtered(b=_along_slices),
            "You left out W.": _filtered(W=torch.ones_like),
            "You left out b. It is added before the way back.": _filtered(b=torch.zeros_like),
            "You transformed along slices only. With W alone that would come to the same, as you will see; but b "
            "then reaches every token.": _filtered(ring=(-3,)),
            "You transformed over all axes. Patients and channels are no places in a volume, and they must not "
            "be filtered into one another.": _filtered(ring=None),
            "You transformed the columns alone, as fft does unless told the axis. F runs over "
            "three.": _filtered(ring=(-1,)),
            "You transformed in the plane only. Then W weighs slices.": _filtered(ring=(-2, -1)),
        },
        hints=(
            "There, multiply, add, back. And what is the size of a complex number?",
            "|F^-1(W F(h) + b)|, with F over the last three axes: slices, rows, columns.",
            "torch.fft.fftn(h, dim=(-3, -2, -1)), then torch.fft.ifftn over the same axes, then .abs().",
        ),
    ),
    "mix": Exercise(
        reference=mix,
        challenges=(
            Challenge("one token of two channels", _one_token),
            Challenge("four random tokens of three channels", _tokens),
        ),
        mistakes={
            "You mixed each branch with the bias and added up: the bias came in three times.": _mixed(bias=3),
            "You used W the wrong way round. Row o of W makes output channel o; with tokens as rows that is "
            "x @ W.T.": _mixed(turn=True),
            "You took the mean; the paper adds.": _mixed(lambda b3, b5, f: (b3 + b5 + f) / 3),
            "You left out the Fourier branch.": _mixed(lambda b3, b5, f: b3 + b5),
            "You left out the branch of kernel 5.": _mixed(lambda b3, b5, f: b3 + f),
            "You left out the branch of kernel 3.": _mixed(lambda b3, b5, f: b5 + f),
            "You mixed f alone: in b3 + b5 + f @ W.T the product is taken before the sums. Put the sum of the three "
            "in brackets.": lambda b3, b5, f, W, b: b3 + b5 + F.linear(f, W, b),
            "You put W on the left. Tokens are rows, so it stands on the right, transposed: "
            "x @ W.T.": lambda b3, b5, f, W, b: W @ (b3 + b5 + f) + b,
            "You multiplied number by number, with *. Then no channel hears of another; a matrix product is written "
            "@.": lambda b3, b5, f, W, b: W * (b3 + b5 + f) + b,
            "You left out W: no channel hears of another.": lambda b3, b5, f, W, b: b3 + b5 + f + b,
            "You added the bias before W, and W mixed it too. In W (b3 + b5 + f) + b it stands outside the "
            "brackets.": lambda b3, b5, f, W, b: F.linear(b3 + b5 + f + b, W),
            "You multiplied the branches: where one is silent, all are.": _mixed(
                lambda b3, b5, f: b3 * b5 * f
            ),
            "You left out the bias.": _mixed(bias=0),
        },
        hints=(
            "Until here no channel has heard of another. What makes a new channel out of all of them, with the "
            "same weights at every token?",
            "W (b3 + b5 + f) + b. The tokens are rows, so W works from the right, transposed.",
            "F.linear(x, W, b) is x @ W.T + b; x is the sum of the three.",
        ),
    ),
    "interact": Exercise(
        reference=interact,
        challenges=(
            Challenge("M = 1, before it was 10; align makes 2z + 1, fuse makes a + 3b", _stages(10.0)),
            Challenge("the same at the first stage, which is given 0", _stages(0.0)),
            Challenge("a Swin's stages: twice the grid and half the channels before", _swin_stages),
        ),
        mistakes={  # z: what the stage before handed on
            "You added. The paper tried that (its ablation has Add, Max and Concat) and then let a learned matrix "
            "see both side by side.": lambda M, z, align, fuse: M + align(z),
            "You took the larger of the two. The paper tried that as well; its method puts them side by "
            "side.": lambda M, z, align, fuse: torch.maximum(M, align(z)),
            "You did not align. The stage before may have another grid and other channels; align makes its "
            "feature fit.": lambda M, z, align, fuse: fuse(torch.cat([M, z], 1)),
            "You put the stage before first. fuse has learned that M comes "
            "first.": lambda M, z, align, fuse: fuse(torch.cat([align(z), M], 1)),
            "You aligned M. M is of this stage and fits already; it is the stage before that must be "
            "aligned.": lambda M, z, align, fuse: fuse(torch.cat([align(M), z], 1)),
            "You aligned both. M is of this stage and fits already; in a Swin, aligning it would fail, as its channels "
            "are not the earlier ones.": lambda M, z, align, fuse: fuse(torch.cat([align(M), align(z)], 1)),
            "You stopped after the concatenation: now there are twice as many channels as the up-projection "
            "takes.": lambda M, z, align, fuse: torch.cat([M, align(z)], 1),
            "You joined along the batch, which is where torch.cat joins unless told the axis. Channels are "
            "axis 1.": lambda M, z, align, fuse: fuse(torch.cat([M, align(z)])),
            "You stacked: that makes a new axis. torch.cat joins along the "
            "channels.": lambda M, z, align, fuse: fuse(torch.stack([M, align(z)], 1)),
            "You gave fuse two tensors. It takes one, in which both lie side by side along the "
            "channels: torch.cat makes it.": lambda M, z, align, fuse: fuse(M, align(z)),
            "You added M once more. What fuse makes takes the place of M, as the arrow in the formula "
            "says.": lambda M, z, align, fuse: M + fuse(torch.cat([M, align(z)], 1)),
            "You left the first stage out. Given zeros, align still makes its bias of them, and fuse mixes "
            "M.": lambda M, z, align, fuse: interact(M, z, align, fuse) if z.any() else M,
        },
        hints=(
            "First make the older feature fit. Then let one matrix see both.",
            "fuse([M, align(prev)]), the brackets meaning: side by side, along the channels.",
            "`torch.cat([M, align(prev)], 1)` puts them side by side; give that to fuse.",
        ),
    ),
}
