"""Lab 04: LoRA by hand: its sum, start, gradients, merge, and its place in a fused qkv; and the usual mistakes."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from labkit.lessons.exercise import Challenge, Exercise
from labkit.methods.lora import stacked

Matrices = tuple[torch.Tensor, torch.Tensor]


def lora(x: torch.Tensor, W0: torch.Tensor, A: torch.Tensor, B: torch.Tensor, alpha: float) -> torch.Tensor:
    """Rows x (n, k) through W0 + (alpha / r) B A: (n, d)."""
    return x @ W0.T + alpha / len(A) * (x @ A.T) @ B.T


def start(d: int, k: int, r: int) -> Matrices:
    return torch.randn(r, k), torch.zeros(d, r)


def first_gradients(x: torch.Tensor, g: torch.Tensor, A: torch.Tensor, B: torch.Tensor, s: float) -> Matrices:
    """dL/dA (r, k) and dL/dB (d, r) of z = W0 x + s B A x for rows x (n, k) and g = dL/dz (n, d)."""
    return s * B.T @ g.T @ x, s * g.T @ (x @ A.T)


def merge(W0: torch.Tensor, A: torch.Tensor, B: torch.Tensor, alpha: float) -> torch.Tensor:
    return W0 + alpha / len(A) * B @ A


def fused(A_q: torch.Tensor, B_q: torch.Tensor, A_v: torch.Tensor, B_v: torch.Tensor) -> torch.Tensor:
    """The update of timm's qkv, (3 d, k): zeros for k."""
    return stacked(torch.stack([B_q, B_v]), (0, 2), of=3) @ torch.cat([A_q, A_v])


def _m(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32)


def _small_A() -> torch.Tensor:
    return _m((1, 0, 1), (1, 1, 0))  # (r, k) = (2, 3)


def _in_place(W0, A, B, alpha):
    W0 += alpha / len(A) * B @ A
    return W0


def _lora(
    scale: Callable = lambda A, B, alpha: alpha / len(A), frozen: Callable = lambda z, s: z
) -> Callable:
    """`lora` with another scale, or with something else done to the frozen part z under the scale s."""

    def wrong(x, W0, A, B, alpha):
        s = scale(A, B, alpha)
        return frozen(x @ W0.T, s) + s * (x @ A.T) @ B.T

    return wrong


def _facts(output: Matrices, d: int, k: int, r: int) -> dict:
    """What must be the same for all who draw: shapes, what is zero, how many rows of A are independent."""
    if not isinstance(output, (tuple, list)) or [getattr(M, "ndim", 0) for M in output] != [2, 2]:
        raise TypeError("what came back is not two matrices; end with `return A, B`")
    A, B = map(torch.as_tensor, output)
    return {
        "shape of A": "{} x {}".format(*A.shape),
        "shape of B": "{} x {}".format(*B.shape),
        "A is zero": not A.any().item(),
        "B is zero": not B.any().item(),
        "rank of A": int(torch.linalg.matrix_rank(A)),
    }


def _gradients(scale: Callable = lambda s: s, change: Callable = lambda dA, dB: (dA, dB)) -> Callable:
    """`first_gradients` with another scale, or with something done to its result."""
    return lambda x, g, A, B, s: change(*first_gradients(x, g, A, B, scale(s)))


def _merge(scale: Callable, keep: float = 1) -> Callable:
    """keep W0 + scale B A."""
    return lambda W0, A, B, alpha: keep * W0 + scale(A, B, alpha) * B @ A


def _bands(rows: Callable) -> Callable:
    """The bands of q, zeros and v, put together in another way."""

    def wrong(A_q, B_q, A_v, B_v):
        q, v = B_q @ A_q, B_v @ A_v
        return rows(q, torch.zeros_like(q), v)

    return wrong


def _random_layer(n: int | None = 4, d: int = 3, k: int = 5, r: int = 2) -> list[torch.Tensor]:
    shapes = ((n, k), (d, k), (r, k), (d, r)) if n else ((d, k), (r, k), (d, r))
    return [torch.randn(shape) for shape in shapes]


def _random_gradients() -> tuple:
    x, _, A, B = _random_layer()
    return x, torch.randn(4, 3), A, B, 0.5


EXERCISES = {
    "lora": Exercise(
        reference=lora,
        challenges=(
            Challenge(
                "one row of three numbers, one output, rank 2",
                lambda: (_m((1, 1, 2)), _m((1, 2, 1)), _small_A(), _m((2, 1)), 4),
            ),
            Challenge(
                "the same with B at zero, as at the start",
                lambda: (_m((1, 1, 2)), _m((1, 2, 1)), _small_A(), _m((0, 0)), 4),
            ),
            Challenge("four random rows", lambda: (*_random_layer(), 5)),
        ),
        mistakes={
            "You multiplied by alpha. The scale is alpha / r, and r is the number of rows of A.": _lora(
                lambda A, B, alpha: alpha
            ),
            "You left out the scale alpha / r: your update is right for alpha = r only.": _lora(
                lambda A, B, alpha: 1
            ),
            "You scaled by r / alpha; it is alpha / r, so that a larger alpha means a larger update.": _lora(
                lambda A, B, alpha: len(A) / alpha
            ),
            "You scaled by alpha / sqrt(r). That is rsLoRA (Kalajdzievski, 2023), a later proposal; LoRA's own "
            "scale is alpha / r.": _lora(lambda A, B, alpha: alpha / math.sqrt(len(A))),
            "You divided alpha by the width of the input. r is the short side of A, its number of rows.": _lora(
                lambda A, B, alpha: alpha / A.shape[1]
            ),
            "You divided alpha by the number of outputs. r is the number of columns of B, not of rows.": _lora(
                lambda A, B, alpha: alpha / len(B)
            ),
            "You return the update alone. The frozen layer W0 x goes on working: LoRA adds to it.": _lora(
                frozen=lambda z, s: 0
            ),
            "You scaled the frozen layer too. alpha / r belongs to B A x alone; at the start the network must "
            "be the pretrained one.": _lora(frozen=lambda z, s: s * z),
            "You did not transpose A. Rows of x are inputs, rows of A are outputs: x @ A.T.": (
                lambda x, W0, A, B, alpha: x @ W0.T + alpha / len(A) * (x @ A) @ B.T
            ),
            "You wrote the equation of one column x. Here the inputs are rows: x stands on the left, and each matrix "
            "is transposed, as in x @ W0.T.": lambda x, W0, A, B, alpha: W0 @ x,
            "You divided with //, which drops the fraction: alpha / r.": _lora(
                lambda A, B, alpha: alpha // len(A)
            ),
            "You did not transpose W0. Its shape is (d, k), outputs by inputs, as in nn.Linear: x @ W0.T.": (
                lambda x, W0, A, B, alpha: x @ W0 + alpha / len(A) * (x @ A.T) @ B.T
            ),
            "You sent x through B first. A comes first and makes it short, B makes it long again: B (A x).": (
                lambda x, W0, A, B, alpha: x @ W0.T + alpha / len(A) * (x @ B.T) @ A.T
            ),
        },
        hints=(
            "Rows of x are inputs. Which way does each matrix point, and which one comes first?",
            "x W0^T + (alpha / r) (x A^T) B^T.",
            "r is len(A); the update is alpha / len(A) * (x @ A.T) @ B.T.",
        ),
    ),
    "start": Exercise(
        reference=start,
        challenges=(
            Challenge("d = 3 outputs, k = 4 inputs, rank 2", lambda: (3, 4, 2)),
            Challenge("d = 7, k = 5, rank 3", lambda: (7, 5, 3)),
        ),
        result=_facts,  # random numbers may differ, facts may not
        mistakes={
            "Both of your matrices are zero. Each one's gradient is a product with the other, so none will ever "
            "learn.": lambda d, k, r: (torch.zeros(r, k), torch.zeros(d, r)),
            "Both of your matrices are random, so B A is not zero: training starts from a network that was "
            "disturbed at random.": lambda d, k, r: (torch.randn(r, k), torch.randn(d, r)),
            "Your A is zero and your B random. B A is zero too and it would learn; but LoRA has it the other way "
            "round, and its files and learning rates mean that one.": (
                lambda d, k, r: (torch.zeros(r, k), torch.randn(d, r))
            ),
            "All rows of your A are equal. So are then all columns of B, for ever: the update has rank 1, "
            "whatever r is. Random numbers make them differ.": (
                lambda d, k, r: (torch.ones(r, k), torch.zeros(d, r))
            ),
            "Your A is (d, r) and your B (r, k). One slide of the lecture writes them so, with the product A B; "
            "everywhere else it is B A, with A (r, k) and B (d, r).": (
                lambda d, k, r: (torch.randn(d, r), torch.zeros(r, k))
            ),
            "You return B first: return A, B.": lambda d, k, r: (torch.zeros(d, r), torch.randn(r, k)),
            "Your A has k rows. It takes k numbers and makes r of them, so it is (r, k), like every matrix of "
            "nn.Linear: outputs by inputs.": lambda d, k, r: (torch.randn(k, r), torch.zeros(r, d)),
        },
        hints=(
            "The product has to be zero, and still one of the two has to get a gradient.",
            "A random, of shape (r, k); B zero, of shape (d, r).",
            "torch.randn makes the one, torch.zeros the other; return A, B.",
        ),
    ),
    "first_gradients": Exercise(
        reference=first_gradients,
        challenges=(
            Challenge(
                "one row, one output, rank 2, and B at zero",
                lambda: (_m((1, 2, 1)), _m((3,)), _small_A(), _m((0, 0)), 2),
            ),
            Challenge(
                "the same, later: B has moved", lambda: (_m((1, 2, 1)), _m((3,)), _small_A(), _m((2, 1)), 2)
            ),
            Challenge("four random rows", _random_gradients),
        ),
        mistakes={
            "You left out the scale s: it stands between the loss and both matrices.": _gradients(
                lambda s: 1
            ),
            "You left the scale s out of the gradient of B: it stands between the loss and B too.": (
                lambda x, g, A, B, s: (s * B.T @ g.T @ x, g.T @ (x @ A.T))
            ),
            "You scaled twice. On the way back to A and to B the factor s is met once each.": _gradients(
                lambda s: s * s
            ),
            "Your gradient of B is zero when B is zero. It does not depend on B at all: it is the slope at B, and a "
            "line through zero has a slope.": lambda x, g, A, B, s: (
                s * B.T @ g.T @ x,
                s * g.T @ (x @ A.T) * (B != 0),
            ),
            "You return the gradient of B first: return dA, dB.": _gradients(change=lambda dA, dB: (dB, dA)),
            "Your gradient of A does not pass through B. On its way from z to A it meets B, and there it is zero "
            "at the start.": lambda x, g, A, B, s: (
                s * torch.ones_like(B).T @ g.T @ x,
                s * g.T @ (x @ A.T),
            ),
            "Your gradient of B looks at x. What enters B is A x, r numbers a row.": lambda x, g, A, B, s: (
                s * B.T @ g.T @ x,
                s * g.T @ x,
            ),
            "You averaged over the rows. Every row that went through a matrix adds to its gradient; the mean, if "
            "there is one, is in the loss and so in g.": lambda x, g, A, B, s: tuple(
                d / len(x) for d in first_gradients(x, g, A, B, s)
            ),
            "Your gradients have the wrong sign. A gradient points uphill; the optimizer does the minus.": _gradients(
                lambda s: -s
            ),
            "Your gradients are transposed. Each has the shape of its matrix: dA (r, k), dB (d, r).": _gradients(
                change=lambda dA, dB: (dA.T, dB.T)
            ),
        },
        hints=(
            "Draw x -> A x -> B A x -> times s, and go back. The gradient of a matrix is what came in from behind "
            "times what had gone in.",
            "What went into B is x A^T, and s g came in; what went into A is x, and s g B came in, each (n, ...). The "
            "shapes asked for, (d, r) and (r, k), say which factor to transpose.",
            "dB = s * g.T @ (x @ A.T), and dA = s * (g @ B).T @ x.",
        ),
    ),
    "merge": Exercise(
        reference=merge,
        challenges=(
            Challenge("one output, rank 2", lambda: (_m((1, 2, 0)), _small_A(), _m((2, 1)), 4)),
            Challenge(
                "two outputs, rank 2", lambda: (_m((1, 0, 0), (0, 1, 0)), _small_A(), _m((1, 2), (0, 1)), 4)
            ),
            Challenge("a random layer", lambda: (*_random_layer(n=None), 5)),
        ),
        mistakes={
            "You left out the scale alpha / r. Merged and unmerged, the layer must compute the same.": _merge(
                lambda A, B, alpha: 1
            ),
            "You scaled by alpha. The scale is alpha / r.": _merge(lambda A, B, alpha: alpha),
            "You scaled by r / alpha; it is alpha / r.": _merge(lambda A, B, alpha: len(A) / alpha),
            "You divided alpha by the number of outputs; r is the number of rows of A.": _merge(
                lambda A, B, alpha: alpha / len(B)
            ),
            "You divided alpha by the width of the input; r is the number of rows of A.": _merge(
                lambda A, B, alpha: alpha / A.shape[1]
            ),
            "You subtracted: that is how one would unmerge.": _merge(lambda A, B, alpha: -alpha / len(A)),
            "You return the update alone; the merged matrix is W0 plus it.": _merge(
                lambda A, B, alpha: alpha / len(A), keep=0
            ),
            "You scaled W0 too: alpha / r belongs to the update alone.": (
                lambda W0, A, B, alpha: alpha / len(A) * (W0 + B @ A)
            ),
            "You multiplied A B. The product is B A: (d, r) times (r, k) is (d, k).": (
                lambda W0, A, B, alpha: W0 + alpha / len(A) * A @ B
            ),
            "You changed W0 itself (`+=` works in place). Then the pretrained matrix is lost; return a new one.": (
                _in_place
            ),
        },
        hints=(
            "One matrix that does what both did. What must be added to W0?",
            "W = W0 + (alpha / r) B A, as a new tensor.",
            "B @ A is the update, alpha / len(A) its scale; add, and do not use += .",
        ),
    ),
    "fused": Exercise(
        reference=fused,
        challenges=(
            Challenge(
                "d = 1, k = 3, rank 2",
                lambda: (_small_A(), _m((1, 2)), _m((0, 1, 1), (2, 0, 0)), _m((3, 4))),
            ),
            Challenge(
                "d = 2, k = 3, rank 1",
                lambda: (_m((1, 0, 2)), _m((1,), (2,)), _m((0, 1, 1)), _m((3,), (4,))),
            ),
            Challenge(
                "random, d = 4, k = 6, rank 3",
                lambda: (torch.randn(3, 6), torch.randn(4, 3), torch.randn(3, 6), torch.randn(4, 3)),
            ),
        ),
        mistakes={
            "Your update of v stands in the rows of k. In timm the order is q, k, v: v has the last d rows.": _bands(
                lambda q, zero, v: torch.cat([q, v, zero])
            ),
            "Your k gets q's update. k is not tuned: its rows are zero.": _bands(
                lambda q, zero, v: torch.cat([q, q, v])
            ),
            "You left k's rows out. The fused matrix has 3 d rows, and those of k must be there, as zeros.": _bands(
                lambda q, zero, v: torch.cat([q, v])
            ),
            "You put the bands side by side. q, k and v share the input, k columns; it is the outputs that are "
            "stacked.": _bands(lambda q, zero, v: torch.cat([q, zero, v], 1)),
            "You interleaved the rows: q's first, k's first, v's first, and so on. timm keeps d rows of q together, "
            "then d of k, then d of v.": _bands(
                lambda q, zero, v: torch.stack([q, zero, v], 1).flatten(0, 1)
            ),
            "You exchanged q and v: q has the first d rows.": _bands(
                lambda q, zero, v: torch.cat([v, zero, q])
            ),
            "You used q's A for v too. Each has its own A: what q reads from a token need not be what v reads.": (
                lambda A_q, B_q, A_v, B_v: fused(A_q, B_q, A_q, B_v)
            ),
        },
        hints=(
            "Three bands of d rows, q above k above v. Which one stays as it was?",
            "[B_q A_q; 0; B_v A_v], of shape (3 d, k).",
            "torch.zeros_like gives the middle band, torch.cat stacks three bands along the rows.",
        ),
    ),
}
