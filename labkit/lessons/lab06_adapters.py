"""Lab 06: adapters, where they are put, two smaller kinds, biases; and how each is usually got wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F

from labkit.lessons.exercise import Challenge, Exercise


def adapter(
    x: torch.Tensor, W1: torch.Tensor, b1: torch.Tensor, W2: torch.Tensor, b2: torch.Tensor
) -> torch.Tensor:
    """x + GELU(x W1' + b1) W2' + b2: x (N, d), W1 (m, d), W2 (d, m)."""
    return x + F.linear(F.gelu(F.linear(x, W1, b1)), W2, b2)


def wire(x: torch.Tensor, layer: Callable, added: Callable, where: str, s: float) -> torch.Tensor:
    """The stream after a frozen layer and what an adapter adds to it, which reads three different things."""
    y = layer(x)
    if where == "sequential":
        return x + y + added(y)
    if where == "parallel":
        return x + y + s * added(x)
    return x + y + added(x + y)


def kron_sum(As: Sequence[torch.Tensor], Bs: Sequence[torch.Tensor]) -> torch.Tensor:
    """The sum over i of the Kronecker product of A_i with B_i."""
    return sum(torch.kron(A, B) for A, B in zip(As, Bs, strict=True))


def token_bias(y: torch.Tensor, h: torch.Tensor, w: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """y + (h w) v': y (N, d), h (N, d_ff), w (d_ff), v (d)."""
    return y + torch.outer(h @ w, v)


def biases(names: Iterable[str]) -> list[str]:
    """The names whose last part is "bias"."""
    return [name for name in names if name.split(".")[-1] == "bias"]


def _row(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


def _rows(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32)


# The adapter


def _adapted(
    activation: Callable = F.gelu,
    before: Callable = lambda x: x,
    after: Callable = lambda z: z,
    skip: int = 1,
) -> Callable:
    """`adapter` with another activation, one before or after both layers, or the skip so many times."""

    def wrong(x, W1, b1, W2, b2):
        return skip * x + after(F.linear(activation(F.linear(before(x), W1, b1)), W2, b2))

    return wrong


def _same(z: torch.Tensor) -> torch.Tensor:
    return z


def _without_bias(down: bool) -> Callable:
    """`adapter` without the bias of the down-projection, or without that of the up-projection."""

    def wrong(x, W1, b1, W2, b2):
        return adapter(x, W1, 0 * b1, W2, b2) if down else adapter(x, W1, b1, W2, 0 * b2)

    return wrong


def _narrow() -> tuple:
    return _rows((-2, 1)), _rows((1, 0)), _row(1), _rows((2,), (3,)), _row(0.5, 0)


def _random_adapter() -> tuple:
    N, d, m = 5, 6, 3
    return torch.randn(N, d), torch.randn(m, d), torch.randn(m), torch.randn(d, m), torch.randn(d)


# Where it is put


def _wired(**wrong: Callable) -> Callable:
    """`wire` with another formula f(x, y, added, s), y = layer(x), for some of the three places."""

    def variant(x, layer, added, where, s):
        if where in wrong:
            return wrong[where](x, layer(x), added, s)
        return wire(x, layer, added, where, s)

    return variant


_PLACES = ("sequential", "parallel", "after")


def _triple(x: torch.Tensor) -> torch.Tensor:
    return 3 * x


def _square(z: torch.Tensor) -> torch.Tensor:
    return z * z


def _placed(where: str) -> Challenge:
    text = f"where = {where!r}: the layer triples what it reads, the adapter's two matrices square it"
    return Challenge(text, lambda: (_row(1), _triple, _square, where, 0.5))


def _random_placed(where: str) -> Challenge:
    def inputs() -> tuple:
        M = torch.randn(3, 3)
        return torch.randn(2, 3), lambda x: x @ M, torch.tanh, where, 0.1

    return Challenge(f"where = {where!r}: a random layer and a bent line as adapter, for two tokens", inputs)


# Kronecker products


def _of_all(As: Sequence[torch.Tensor], Bs: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.block_diag(*(A[i, i] * B for i, (A, B) in enumerate(zip(As, Bs, strict=True))))


def _two_terms() -> tuple:
    return [_rows((1, 0), (0, 2)), _rows((0, 1), (0, 0))], [_rows((1, 3)), _rows((10, 0))]


def _random_terms() -> tuple:
    n, p, q = 3, 2, 4
    return [torch.randn(n, n) for _ in range(n)], [torch.randn(p, q) for _ in range(n)]


# A bias for each token


def _shifted(direction: Callable, kept: int = 1) -> Callable:
    """`token_bias` with another shift, and y so many times."""
    return lambda y, h, w, v: kept * y + direction(h, w, v)


def _two_tokens() -> tuple:
    return _rows((1, 0), (0, 2)), _rows((1, 0, 1), (0, 3, 0)), _row(1, 1, 1), _row(10, 30)


def _four_tokens() -> tuple:
    return torch.randn(4, 3), torch.randn(4, 5), torch.randn(5), torch.randn(3)


# Biases

SWIN = (
    "patch_embed.proj.weight",
    "patch_embed.proj.bias",
    "layers.0.blocks.0.norm1.weight",
    "layers.0.blocks.0.norm1.bias",
    "layers.0.blocks.0.attn.relative_position_bias_table",
    "layers.0.blocks.0.attn.qkv.weight",
    "layers.0.blocks.0.attn.qkv.bias",
    "layers.0.blocks.0.mlp.fc1.weight",
    "layers.0.blocks.0.mlp.fc1.bias",
)


def _named(asked: Callable[[str], bool]) -> Callable:
    """`biases` by another rule."""
    return lambda names: [name for name in names if asked(name)]


def _is_bias(name: str) -> bool:
    return name.split(".")[-1] == "bias"


EXERCISES = {
    "adapter": Exercise(
        reference=adapter,
        challenges=(
            Challenge("one token of width 2, through a bottleneck of 1", _narrow),
            Challenge("five random tokens of width 6, through a bottleneck of 3", _random_adapter),
        ),
        mistakes={
            "You left out the skip connection. Then the adapter replaces what the network computed instead of "
            "adding to it, and everything that the blocks above learned to expect is gone.": _adapted(skip=0),
            "You left out the activation. Two matrices in a row are one matrix, of low rank: that is LoRA, and "
            "it cannot bend.": _adapted(activation=_same),
            "You bent the output of the up-projection. GELU cuts off what is negative, so such an adapter could "
            "hardly take anything away; the bend belongs between the two layers.": _adapted(
                activation=_same, after=F.gelu
            ),
            "You bent the input. Then what is negative in a token hardly reaches the adapter; the bend belongs "
            "between the two layers.": _adapted(activation=_same, before=F.gelu),
            "You added x twice. The stream would double at every adapter, before anything was learned.": _adapted(
                skip=2
            ),
            "You used ReLU where the formula says GELU. Both bend, but they are not the same network.": _adapted(
                activation=F.relu
            ),
            "You left out b1, the bias of the down-projection: it sets where GELU bends.": _without_bias(
                True
            ),
            "You left out b2, the bias of the up-projection.": _without_bias(False),
        },
        hints=(
            "Four stations: make it narrow, bend it, make it wide again, add it to what was there.",
            "x + W2 GELU(W1 x + b1) + b2. The tokens are the rows of x, so each matrix works from the right, "
            "transposed, as in nn.Linear.",
            "`F.linear(x, W1, b1)` is x @ W1.T + b1. Bend it with F.gelu, do the same with W2 and b2, add x.",
        ),
    ),
    "wire": Exercise(
        reference=wire,
        challenges=(*map(_placed, _PLACES), *map(_random_placed, _PLACES)),
        mistakes={
            "Your sequential adapter reads x. It comes *after* the layer, so it reads what the layer gives out; "
            "reading x is what the parallel one does.": _wired(sequential=lambda x, y, a, s: x + y + a(x)),
            "Your sequential adapter has no skip of its own: what the layer gave out is lost, and only what the "
            "adapter made of it is added to the stream.": _wired(sequential=lambda x, y, a, s: x + a(y)),
            "Your parallel adapter reads the layer's output. It stands *beside* the layer and reads the same x, "
            "so both can be computed at once.": _wired(parallel=lambda x, y, a, s: x + y + s * a(y)),
            "You scaled the frozen layer too. s belongs to what is new; the pretrained network must stay as it "
            "is.": _wired(parallel=lambda x, y, a, s: x + s * (y + a(x))),
            "You left out s. In AdaptFormer it is 0.1 and keeps what is added small.": _wired(
                parallel=lambda x, y, a, s: x + y + a(x)
            ),
            "Your adapter after the block reads what the layer gives out, as the sequential one does. After the "
            "block, the residual has been added already: it reads x + F(x).": _wired(
                after=lambda x, y, a, s: x + y + a(y)
            ),
            "Your adapter after the block lost the block's residual: what it adds to is x + F(x), not "
            "F(x).": _wired(after=lambda x, y, a, s: y + a(x + y)),
        },
        hints=(
            "What does the adapter read in each case: x, F(x), or their sum? And what was there before stays.",
            "sequential: x + F(x) + a(F(x)). parallel: x + F(x) + s a(x). after: (x + F(x)) + a(x + F(x)).",
            "Compute y = layer(x) once. What the three have in common is x + y; only the last term differs.",
        ),
    ),
    "kron_sum": Exercise(
        reference=kron_sum,
        challenges=(
            Challenge("two terms: rules of 2 x 2, blocks of 1 x 2", _two_terms),
            Challenge("three random terms: rules of 3 x 3, blocks of 2 x 4", _random_terms),
        ),
        mistakes={
            "You exchanged the two factors. In A ⊗ B each number of A becomes a copy of B; B ⊗ A has the same "
            "numbers in other places.": lambda As, Bs: kron_sum(Bs, As),
            "You took the first term only. One Kronecker product is a pattern repeated; it takes the sum to make "
            "the blocks differ.": lambda As, Bs: kron_sum(As[:1], Bs[:1]),
            "You took the mean of the terms; the formula says their sum.": lambda As, Bs: (
                kron_sum(As, Bs) / len(As)
            ),
            "You added first and multiplied then. (A1 + A2) ⊗ (B1 + B2) is a single Kronecker product again, "
            "with two terms that nobody asked for: A1 ⊗ B2 and A2 ⊗ B1.": lambda As, Bs: torch.kron(
                sum(As), sum(Bs)
            ),
            "You put the blocks on the diagonal, and nothing else. Then the parts of a token could never "
            "exchange anything; A_i says how they do.": _of_all,
        },
        hints=(
            "In A ⊗ B, every single number of A becomes a copy of B, multiplied by that number.",
            "W is the sum over i of A_i ⊗ B_i.",
            "torch.kron does one product. Go through both lists side by side (zip) and add up.",
        ),
    ),
    "token_bias": Exercise(
        reference=token_bias,
        challenges=(
            Challenge("two tokens: three hidden values each, two given out", _two_tokens),
            Challenge("four random tokens: five hidden values each, three given out", _four_tokens),
        ),
        mistakes={
            "You added the same v to every token. That is a bias as BitFit has it; here each token says by its "
            "own number how far it moves.": _shifted(lambda h, w, v: v),
            "You lost y: the shift is added to what the layer gives out.": _shifted(
                lambda h, w, v: torch.outer(h @ w, v), kept=0
            ),
            "You exchanged w and v. w asks the token's hidden values (how far?), v answers (in which "
            "direction?).": _shifted(lambda h, w, v: torch.outer(h @ v, w)),
            "You gave all tokens the mean of their numbers. Then they all move alike, and the point was that "
            "they need not.": _shifted(lambda h, w, v: (h @ w).mean() * v),
            "You left out v: each token's number was added to all of its width. v says in which direction to "
            "go, and it is the part that is learned first.": _shifted(lambda h, w, v: (h @ w)[:, None]),
        },
        hints=(
            "One number for each token; one direction for all of them.",
            "y + (h w) v': h w has N numbers, v has d, and their product must have N rows and d columns.",
            "Make a column of the N numbers, `(h @ w)[:, None]`; a column times a row is a matrix.",
        ),
    ),
    "biases": Exercise(
        reference=biases,
        challenges=(
            Challenge("some parameters of a Swin transformer", lambda: (list(SWIN),)),
            Challenge(
                "a layer called bias, whose weight is none",
                lambda: (["bias.weight", "bias.bias", "blocks.3.norm2.bias", "pos_embed"],),
            ),
        ),
        mistakes={
            'You took every name with "bias" somewhere in it. Swin\'s relative_position_bias_table is a table of '
            "what positions mean to each other; nothing adds it to an activation.": _named(
                lambda name: "bias" in name
            ),
            'You took every name that starts or ends with "bias" as a text. What counts is the last part, after '
            "the last dot.": _named(lambda name: name.startswith("bias") or name.endswith("bias")),
            "You left out the norms. A LayerNorm has a bias like any other layer, and BitFit trains it.": _named(
                lambda name: _is_bias(name) and "norm" not in name
            ),
            "You took the norms' weights too. They multiply; a bias is added.": _named(
                lambda name: _is_bias(name) or "norm" in name
            ),
        },
        hints=(
            "Look at the parts of a name between its dots. Which part says what the parameter is?",
            'A parameter is a bias if the last part of its name is "bias", and only then.',
            'name.split(".") is the list of the parts, [-1] the last of them.',
        ),
    ),
}
