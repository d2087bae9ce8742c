r"""MobileNetV2. Sandler, Howard, Zhu, Zhmoginov and Chen, "MobileNetV2: Inverted Residuals and Linear
Bottlenecks", 2018, arXiv:1801.04381; and what it is built on, the separable convolution of MobileNetV1:
Howard et al., 2017, arXiv:1704.04861.

A k x k convolution from M to N channels on H x W places, split into one of each channel for itself
(depthwise) and one of 1 x 1 (pointwise), costs this share of its multiply-adds (V1, section 3.1):

$$ \frac{k^2 M H W + M N H W}{k^2 M N H W} = \frac1N + \frac1{k^2} $$

V2's block widens first and narrows last, from i to t i to o channels; the narrow ends carry the residual,
and no activation follows the last convolution: it would lose what few channels hold (V2, Table 1):

$$ y = x + P_2\, D(P_1 x), \quad P_1: 1 \times 1, \text{ReLU6}; \quad D: 3 \times 3 \text{ depthwise, ReLU6};
   \quad P_2: 1 \times 1, \text{linear} $$

with the sum only where stride and width stay. (B, 3, H, W) -> (B, classes) logits, H and W halved five times.

Deviations. None in the layers, which are those of V1's Table 1 and V2's Table 2. Weights start as
torchvision's do (He, fan out); the width multiplier rounds to multiples of 8, never down by more than a
tenth, as in the authors' code.
"""

from __future__ import annotations

import torch
from torch import nn

# factor of widening t, channels c, blocks n, stride of the first s (V2, Table 2)
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# channels and stride of each separable convolution (V1, Table 1)
V1_STAGES = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))


def separable_ratio(N: int, k: int = 3) -> float:
    """Multiply-adds of a separable convolution to N channels, as a share of the ordinary one's."""
    return 1 / N + 1 / k**2


def conv_norm(
    i: int, o: int, k: int = 3, stride: int = 1, groups: int = 1, activation=nn.ReLU6
) -> nn.Sequential:
    """Convolution, batch norm, activation (or None): k^2 i o / groups + 2 o parameters."""
    conv = nn.Conv2d(i, o, k, stride, k // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(o), *([activation()] if activation else []))


def separable(i: int, o: int, stride: int = 1, activation=nn.ReLU6) -> nn.Sequential:
    """Depthwise, then pointwise, a norm and an activation after each."""
    depthwise = conv_norm(i, i, stride=stride, groups=i, activation=activation)
    return nn.Sequential(depthwise, conv_norm(i, o, 1, activation=activation))


class InvertedResidual(nn.Module):
    """Wide in the middle: i -> t i -> o channels."""

    def __init__(self, i: int, o: int, stride: int, t: int):
        super().__init__()
        self.widen = conv_norm(i, t * i, 1) if t > 1 else nn.Identity()
        self.depthwise = conv_norm(t * i, t * i, stride=stride, groups=t * i)
        self.narrow = conv_norm(t * i, o, 1, activation=None)
        self.residual = stride == 1 and i == o

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.narrow(self.depthwise(self.widen(x)))
        return x + y if self.residual else y


def rounded(channels: float, to: int = 8) -> int:
    """The nearest multiple of `to`, one more where that would take off over a tenth."""
    near = max(to, int(channels + to / 2) // to * to)
    return near if near >= 0.9 * channels else near + to


def initialise(network: nn.Module, seed: int) -> nn.Module:
    """Draw the weights; the random numbers of the caller go on as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
                nn.init.zeros_(module.bias)
    return network


def classifier(width: int, classes: int, dropout: float) -> list[nn.Module]:
    """Average over places, drop out, decide."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(width, classes)]


def mobilenet_v2(classes: int = 1000, width: float = 1.0, channels: int = 3, seed: int = 0) -> nn.Sequential:
    """The network; `width` multiplies the channels of every layer, and the last has at least 1280."""
    i, last = rounded(32 * width), rounded(1280 * max(1.0, width))
    with torch.random.fork_rng(devices=[]):  # modules draw as they are made
        layers = [conv_norm(channels, i, stride=2)]
        for t, c, n, s in STAGES:
            for stride in (s, *[1] * (n - 1)):
                layers.append(InvertedResidual(i, rounded(c * width), stride, t))
                i = rounded(c * width)
        layers += [conv_norm(i, last, 1), *classifier(last, classes, 0.2)]
    return initialise(nn.Sequential(*layers), seed)


def mobilenet_v1(
    classes: int = 1000, standard: bool = False, channels: int = 3, seed: int = 0
) -> nn.Sequential:
    """MobileNetV1, or the same network with `standard` convolutions in place of the separable ones."""
    with torch.random.fork_rng(devices=[]):
        layers, i = [conv_norm(channels, 32, stride=2, activation=nn.ReLU)], 32
        for o, stride in V1_STAGES:
            block = (
                conv_norm(i, o, stride=stride, activation=nn.ReLU)
                if standard
                else separable(i, o, stride, nn.ReLU)
            )
            layers.append(block)
            i = o
        layers += classifier(i, classes, 0.0)
    return initialise(nn.Sequential(*layers), seed)
