r"""The U-Net of Med-DANet V2 (Shen et al., 2024, arXiv:2310.18656; see `labkit.efficient.meddanet`), as in
the authors' code, whose encoder chooses for every slice and stage how many bits its weights have.

Before stage i a selector reads the slice's edges, e the mean |Sobel/8| in x and y of its 4 channels, and the
spread of the stage's input over places, and chooses among two numbers of bits:

$$ p = \operatorname{softmax}(A\,[e, \operatorname{std} h_i] + a), \qquad
   b = b_{\arg\max p} - \operatorname{sg}(p^\top (b_1, b_2)) + p^\top (b_1, b_2) $$

sg stops the gradient. The weights of the stage's convolutions are then quantised as in
`labkit.efficient.precision`, per tensor; b gets a gradient through Q = 2^(b-1) - 1, and through the cost. A
new selector has A = 1 and a = (0, 1): every slice starts at the second number.

Parameters for width c: 6252 c^2 + 273 c, the selectors 30 c + 72, each head 18 c^2 + 10 c + 4.
(B, 4, H, W) -> (B, c, H, W) features, H and W divisible by 8.

Deviations. Dropout stops when training does, which the released code forgets. A batch computes every slice
with weights of its own in one grouped convolution; the released code takes the slices one by one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from labkit.efficient.precision import levels, round_through


class Conv(nn.Conv2d):
    """3 x 3; with `bits`, (B,), every slice is convolved with the weights in its own number of bits."""

    def __init__(self, i: int, o: int, stride: int = 1, bias: bool = False):
        super().__init__(i, o, 3, stride, 1, bias=bias)

    def forward(self, x: torch.Tensor, bits: torch.Tensor | None = None) -> torch.Tensor:
        if bits is None:
            return super().forward(x)
        s = (self.weight.detach().abs().max() / levels(bits)).view(-1, 1, 1, 1, 1)
        weights = (s * round_through(self.weight / s)).flatten(0, 1)  # (B o, i, 3, 3)
        y = F.conv2d(x.reshape(1, -1, *x.shape[2:]), weights, None, self.stride, 1, groups=len(x))
        return y.view(len(x), -1, *y.shape[2:])


class Block(nn.Module):
    """Twice norm, ReLU, convolution, and the residual: 18 c^2 + 4 c parameters, 2 c more with biases."""

    def __init__(self, c: int, bias: bool = False):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(c), Conv(c, c, bias=bias)
        self.norm2, self.conv2 = nn.BatchNorm2d(c), Conv(c, c, bias=bias)

    def forward(self, x: torch.Tensor, bits: torch.Tensor | None = None) -> torch.Tensor:
        y = self.conv1(F.relu(self.norm1(x)), bits)
        return x + self.conv2(F.relu(self.norm2(y)), bits)


class Up(nn.Module):
    """2 c channels to c at twice the resolution, joined with the encoder's: 8 c^2 + 3 c parameters."""

    def __init__(self, c: int):
        super().__init__()
        self.narrow, self.enlarge = nn.Conv2d(2 * c, c, 1), nn.ConvTranspose2d(c, c, 2, 2)
        self.join = nn.Conv2d(2 * c, c, 1)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return self.join(torch.cat([skip, self.enlarge(self.narrow(x))], 1))


def edges(x: torch.Tensor) -> torch.Tensor:
    """Mean |Sobel/8| in x and in y of every channel: (B, C, H, W) -> (B, 2 C)."""
    sobel = x.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    kernels = torch.stack([sobel, sobel.T])[:, None].repeat(x.shape[1], 1, 1, 1)
    return F.conv2d(x, kernels, groups=x.shape[1]).abs().mean((2, 3))


class BitSelector(nn.Module):
    """Edges (B, 8) and the stage's input (B, c, H, W) -> bits (B,), one of two numbers."""

    def __init__(self, c: int, choices: tuple[int, int]):
        super().__init__()
        for bits in choices:
            levels(bits)  # refuses what can't be
        self.linear = nn.Linear(8 + c, 2)
        nn.init.ones_(self.linear.weight)
        self.linear.bias = nn.Parameter(torch.tensor([0.0, 1.0]))
        self.register_buffer("choices", torch.tensor(choices, dtype=torch.float), persistent=False)

    def forward(self, e: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        p = self.linear(torch.cat([e, x.detach().std((2, 3))], 1)).softmax(1)
        soft = p @ self.choices
        return self.choices[p.argmax(1)] + (soft - soft.detach())


class UNet(nn.Module):
    """Encoder of 1, 2, 2, 4 blocks at c, 2 c, 4 c, 8 c channels; decoder of one block at 4 c and 2 c."""

    def __init__(self, c: int, choices: tuple[int, int]):
        super().__init__()
        widths = [c, 2 * c, 4 * c, 8 * c]
        self.stem, self.dropout = Conv(4, c), nn.Dropout2d(0.2)
        self.selectors = nn.ModuleList(BitSelector(w, choices) for w in widths)
        self.stages = nn.ModuleList(
            nn.ModuleList(Block(w) for _ in range(n)) for w, n in zip(widths, (1, 2, 2, 4), strict=True)
        )
        self.downs = nn.ModuleList(Conv(w, 2 * w, stride=2) for w in widths[:-1])
        self.ups = nn.ModuleList(Up(w) for w in widths[-2::-1])
        self.decoder = nn.ModuleList(Block(w, bias=True) for w in widths[-2:0:-1])

    def forward(self, x: torch.Tensor, adaptive: bool = False) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Features (B, c, H, W), and the bits chosen (B, 4); not `adaptive`, None: weights as they are."""
        e, chosen, skips = edges(x) if adaptive else None, [], []
        x = self.dropout(self.stem(x))
        for i, blocks in enumerate(self.stages):
            bits = self.selectors[i](e, x) if adaptive else None
            for block in blocks:
                x = block(x, bits)
            if i < 3:
                skips.append(x)
                x = self.downs[i](x, bits)
            chosen.append(bits)
        for i, up in enumerate(self.ups):
            x = up(x, skips.pop())
            x = self.decoder[i](x) if i < 2 else x  # the block at width c is the head's
        return x, torch.stack(chosen, 1) if adaptive else None


def head(c: int) -> nn.Sequential:
    """Features to the probabilities of background and labels 1, 2, 4; it starts at their usual shares."""
    last = nn.Conv2d(c, 4, 1)
    last.bias = nn.Parameter(torch.tensor([0.97, 0.01, 0.01, 0.01]).log())
    return nn.Sequential(Block(c, bias=True), last, nn.Softmax(1))


def stage_macs(c: int, n: int) -> tuple[int, int, int, int]:
    """Multiply-adds of the four encoder stages, each with its stride-2 convolution, on n x n places."""
    return tuple(int(share * c * c * n * n) for share in (22.5, 40.5, 40.5, 72))


def other_macs(c: int, n: int, canvas: int) -> int:
    """Stem and decoder on n x n places, and a head on canvas x canvas: always at full precision."""
    return int((46.5 * c * c + 36 * c) * n * n) + (18 * c * c + 4 * c) * canvas * canvas
