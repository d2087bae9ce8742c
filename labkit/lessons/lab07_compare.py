"""Lab 07: how methods are compared: patients in pairs, several aims, memory, formats, averages; and how each
is usually got wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from labkit.lessons.exercise import Challenge, Exercise

Points = Sequence[tuple[float, float]]


def paired(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Mean of a - b over patients, and half the width of its 95 % interval by the normal quantile."""
    d = a - b
    return float(d.mean()), float(1.96 * d.std(ddof=1) / math.sqrt(len(d)))


def pareto(points: Points) -> list[int]:
    """The points (cost, score) that no other beats: none is as cheap, as good, and better in one of them."""
    return _front(lambda p, q: q[0] <= p[0] and q[1] >= p[1] and q != p)(points)


def kept(n: int, widths: Sequence[int], learns: Sequence[bool], input_learns: bool) -> int:
    """Numbers that linear, GELU, linear, ..., linear keep for the backward pass of n tokens.

    widths: w0 in front of the first linear layer, w1 behind it, and so on; learns: one for each layer.
    """
    total, flows = 0, input_learns
    for i, layer_learns in enumerate(learns):
        total += n * widths[i] * layer_learns  # dW needs the layer's input
        flows = flows or layer_learns
        total += n * widths[i + 1] * (flows and i + 1 < len(learns))  # GELU' needs GELU's input
    return total


def as_peft(
    A_q: torch.Tensor, B_q: torch.Tensor, A_v: torch.Tensor, B_v: torch.Tensor, alpha: float
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """LoRA on q and v as one LoRA on the fused qkv: A (2r, k), B (3d, 2r) and its alpha."""
    zero = torch.zeros_like(B_q)
    rows = [torch.cat(row, 1) for row in ((B_q, zero), (zero, zero), (zero, B_v))]
    return torch.cat([A_q, A_v]), torch.cat(rows), 2 * alpha


def vtab_average(means: Sequence[float], sizes: Sequence[int]) -> tuple[float, float]:
    """The mean over all tasks and the mean over the groups, from each group's mean and number of tasks."""
    over_tasks = sum(mean * size for mean, size in zip(means, sizes, strict=True)) / sum(sizes)
    return over_tasks, sum(means) / len(means)


# Pairs


def _half(width: Callable[[np.ndarray, np.ndarray], float]) -> Callable:
    """`paired` with another half width, computed from a and b."""
    return lambda a, b: (float((a - b).mean()), float(width(a, b)))


def _t(n: int) -> float:
    from scipy.stats import t

    return float(t.ppf(0.975, n - 1))


def _four_patients() -> tuple:
    return np.array([0.80, 0.60, 0.90, 0.70]), np.array([0.78, 0.56, 0.88, 0.62])


def _nine_patients() -> tuple:
    hard = np.random.rand(9)
    return hard + 0.1 * np.random.rand(9), hard


# Fronts


def _front(beats: Callable[[tuple, tuple], bool]) -> Callable:
    """The indices of the points p that no other point q beats."""

    def front(points: Points) -> list[int]:
        others = [[q for j, q in enumerate(points) if j != i] for i in range(len(points))]
        return [i for i, p in enumerate(points) if not any(beats(p, q) for q in others[i])]

    return front


def _winner(value: Callable[[tuple], tuple | float]) -> Callable:
    return lambda points: [max(range(len(points)), key=lambda i: value(points[i]))]


def _five_points() -> tuple:
    return ([(1, 0.5), (2, 0.4), (3, 0.9), (3, 0.7), (5, 0.9)],)


def _random_points() -> tuple:
    return ([(float(x), float(y)) for x, y in np.random.randint(0, 8, (20, 2))],)


# Memory


def _keeping(
    weight: Callable = lambda learns, flows: learns,
    gelu: Callable = lambda flows, above: flows,
    size: int = 0,
    from_input: bool = True,
    last: int = 1,
) -> Callable:
    """`kept` where a layer keeps its input (or, size 1, its output) or a GELU its input by other rules."""

    def wrong(n, widths, learns, input_learns):
        total, flows = 0, input_learns and from_input
        for i, own in enumerate(learns):
            total += n * widths[i + size] * weight(own, flows)
            flows = flows or own
            total += n * widths[i + 1] * (gelu(flows, any(learns[i + 1 :])) and i + last < len(learns))
        return int(total)

    return wrong


def _chain(text: str, learns: tuple[bool, ...], input_learns: bool = False, widths=(10, 20, 30)) -> Challenge:
    return Challenge(text, lambda: (100, widths, learns, input_learns))


# Formats


def _converted(
    A: Callable = lambda q, v: torch.cat([q, v]),
    B: Callable | None = None,
    alpha: Callable = lambda alpha: 2 * alpha,
) -> Callable:
    """`as_peft` with another A, another B, or another alpha."""

    def wrong(A_q, B_q, A_v, B_v, given):
        found = as_peft(A_q, B_q, A_v, B_v, given)[1] if B is None else _rows(B(B_q, B_v, 0 * B_q))
        return A(A_q, A_v), found, alpha(given)

    return wrong


def _rows(rows: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
    return torch.cat([torch.cat(tuple(row), 1) for row in rows])


def _small_lora() -> tuple:
    A_q, A_v = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[3.0, 4.0, 6.0]])
    return A_q, torch.tensor([[5.0], [8.0]]), A_v, torch.tensor([[7.0], [9.0]]), 1.0


def _random_lora() -> tuple:
    d, k, r = 4, 5, 3
    return torch.randn(r, k), torch.randn(d, r), torch.randn(r, k), torch.randn(d, r), 6.0


# Averages


def _weighted(weights: Callable[[Sequence[int]], Sequence[float]]) -> Callable:
    """`vtab_average` whose first mean has other weights."""

    def wrong(means, sizes):
        w = weights(sizes)
        return sum(m * x for m, x in zip(means, w, strict=True)) / sum(w), sum(means) / len(means)

    return wrong


EXERCISES = {
    "paired": Exercise(
        reference=paired,
        challenges=(
            Challenge("four patients, two methods", _four_patients),
            Challenge("nine random patients", _nine_patients),
        ),
        mistakes={
            "You treated the two methods as if each had patients of its own. Then the interval is as wide as "
            "patients are different, and a difference that every single patient shows is hidden.": _half(
                lambda a, b: 1.96 * math.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
            ),
            "You left out the square root of n. That is how far single patients lie from the mean; the mean "
            "itself is known better, the more patients there are.": _half(
                lambda a, b: 1.96 * (a - b).std(ddof=1)
            ),
            "You divided by n instead of its square root. The interval would shrink far too fast with more "
            "patients.": _half(lambda a, b: 1.96 * (a - b).std(ddof=1) / len(a)),
            "You divided the squares by n where n - 1 is asked for (NumPy's default, ddof=0). The mean was "
            "fitted to the same patients, so the spread around it comes out too small.": _half(
                lambda a, b: 1.96 * (a - b).std() / math.sqrt(len(a))
            ),
            "You returned the standard error. An interval of 95 % reaches 1.96 of them to either side.": _half(
                lambda a, b: (a - b).std(ddof=1) / math.sqrt(len(a))
            ),
            "You returned the whole width of the interval; half of it goes to either side.": _half(
                lambda a, b: 2 * 1.96 * (a - b).std(ddof=1) / math.sqrt(len(a))
            ),
            "You used Student's quantile instead of 1.96. With few patients that is the better interval, and "
            "the text says more; here 1.96 is asked for, so that all numbers are made alike.": _half(
                lambda a, b: _t(len(a)) * (a - b).std(ddof=1) / math.sqrt(len(a))
            ),
            "You subtracted a from b. Then a method that is better has a negative difference.": lambda a, b: (
                paired(b, a)
            ),
        },
        hints=(
            "What varies here: the patients, or the difference between the two methods on one patient?",
            "d = a - b for each patient; then mean(d), and 1.96 sd(d) / sqrt(n).",
            "`d.std(ddof=1)` divides by n - 1. Return two plain numbers: `float(...)`.",
        ),
    ),
    "pareto": Exercise(
        reference=pareto,
        challenges=(
            Challenge("five methods, two of equal cost and two of equal score", _five_points),
            Challenge("twins", lambda: ([(1, 0.5), (1, 0.5)],)),
            Challenge("twenty random points with many ties", _random_points),
        ),
        mistakes={
            "You kept the best score only. A method that costs a tenth and scores a little less is not beaten "
            "by it: who has little memory would choose it.": _winner(lambda p: (p[1], -p[0])),
            "You asked the other point to be strictly cheaper and strictly better. A method of the same cost "
            "that scores more beats one, too.": _front(lambda p, q: q[0] < p[0] and q[1] > p[1]),
            "You let the worse score win: high Dice is good, high cost is not.": _front(
                lambda p, q: q[0] <= p[0] and q[1] <= p[1] and q != p
            ),
            "You let the dearer method win: low cost is good.": _front(
                lambda p, q: q[0] >= p[0] and q[1] >= p[1] and q != p
            ),
            "Two equal points beat each other in yours, and both are gone. To beat means to be better in at "
            "least one of the two.": _front(lambda p, q: q[0] <= p[0] and q[1] >= p[1]),
            "You let a point go as soon as another is better in one of the two. Nearly everything is beaten "
            "in something; to be dominated, it must be beaten in one and not be ahead in the other.": _front(
                lambda p, q: q[0] < p[0] or q[1] > p[1]
            ),
            "You divided score by cost. That ranks everything in one line again, and a network that costs "
            "next to nothing wins whatever it scores.": _winner(lambda p: p[1] / max(p[0], 1e-9)),
        },
        hints=(
            "When would you never choose a method? When another one is at least as good in everything.",
            "q beats p if q costs no more, scores no less, and is strictly better in one of the two.",
            "Two conditions with <= and >=, and a third that q and p are not equal: `q != p`.",
        ),
    ),
    "kept": Exercise(
        reference=kept,
        challenges=(
            _chain("both layers learn", (True, True)),
            _chain("the second alone learns", (False, True)),
            _chain("the first alone learns", (True, False)),
            _chain("nothing learns but prompts in front", (False, False), True),
            _chain("four layers, the second learns", (False, True, False, False), False, (7, 11, 13, 17, 19)),
            _chain("four layers behind prompts", (False, True, False, True), True, (7, 11, 13, 17, 19)),
        ),
        mistakes={
            "You let everything be kept always. A weight that does not learn needs no gradient, so its input "
            "can be forgotten.": _keeping(lambda own, flows: True, lambda flows, above: True),
            "You forgot GELU. Its slope depends on what went in, so it keeps its input as soon as a gradient "
            "passes.": _keeping(gelu=lambda flows, above: False),
            "You let a frozen layer keep its input because a gradient passes. Backwards it only multiplies by "
            "its weights, and these are there anyway.": _keeping(lambda own, flows: own or flows),
            "You let GELU keep its input always. Where nothing in front of it learns, no gradient ever comes "
            "that far down.": _keeping(gelu=lambda flows, above: True),
            "You let GELU keep its input when a layer *above* it learns. The gradient comes from above and "
            "stops at the lowest thing that learns: what counts is whether anything in front learns.": _keeping(
                gelu=lambda flows, above: above
            ),
            "You let a learning weight keep its output. Its gradient is the product of what comes from above "
            "with the layer's *input*.": _keeping(size=1),
            "You ignored input_learns. Prompts in front of a frozen network learn, so a gradient has to pass "
            "through all of it.": _keeping(from_input=False),
            "You put a GELU behind the last layer as well; the chain ends with a linear layer.": _keeping(
                last=0
            ),
        },
        hints=(
            "What does each derivative need? dW needs the layer's input, dx needs W, GELU' needs GELU's input.",
            "Walk from the input to the output with a flag: does anything in front of this place learn?",
            "For each layer: if it learns, add n * widths[i] and set the flag; then, unless it was the last, "
            "add n * widths[i + 1] for the GELU if the flag is set.",
        ),
    ),
    "as_peft": Exercise(
        reference=as_peft,
        challenges=(
            Challenge("rank 1, three numbers in, two out", _small_lora),
            Challenge("random LoRA of rank 3, five numbers in, four out", _random_lora),
        ),
        mistakes={
            "You kept alpha. The rank has doubled, and LoRA divides by it: half of the update would be "
            "gone.": _converted(alpha=lambda alpha: alpha),
            "You halved alpha. The scale is alpha / r and r has doubled, so alpha must double to leave it as "
            "it is.": _converted(alpha=lambda alpha: alpha / 2),
            "You left out the zeros: B's rows for q also read A_v, and those for v read A_q. Each row must see "
            "its own half of the ranks.": _converted(B=lambda q, v, zero: ((q, v), (zero, zero), (q, v))),
            "You lost the rows of k. qkv has three bands of d rows; the one in the middle must be there, all "
            "zeros.": _converted(B=lambda q, zero_v, zero: ((q, zero), (zero, zero_v))),
            "You put v's rows where k's are. The order in the fused matrix is q, k, v.": _converted(
                B=lambda q, v, zero: ((q, zero), (zero, v), (zero, zero))
            ),
            "You added A_q and A_v. Then q and v would share what they read; two different A need twice the "
            "rank.": _converted(A=lambda q, v: q + v),
            "You stacked A_v first and B_q's columns first: q would read what was learned for v.": _converted(
                A=lambda q, v: torch.cat([v, q])
            ),
        },
        hints=(
            "One update for a matrix with three bands of rows. How many ranks does it need, and which band "
            "reads which of them?",
            "A is A_q over A_v. B is [[B_q, 0], [0, 0], [0, B_v]]. alpha / r must stay as it was.",
            "`zero = torch.zeros_like(B_q)`; `torch.cat([B_q, zero], 1)` is the band of q; stack three bands.",
        ),
    ),
    "vtab_average": Exercise(
        reference=vtab_average,
        challenges=(
            Challenge("three groups of 1, 1 and 2 tasks", lambda: ([80.0, 60.0, 50.0], [1, 1, 2])),
            Challenge("groups of 7, 4 and 8 tasks", lambda: ([71.5, 84.25, 33.0], [7, 4, 8])),
        ),
        mistakes={
            "You returned the two means in the other order: first the one over tasks.": lambda means, sizes: (
                vtab_average(means, sizes)[::-1]
            ),
            "You returned the mean over groups twice. A group of eight tasks and one of four are not the same "
            "number of tasks.": _weighted(lambda sizes: [1] * len(sizes)),
            "You weighted by the number of tasks and then divided by the number of groups. The result of a "
            "weighted mean is divided by the sum of the weights.": lambda means, sizes: (
                sum(m * s for m, s in zip(means, sizes, strict=True)) / len(means),
                sum(means) / len(means),
            ),
            "You divided each group by its size although its mean was already taken: large groups would count "
            "least.": _weighted(lambda sizes: [1 / size for size in sizes]),
            "You averaged over tasks for both numbers. The second one gives every group the same "
            "weight.": lambda means, sizes: (vtab_average(means, sizes)[0],) * 2,
        },
        hints=(
            "A mean over tasks needs the sum over all tasks. What is the sum over one group, if you know its "
            "mean and its size?",
            "Over tasks: sum of mean times size, over the sum of the sizes. Over groups: sum of means, over "
            "their number.",
            "`sum(m * s for m, s in zip(means, sizes)) / sum(sizes)`, and `sum(means) / len(means)`.",
        ),
    ),
}
