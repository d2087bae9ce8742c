"""Lab 03: attention that sees more, prompts before a block, the prefix they become, what each one costs."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from labkit.lessons.exercise import Challenge, Exercise


def attend(
    q: torch.Tensor, K: torch.Tensor, V: torch.Tensor, P_k: torch.Tensor, P_v: torch.Tensor
) -> torch.Tensor:
    """One head: queries (M, d), keys (N, d), values (N, d_v), and n more of both -> (M, d_v)."""
    return F.scaled_dot_product_attention(q, torch.cat([P_k, K]), torch.cat([P_v, V]))


def prompted(block: Callable, x: torch.Tensor, P: torch.Tensor) -> torch.Tensor:
    """Tokens (B, N, d) and prompts (n, d) -> the tokens (B, N, d) that a block makes beside the prompts."""
    return block(torch.cat([P.expand(len(x), -1, -1), x], 1))[:, len(P) :]


def as_prefix(
    P: torch.Tensor, norm: Callable, W: torch.Tensor, b: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts (n, d) -> the keys and the values that they become, (n, d) each; W (3d, d), b (3d)."""
    _, keys, values = F.linear(norm(P), W, b).chunk(3, -1)
    return keys, values


def prompt_counts(n: int, d: int, L: int, mid: int) -> dict[str, int]:
    """Numbers that learn with n prompts of width d in L blocks; `mid`: hidden units of the prefix's MLP."""
    trained = n * d + (d + 1) * mid + (mid + 1) * 2 * L * d
    return {"shallow": n * d, "deep": L * n * d, "trained": trained, "kept": 2 * L * n * d}


class AddMean(nn.Module):
    """The smallest block in which every token sees all others."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + x.mean(1, keepdim=True)

    def __repr__(self) -> str:
        return "a block that adds the mean of all tokens to each"


class Twice(nn.Module):
    """The smallest thing that can stand for a norm."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    def __repr__(self) -> str:
        return "a norm that doubles"


def _attention(
    keys: Callable = lambda K, P: torch.cat([P, K]),
    values: Callable = lambda V, P: torch.cat([P, V]),
    scale: Callable = math.sqrt,
    over: int = -1,
) -> Callable:
    """`attend` with other keys, values or scale, or with a softmax over another axis."""

    def wrong(q, K, V, P_k, P_v):
        logits = q @ keys(K, P_k).T / scale(q.shape[-1])
        return logits.softmax(over) @ values(V, P_v)

    return wrong


def _old(X, P):
    return X


def _behind(X, P):
    return torch.cat([X, P])


def _alone(X, P):
    return P


def _both(weigh: Callable) -> Callable:
    """Attention to the tokens and attention to the prefix, each with a softmax of its own."""
    tokens, prefix = _attention(_old, _old), _attention(_alone, _alone)
    return lambda *inputs: weigh(tokens(*inputs), prefix(*inputs))


def _head(n: int, tokens: int, d: int, d_v: int) -> tuple[torch.Tensor, ...]:
    shapes = ((3, d), (tokens, d), (tokens, d_v), (n, d), (n, d_v))
    return tuple(torch.randn(shape) for shape in shapes)


def _joined(x: torch.Tensor, P: torch.Tensor, axis: int = 1) -> torch.Tensor:
    return torch.cat([P.expand(len(x), -1, -1), x], axis)


def _tokens(batch: int, N: int, n: int, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(batch, N, d), torch.randn(n, d)


def _transformer_block(d: int) -> nn.Module:
    return nn.TransformerEncoderLayer(d, nhead=2, dim_feedforward=5, batch_first=True, norm_first=True).eval()


def _thirds(
    first: int = 1,
    second: int = 2,
    norm: bool = True,
    bias: bool = True,
    cut: Callable = lambda qkv: qkv.chunk(3, -1),
) -> Callable:
    """`as_prefix` with other thirds, a part left out, or thirds cut another way."""

    def wrong(P, norm1, W, b):
        qkv = cut(F.linear(norm1(P) if norm else P, W, b if bias else None))
        return qkv[first], qkv[second]

    return wrong


def _projection(n: int, d: int) -> tuple:
    norm = nn.LayerNorm(d)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return torch.randn(n, d), norm, torch.randn(3 * d, d), torch.randn(3 * d)


def _counted(**others: Callable) -> Callable:
    """`prompt_counts` with other formulas for some of its names."""

    def wrong(n, d, L, mid):
        return prompt_counts(n, d, L, mid) | {name: of(n, d, L, mid) for name, of in others.items()}

    return wrong


EXERCISES = {
    "attend": Exercise(
        reference=attend,
        challenges=(
            Challenge(
                "one query, two tokens, one prompt, d = 1",
                lambda: tuple(
                    torch.tensor(rows)
                    for rows in ([[1.0]], [[0.0], [math.log(2)]], [[4.0], [10.0]], [[0.0]], [[2.0]])
                ),
            ),
            Challenge(
                "the same with d = 4, where the scale counts",
                lambda: (
                    torch.tensor([[2.0, 0, 0, 0]]),
                    torch.zeros(1, 4),
                    torch.tensor([[8.0]]),
                    torch.tensor([[math.log(3), 0, 0, 0]]),
                    torch.tensor([[0.0]]),
                ),
            ),
            Challenge("random numbers, two prompts", lambda: _head(n=2, tokens=5, d=4, d_v=2)),
        ),
        mistakes={
            "You took two softmaxes, one over the tokens and one over the prompts, and added the results. Each "
            "sums to 1, so nobody shares. There is one softmax, over all keys.": _both(torch.add),
            "You averaged the attention to the tokens and that to the prompts: half and half, whatever the "
            "logits say. One softmax over all keys decides how much a prompt gets.": _both(
                lambda tokens, prefix: (tokens + prefix) / 2
            ),
            "Your result does not depend on the prompts: keys and values are still the old ones.": _attention(
                _old, _old
            ),
            "Your result depends on the prompts alone; the tokens must stay among keys and values.": _attention(
                _alone, _alone
            ),
            "You exchanged P_k and P_v: what a prompt is found by is its key, what it gives is its value.": (
                lambda q, K, V, P_k, P_v: attend(q, K, V, P_v, P_k)
            ),
            "You put prompts in front of the keys but behind the values, so every key fetches another one's "
            "value. The order does not matter, but it must be the same.": _attention(values=_behind),
            "Your prompts also ask: you put them among the queries, so there are rows too many. A prefix is "
            "seen and does not see.": lambda q, K, V, P_k, P_v: attend(torch.cat([P_k, q]), K, V, P_k, P_v),
            "The logits are not divided by sqrt(d): the softmax is too sharp.": _attention(scale=lambda d: 1),
            "You divided the logits by d; it is sqrt(d).": _attention(scale=lambda d: d),
            "Your softmax runs over the queries. Each query shares its attention among all keys: over the "
            "last axis.": _attention(over=0),
        },
        hints=(
            "How many keys does each query see now? Everything else is attention as you know it.",
            "softmax(q [P_k; K]^T / sqrt(d)) [P_v; V], where [;] puts rows on top of each other.",
            "K, V = torch.cat([P_k, K]), torch.cat([P_v, V]), then (q @ K.T / q.shape[1] ** 0.5).softmax(-1) @ V",
        ),
    ),
    "prompted": Exercise(
        reference=prompted,
        challenges=(
            Challenge(
                "two tokens, one prompt",
                lambda: (AddMean(), torch.tensor([[[1.0], [3.0]]]), torch.tensor([[5.0]])),
            ),
            Challenge(
                "two images of three tokens, two prompts",
                lambda: (AddMean(), *_tokens(batch=2, N=3, n=2, d=2)),
            ),
            Challenge(
                "a transformer's block", lambda: (_transformer_block(4), *_tokens(batch=3, N=5, n=2, d=4))
            ),
        ),
        mistakes={
            "You kept the prompts: there are more tokens than came in, and the next block, or the decoder, "
            "takes the first ones for patches of the image.": lambda block, x, P: block(_joined(x, P)),
            "You cut off the last rows, but the prompts stand in front: you lose patches and keep prompts.": (
                lambda block, x, P: block(_joined(x, P))[:, : x.shape[1]]
            ),
            "You returned the prompts and threw the patches away; it is the other way round.": (
                lambda block, x, P: block(_joined(x, P))[:, : len(P)]
            ),
            "Your block never saw the prompts: they were taken off before it ran, not after.": (
                lambda block, x, P: block(_joined(x, P)[:, len(P) :])
            ),
            "You always cut off one row; there are n = len(P) prompts.": (
                lambda block, x, P: block(_joined(x, P))[:, 1:]
            ),
            "You kept the last n rows, as many as there are prompts; it is N rows that belong to the image.": (
                lambda block, x, P: block(_joined(x, P))[:, -len(P) :]
            ),
            "You cut along the first axis, that of the images. Tokens lie along the second: [:, len(P):].": (
                lambda block, x, P: block(_joined(x, P))[len(P) :]
            ),
            "You added the prompts to the tokens. They are tokens of their own, beside the others.": (
                lambda block, x, P: block(x + P.sum(0))
            ),
            "You put the prompts in the place of the first tokens: the image has lost patches.": (
                lambda block, x, P: block(_joined(x[:, len(P) :], P))
            ),
            "Your prompts stand before the first image alone: with a batch, every image needs them. See "
            "`P.expand(len(x), -1, -1)`.": lambda block, x, P: block(torch.cat([P[None], x], 1))[:, len(P) :],
            "You joined along the batch (axis 0), so prompts became images. Tokens are axis 1.": (
                lambda block, x, P: block(_joined(x, P, axis=0))[len(x) :]
            ),
        },
        hints=(
            "Who may see the prompts? And who must not leave the block?",
            "[P; x] goes in, along axis 1, for every image of the batch; of what comes out, leave out the first "
            "n tokens.",
            "return block(torch.cat([P.expand(len(x), -1, -1), x], 1))[:, len(P):]",
        ),
    ),
    "as_prefix": Exercise(
        reference=as_prefix,
        challenges=(
            Challenge(
                "two prompts of width 1",
                lambda: (
                    torch.tensor([[3.0], [1.0]]),
                    Twice(),
                    torch.tensor([[1.0], [10.0], [100.0]]),
                    torch.tensor([0.0, 1.0, 2.0]),
                ),
            ),
            Challenge("three prompts of width 2", lambda: _projection(n=3, d=2)),
            Challenge("four prompts of width 6", lambda: _projection(n=4, d=6)),
        ),
        mistakes={
            "You left out the norm. The block normalises its tokens before it makes keys of them, and a prompt "
            "is a token.": _thirds(norm=False),
            "You left out the bias b.": _thirds(bias=False),
            "You took the first two thirds: those are queries and keys. A prompt's query is what is thrown "
            "away.": _thirds(0, 1),
            "You exchanged keys and values: the rows of W are q, then k, then v.": _thirds(2, 1),
            "You returned the prompts themselves. In a free prefix, keys and values are learned directly; here "
            "the block makes them of P.": lambda P, norm, W, b: (P, P),
            "You took every third number. The thirds lie one after the other: the first d are the query.": (
                _thirds(cut=lambda qkv: [qkv[:, part::3] for part in range(3)])
            ),
            "You multiplied P by W from the wrong side: a linear layer computes x W^T + b.": (
                lambda P, norm, W, b: tuple((norm(P) @ W + b).chunk(3, -1)[1:])
            ),
            "You cut rows, but each row is a prompt. Its query, key and value lie side by side, d columns each.": (
                _thirds(cut=lambda qkv: qkv.tensor_split((qkv.shape[1] // 3, 2 * qkv.shape[1] // 3)))
            ),
        },
        hints=(
            "What does the block do to a token before it makes a key of it? A prompt is a token.",
            "norm(P) W^T + b is (n, 3d): queries, keys, values, d numbers each.",
            "q, k, v = F.linear(norm(P), W, b).chunk(3, -1), and return two of them.",
        ),
    ),
    "prompt_counts": Exercise(
        reference=prompt_counts,
        challenges=(
            Challenge("2 prompts of width 3, 2 blocks, 4 hidden units", lambda: (2, 3, 2, 4)),
            Challenge("10 prompts in a ViT-B: width 768, 12 blocks", lambda: (10, 768, 12, 512)),
            Challenge(
                "a random network",
                lambda: tuple(random.randint(*ends) for ends in ((2, 9), (10, 20), (3, 7), (21, 30))),
            ),
        ),
        mistakes={
            "A prefix has keys and values: n rows of 2d numbers in every block, not of d.": _counted(
                kept=lambda n, d, L, mid: L * n * d
            ),
            "You left out the values twice: in what is kept and in what the MLP gives out. Every block needs 2d "
            "numbers of each prompt.": _counted(
                kept=lambda n, d, L, mid: L * n * d,
                trained=lambda n, d, L, mid: n * d + (d + 1) * mid + (mid + 1) * L * d,
            ),
            "You left out the biases of the MLP's two layers: they learn as well.": _counted(
                trained=lambda n, d, L, mid: n * d + d * mid + mid * 2 * L * d
            ),
            "You used the formula of the lecture's table. It gives P' the width of the hidden layer and counts "
            "no biases; here P' is (n, d) and the MLP is d -> mid -> 2Ld with biases.": _counted(
                trained=lambda n, d, L, mid: n * mid + mid**2 + 2 * L * d * mid
            ),
            "You left P' out: the MLP needs something to make keys and values of.": _counted(
                trained=lambda n, d, L, mid: (d + 1) * mid + (mid + 1) * 2 * L * d
            ),
            "VPT-deep has prompts of its own in every block: L times as many as VPT-shallow.": _counted(
                deep=lambda n, d, L, mid: n * d
            ),
            "VPT-shallow has prompts before the first block only. They travel on, but nothing new is learned.": (
                _counted(shallow=lambda n, d, L, mid: L * n * d)
            ),
            "What is trained is more than what is kept: while it trains, an MLP makes the keys and values.": (
                _counted(trained=lambda n, d, L, mid: 2 * L * n * d)
            ),
            "What is kept is less than what is trained: the keys and values stay, the MLP goes.": _counted(
                kept=lambda n, d, L, mid: prompt_counts(n, d, L, mid)["trained"]
            ),
        },
        hints=(
            "What is there once, what once per block, and what twice per block?",
            "nd; Lnd; nd + (d + 1)mid + (mid + 1)2Ld, the + 1 being biases; 2Lnd.",
            'return {"shallow": n * d, "deep": L * n * d, "trained": n * d + (d + 1) * mid + ..., "kept": ...}',
        ),
    ),
}
