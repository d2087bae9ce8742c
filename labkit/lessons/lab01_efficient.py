"""Lab 01: pruning, separable convolutions, adders, few bits and distillation; and the usual mistakes."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from labkit.efficient import adder, distillation, precision, prune
from labkit.lessons.authoring import attached
from labkit.lessons.exercise import Challenge, Exercise


def magnitude_mask(w: torch.Tensor, share: float) -> torch.Tensor:
    return prune.magnitude_mask(w, share)


def separable_macs(M: int, N: int, k: int, H: int, W: int) -> int:
    return (k * k * M + M * N) * H * W


def adder_gradients(
    X: torch.Tensor, filters: torch.Tensor, g: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """dX (L, k) and dF (o, k) of Y = -sum |X - F|, (L, o), for patches X (L, k) and g = dL/dY (L, o)."""
    X, filters = X.clone().requires_grad_(), filters.clone().requires_grad_()
    Y = adder.Adder.apply(X.T[None], filters, None)  # (1, o, L)
    return torch.autograd.grad(Y, (X, filters), g.T[None])


def fake_quantize(w: torch.Tensor, bits: int) -> torch.Tensor:
    return precision.fake_quantize(w, bits, per_row=True)


def kd_loss(z: torch.Tensor, v: torch.Tensor, T: float) -> torch.Tensor:
    return distillation.kd_loss(z, v, T)


def _mask(keep: Callable) -> Callable:
    """A mask that is another comparison: keep(w, its sorted magnitudes, how many go, share)."""
    return lambda w, share: keep(w, w.abs().flatten().sort().values, round(share * w.numel()), share)


def _by_threshold(w, magnitudes, n, share):
    return w.abs() >= magnitudes[n] if n < len(magnitudes) else w.abs() > magnitudes[-1]


def _count_differs(answer, output, w, share):
    removed, wanted = int((~output).sum()), round(share * w.numel())
    return None if removed == wanted else f"{removed} of {w.numel()} weights go, and {wanted} should"


# Adders


def _adder(dX: Callable, dF: Callable) -> Callable:
    """Other derivatives in place of clip(F - X) and X - F; they see the differences F - X, (L, o, k)."""

    def wrong(X, filters, g):
        away = filters - X[:, None]
        return (g[..., None] * dX(away)).sum(1), (g[..., None] * dF(away)).sum(0)

    return wrong


def _clip(t: torch.Tensor) -> torch.Tensor:
    return t.clamp(-1, 1)


def _leaf(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32, requires_grad=True)


def _with_gradient(output: torch.Tensor, w: torch.Tensor, bits: int) -> dict[str, torch.Tensor]:
    graph = attached(output, fake_quantize, w, bits)
    return {"w-hat": output.detach(), "gradient of its sum": _gradient(graph.sum(), w)}


def _gradient(value: torch.Tensor, leaf: torch.Tensor) -> torch.Tensor:
    """Zeros where none arrives."""
    if not value.requires_grad:
        return torch.zeros_like(leaf)
    found = torch.autograd.grad(value, leaf, retain_graph=True, allow_unused=True)[0]
    return torch.zeros_like(leaf) if found is None else found


def _quantize(
    Q: Callable = lambda bits: 2 ** (bits - 1) - 1,
    largest: Callable = lambda w: w.abs().amax(1, keepdim=True),
    rounding: Callable = torch.round,
    result: Callable = lambda w, s, q: w + (s * q - w).detach(),
    guard: bool = True,
) -> Callable:
    """`fake_quantize` with one part exchanged."""

    def wrong(w, bits):
        s = largest(w).detach() / Q(bits)
        s = torch.where(s > 0, s, 1.0) if guard else s
        return result(w, s, rounding(w / s))

    return wrong


# Distillation


def _with_gradients(output: torch.Tensor, z: torch.Tensor, v: torch.Tensor, T: float) -> dict:
    graph = attached(output, kd_loss, z, v, T)
    gradients = {"gradient for the student": _gradient(graph, z), "for the teacher": _gradient(graph, v)}
    return {"loss": output.detach()} | gradients


def _kd(
    factor: Callable = lambda T: T**2,
    student: Callable = lambda z, T: F.log_softmax(z / T, 1),
    teacher: Callable = lambda v, T: F.softmax(v.detach() / T, 1),
    mean: Callable = lambda kl: kl.sum(1).mean(),
) -> Callable:
    """`kd_loss` with one part exchanged."""

    def wrong(z, v, T):
        p, log_q = teacher(v, T), student(z, T)
        return factor(T) * mean(p * (p.log() - log_q))

    return wrong


def _swapped(z, v, T):
    q, log_p = F.softmax(z / T, 1), F.log_softmax(v.detach() / T, 1)
    return T**2 * (q * (q.log() - log_p)).sum(1).mean()


def _cross_entropy(z, v, T):
    return -(T**2) * (F.softmax(v.detach() / T, 1) * F.log_softmax(z / T, 1)).sum(1).mean()


def _two_pixels() -> tuple:
    """Logits of three classes at two pixels, (1, 3, 1, 2)."""
    z = torch.tensor([[1.0, 2, 3], [0, 1, 0]]).T[None, :, None].clone().requires_grad_()
    v = torch.tensor([[3.0, 1, 0], [0, 2, 1]]).T[None, :, None].clone().requires_grad_()
    return z, v, 2.0


EXERCISES = {
    "magnitude_mask": Exercise(
        reference=magnitude_mask,
        challenges=(
            Challenge(
                "six weights, two thirds go", lambda: (torch.tensor([-3, 1, 2.2, -0.5, 2.5, 0.1]), 2 / 3)
            ),
            Challenge("a matrix of equal weights, three of ten go", lambda: (torch.ones(2, 5), 0.3)),
            Challenge("a random matrix, half goes", lambda: (torch.randn(4, 7), 0.5)),
        ),
        properties={"removes as many as asked for": _count_differs},
        # of equal weights any may go: only how many is asked
        result=lambda output, w, share: output if len(w.abs().unique()) > 1 else int((~output).sum()),
        mistakes={
            "You compared w itself. A large negative weight matters as much as a large positive one: sort |w|.": (
                lambda w, share: w >= w.flatten().sort().values[round(share * w.numel())]
            ),
            "Your mask is the other way round: True is for what stays, the weights of large magnitude.": (
                lambda w, share: ~magnitude_mask(w, share)
            ),
            "You removed a share of the range: all below share times the largest |w|. The share is of the number "
            "of weights.": _mask(lambda w, m, n, share: w.abs() >= share * m[-1]),
            "You compared with a threshold, and where weights are equal none or all of them go. Count instead: "
            "sort, and take the first n.": _mask(_by_threshold),
            "You took the share for what stays. It is what goes.": (
                lambda w, share: magnitude_mask(w, 1 - share)
            ),
            "You returned the pruned weights. What is asked for is the mask, True and False in the shape of w.": (
                lambda w, share: w * magnitude_mask(w, share)
            ),
        },
        hints=(
            "Put the weights in order of magnitude. How many of them go, and which?",
            "n = round(share numel); the n places that come first in the order of |w| become False.",
            "order = w.abs().flatten().argsort(); keep = torch.ones(w.numel(), dtype=torch.bool); "
            "keep[order[:n]] = False; return keep.view(w.shape).",
        ),
    ),
    "separable_macs": Exercise(
        reference=separable_macs,
        challenges=(
            Challenge("4 to 8 channels, 3 x 3, on 5 x 6 places", lambda: (4, 8, 3, 5, 6)),
            Challenge("3 to 2 channels, 5 x 5, on 7 x 4 places", lambda: (3, 2, 5, 7, 4)),
            Challenge(
                "random sizes",
                lambda: tuple(
                    torch.randint(*ends, ()).item() for ends in ((6, 20), (21, 40), (2, 8), (8, 20), (21, 30))
                ),
            ),
        ),
        mistakes={
            "That is the ordinary convolution: k x k for every pair of channels. The depthwise part has one kernel "
            "for each input channel, and mixes none.": lambda M, N, k, H, W: k * k * M * N * H * W,
            "You counted parameters. Each is used once at every place: times H W.": (
                lambda M, N, k, H, W: k * k * M + M * N
            ),
            "Your depthwise part has one kernel for each output channel. It works on the M input channels, before "
            "there are N.": lambda M, N, k, H, W: (k * k * N + M * N) * H * W,
            "Your kernel has k weights. It is k x k.": lambda M, N, k, H, W: (k * M + M * N) * H * W,
            "You counted a multiply-add as two. So do FLOPs; a MAC is one.": (
                lambda M, N, k, H, W: 2 * (k * k * M + M * N) * H * W
            ),
        },
        hints=(
            "Two layers, one after the other. What does each compute at one place?",
            "Depthwise: k k M at every place. Pointwise: M N at every place.",
            "(k * k * M + M * N) * H * W.",
        ),
    ),
    "adder_gradients": Exercise(
        reference=adder_gradients,
        challenges=(
            Challenge(
                "one patch of two numbers, one filter",
                lambda: (torch.tensor([[2.0, 0.7]]), torch.tensor([[0.5, 1.0]]), torch.tensor([[2.0]])),
            ),
            Challenge(
                "two patches of three numbers, one filter",
                lambda: (
                    torch.tensor([[2.0, 0.0, 0.25], [1.0, -1.5, 0.5]]),
                    torch.tensor([[0.5, 0.5, 0.0]]),
                    torch.tensor([[2.0], [-1.0]]),
                ),
            ),
            Challenge(
                "random: four patches, two filters",
                lambda: (2 * torch.randn(4, 3), torch.randn(2, 3), torch.randn(4, 2)),
            ),
        ),
        mistakes={
            "You used the true derivative, the sign, for the filters. Then a filter that is far off learns no faster "
            "than one that is nearly right; AdderNet puts X - F there.": _adder(_clip, lambda d: (-d).sign()),
            "You clipped the filters' gradient. X - F stays in full; it is dX that is clipped, because it "
            "is passed on and would grow from layer to layer.": _adder(_clip, lambda d: _clip(-d)),
            "Your dX has the filters' sign. If X grows beyond F, Y falls: dX is clip(F - X).": _adder(
                lambda d: _clip(-d), lambda d: -d
            ),
            "Your dF has the wrong sign. Y is largest when the filter is like the patch, so F moves towards X: "
            "X - F.": _adder(_clip, lambda d: d),
            "You left out g, what comes in from behind: each pair of patch and filter counts times its g.": (
                lambda X, filters, g: adder_gradients(X, filters, torch.ones_like(g))
            ),
            "You averaged over the patches. Every patch that a filter met adds to its gradient.": (
                lambda X, filters, g: (
                    adder_gradients(X, filters, g)[0],
                    adder_gradients(X, filters, g)[1] / len(X),
                )
            ),
        },
        hints=(
            "For one patch and one filter write down what stands in place of dY/dX and of dY/dF. Then sum: dX over "
            "filters, dF over patches, each times g.",
            "away = F - X for every pair, (L, o, k). dX = sum over o of g clip(away, -1, 1); dF = sum over L of "
            "g times -away.",
            "away = filters - X[:, None]; dX = (g[..., None] * away.clamp(-1, 1)).sum(1); "
            "dF = (g[..., None] * -away).sum(0).",
        ),
    ),
    "fake_quantize": Exercise(
        reference=fake_quantize,
        challenges=(
            Challenge("one row, 3 bits", lambda: (_leaf((-1, -0.3, 0.2, 1)), 3)),
            Challenge(
                "three rows of unlike size, one of zeros, 4 bits",
                lambda: (_leaf((-7, 3.4, 2.6), (0.7, 0.11, -0.36), (0, 0, 0)), 4),
            ),
            Challenge("random, 8 bits", lambda: (torch.randn(3, 5, requires_grad=True), 8)),
        ),
        result=_with_gradient,
        mistakes={
            "Your largest code is 2^(b-1). Codes run from -Q to Q with Q = 2^(b-1) - 1, or the largest does not fit "
            "into b bits.": _quantize(lambda bits: 2 ** (bits - 1)),
            "Your largest code is 2^b - 1. One bit is for the sign: Q = 2^(b-1) - 1.": _quantize(
                lambda bits: 2**bits - 1
            ),
            "You cut the digits off. Round to the nearest code, or every weight shrinks.": _quantize(
                rounding=torch.trunc
            ),
            "Your gradient is zero: rounding is flat nearly everywhere. Pass it straight through: "
            "w + (w_hat - w).detach().": _quantize(result=lambda w, s, q: s * q),
            "You return the codes. Multiply by s, so that the layer computes with numbers of the old size.": (
                _quantize(result=lambda w, s, q: w + (q - w).detach())
            ),
            "You have one scale for the whole matrix. Each row, one output, has its own: a row of small weights "
            "would be rounded to zero.": _quantize(largest=lambda w: w.abs().amax().view(1, 1)),
            "Your scales belong to the columns, the inputs. Rows are the outputs: amax over dim 1.": _quantize(
                largest=lambda w: w.abs().amax(0, keepdim=True)
            ),
            "You took the largest w, not the largest |w|: a row's largest weight can be negative.": _quantize(
                largest=lambda w: w.amax(1, keepdim=True)
            ),
            "A row of zeros became NaN: its scale is 0, and you divided by it. Use 1 there.": _quantize(
                guard=False
            ),
        },
        hints=(
            "How many codes are there with b bits, and which weight gets the largest one?",
            "Q = 2^(b-1) - 1, s = max |w| of the row / Q, w_hat = s round(w / s), and w + (w_hat - w).detach() for "
            "the gradient.",
            "s = w.detach().abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1); s = torch.where(s > 0, s, 1.0); "
            "w_hat = s * (w / s).round().",
        ),
    ),
    "kd_loss": Exercise(
        reference=kd_loss,
        challenges=(
            Challenge("three classes at two pixels, T = 2", _two_pixels),
            Challenge(
                "random: two slices of 3 x 2 pixels, four classes, T = 4",
                lambda: (*((3 * torch.randn(2, 4, 3, 2)).requires_grad_() for _ in "zv"), 4.0),
            ),
        ),
        result=_with_gradients,
        mistakes={
            "You left out T^2. Then the gradient falls as 1 / T^2, and a higher temperature turns the teacher off.": _kd(
                factor=lambda T: 1
            ),
            "You exchanged teacher and student: KL(teacher || student) has the teacher's probabilities in front.": (
                _swapped
            ),
            "You softened the student only. Both are divided by T, or the student is asked to be surer than the "
            "teacher.": _kd(teacher=lambda v, T: F.softmax(v.detach(), 1)),
            "You gave probabilities where logarithms belong: KL needs log_softmax of the student.": _kd(
                student=lambda z, T: F.softmax(z / T, 1)
            ),
            "You averaged over the batch only, as reduction='batchmean' does. In a segmentation each pixel is an "
            "example.": _kd(mean=lambda kl: kl.sum() / len(kl)),
            "You averaged over classes too, as reduction='mean' does. KL sums over classes; the mean is over slices "
            "and pixels.": _kd(mean=lambda kl: kl.mean()),
            "Your loss is the soft cross-entropy. It is larger than KL by the teacher's entropy, so it is not 0 for a "
            "perfect student.": _cross_entropy,
            "Your loss reaches the teacher: it has a gradient, and would learn to be easy to copy. Detach v.": _kd(
                teacher=lambda v, T: F.softmax(v / T, 1)
            ),
        },
        hints=(
            "Soften both with T, compare them at each pixel, average over slices and pixels.",
            "T^2 mean over pixels of sum over classes of p (log p - log q), p = softmax(v / T), q = softmax(z / T).",
            "log_p = F.log_softmax(v.detach() / T, 1), log_q = F.log_softmax(z / T, 1); "
            "T**2 * (log_p.exp() * (log_p - log_q)).sum(1).mean().",
        ),
    ),
}
