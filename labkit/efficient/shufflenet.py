r"""ShuffleNetV2. Ma, Zhang, Zheng and Sun, "ShuffleNet V2: Practical Guidelines for Efficient CNN
Architecture Design", 2018, arXiv:1807.11164; the channel shuffle is of V1: Zhang et al., 2017,
arXiv:1707.01083.

Convolutions in groups are cheap but never mix groups. The shuffle does: channels as a (g, n/g) table, read
column by column. Six channels in two groups become [0, 3, 1, 4, 2, 5].

A unit of stride 1 keeps half of its c channels as they are, b = c/2 (section 3, Figure 3c):

$$ x_1, x_2 = \operatorname{split}(x), \qquad
   y = \operatorname{shuffle}_2([x_1,\; P_2\, D\, P_1 x_2]) $$

P 1 x 1 with norm and ReLU, D 3 x 3 depthwise with norm alone: 2 b^2 + 15 b parameters. One of stride 2,
i -> o, transforms all channels in both branches (Figure 3d). Of B multiply-adds in a 1 x 1 convolution,
memory traffic is least where it is as wide before as after (guideline 1, equation 1):

$$ \text{MAC} \ge 2 \sqrt{H W B} + \frac{B}{H W}, \quad \text{equal iff } c_1 = c_2 $$

(their MAC is memory access cost). (B, 3, H, W) -> (B, classes) logits, H and W halved five times.

Deviations. None in the layers (Table 5). Weights start at PyTorch's defaults, as torchvision's do.
"""

from __future__ import annotations

import torch
from torch import nn

from labkit.efficient.mobilenet import conv_norm

REPEATS = (4, 8, 4)  # units of the three stages
WIDTHS = {0.5: (24, 48, 96, 192, 1024), 1.0: (24, 116, 232, 464, 1024)}  # stem, three stages, last (Table 5)


def channel_shuffle(x: torch.Tensor, groups: int) -> torch.Tensor:
    """Mix the channels of `groups` groups: channel j of group g goes to place j groups + g; (B, C, ...)."""
    if x.shape[1] % groups:
        raise ValueError(
            f"{x.shape[1]} channels can't be cut into {groups} groups of one size; choose a divisor."
        )
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


class Unit(nn.Module):
    """One unit, i -> o channels; of stride 1 it keeps its width."""

    def __init__(self, i: int, o: int, stride: int):
        super().__init__()
        if o % 2 or (stride == 1 and i != o):
            raise ValueError(
                f"A unit of stride {stride} from {i} to {o} channels: o is even, and i at stride 1."
            )
        b = o // 2
        depthwise = lambda n: conv_norm(n, n, stride=stride, groups=n, activation=None)  # noqa: E731
        point = lambda i, o: conv_norm(i, o, 1, activation=nn.ReLU)  # noqa: E731
        self.stride = stride
        self.short = nn.Sequential(depthwise(i), point(i, b)) if stride > 1 else nn.Identity()
        self.long = nn.Sequential(point(i if stride > 1 else b, b), depthwise(b), point(b, b))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, two = (x, x) if self.stride > 1 else x.chunk(2, 1)
        return channel_shuffle(torch.cat([self.short(one), self.long(two)], 1), 2)


def shufflenet_v2(
    classes: int = 1000,
    widths: tuple[int, int, int, int, int] = WIDTHS[0.5],
    channels: int = 3,
    bias: bool = True,
    seed: int = 0,
) -> nn.Sequential:
    """The network; `widths` of stem, three stages and last convolution, `bias` of the classifier."""
    stem, *stages, last = widths
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [conv_norm(channels, stem, stride=2, activation=nn.ReLU), nn.MaxPool2d(3, 2, 1)]
        i = stem
        for o, repeats in zip(stages, REPEATS, strict=True):
            layers += [Unit(i, o, 2), *(Unit(o, o, 1) for _ in range(repeats - 1))]
            i = o
        layers += [conv_norm(i, last, 1, activation=nn.ReLU), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(last, classes, bias))
