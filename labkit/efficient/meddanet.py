r"""Med-DANet V2. Shen, Zhang, Wang, Chen, Liu, Song and Li, "Med-DANet V2: A Flexible Dynamic Architecture
for Efficient Medical Volumetric Segmentation", 2024, arXiv:2310.18656. After the authors' code and the
overview figure (the formulas are the code's, so they have no numbers): slices x (B, 4, n, n) of 4 sequences.

A decision network chooses for every slice to skip it, to segment an m x m window, or to segment it whole. A
position network says where the window is: its top left corner is at a (n - m), a in (0, 1)^2. The window's
features (B, c, m, m) are put back on an empty canvas, and a head reads the canvas. For one U-Net (see
`labkit.efficient.meddanet_unet`), two heads and u the choice, hard forward and soft backward:

$$ y = u_0\, y_\text{skip}
     + u_1\, h_1(\operatorname{paste}(U(\operatorname{cut}(x, a)), a)) + u_2\, h_2(U(x)) $$
$$ u = \operatorname{onehot}(\arg\max(\log \operatorname{softmax} z + \text{Gumbel noise})) $$

without noise after training. The cost of a choice is the sum of MACs x bits/32 over the encoder's stages,
plus the rest. D is 1 - Dice, summed over the labels. Three phases:

1. (D_crop + D_whole) / 2 trains U-Net, heads and position network.
2. + lambda_1 (cost_crop + cost_whole) trains the bit selectors as well.
3. D_y + lambda_2 cost_y trains the decision network alone.

Errors of the released code that are not repeated: the paste exchanges x and y, so that a window comes back
at its mirrored place unless a_0 = a_1; dropout stays on in tests; every mini-batch leaves out its last
slice; a skipped slice has probability 0 for background, too; one constant of the cost table (whole, stage 4)
is 314.6 M, where the layers have 302.0 M; phase 3 still moves the networks' BatchNorm statistics.

Deviations. The window is cut differentiably, so the position network learns through cut and paste (there
only paste). Costs are shares of the whole slice at full precision, averaged over the batch, so lambda does
not depend on the batch size; policy networks are counted; a skipped slice is background; heads start at the
usual shares of the labels. bits/32 is the authors' measure: here, as there, weights are only rounded, and no
time is saved.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import nn

from labkit.efficient.counting import macs
from labkit.efficient.meddanet_unet import UNet, head, other_macs, stage_macs
from labkit.efficient.shufflenet import shufflenet_v2

SKIP, CROP, WHOLE = range(3)


def policy_network(outputs: int) -> nn.Sequential:
    """A narrow ShuffleNetV2, (B, 4, n, n) -> logits (B, outputs), started as in the authors' code.

    Like any module, it draws its weights from PyTorch's generator.
    """
    seed = int(torch.randint(2**31, ()))
    network = shufflenet_v2(outputs, (12, 24, 48, 96, 256), channels=4, bias=False, seed=seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0, 1 / module.weight.shape[1])
    nn.init.normal_(network[0][0].weight, 0, 0.01)
    return network


@cache
def policy_macs(outputs: int, n: int) -> int:
    """Multiply-adds of a policy network on an n x n slice."""
    with torch.random.fork_rng(devices=[]):
        return macs(policy_network(outputs), 1, 4, n, n)


# --- windows and choices --------------------------------------------------------------------------


def _resample(x: torch.Tensor, zoom: float, shift: torch.Tensor, size: int) -> torch.Tensor:
    """Read x at zoom u + shift, u in (-1, 1)^2 the places of the output; `shift` (B, 2) as row, column."""
    theta = torch.zeros(len(x), 2, 3, dtype=x.dtype, device=x.device)
    theta[:, 0, 0] = theta[:, 1, 1] = zoom
    theta[:, :, 2] = shift.flip(1)  # grid_sample wants x, y
    grid = F.affine_grid(theta, [*x.shape[:2], size, size], align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def cut(x: torch.Tensor, a: torch.Tensor, m: int) -> torch.Tensor:
    """The m x m window of x, (B, C, n, n), whose top left corner is at row, column a (n - m); a (B, 2)."""
    n = x.shape[-1]
    return _resample(x, m / n, (2 * a - 1) * (n - m) / n, m)


def paste(window: torch.Tensor, a: torch.Tensor, n: int) -> torch.Tensor:
    """The window, (B, C, m, m), back where `cut` took it from, on n x n zeros; exact for whole offsets."""
    m = window.shape[-1]
    return _resample(window, n / m, (1 - 2 * a) * (n - m) / m, n)


def hard_choice(logits: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """One-hot of the largest logit, (B, K), with the softmax's gradient; a generator adds Gumbel noise."""
    z = logits.log_softmax(1)
    if generator is not None:
        uniform = torch.rand(z.shape, generator=generator, dtype=z.dtype).clamp(1e-20, 1 - 1e-7)
        z = z - (-uniform.log()).log()
    soft = z.softmax(1)
    return F.one_hot(z.argmax(1), z.shape[1]) + (soft - soft.detach())


# --- cost and losses ------------------------------------------------------------------------------


def cost(stages: tuple[float, ...], other: float, bits: torch.Tensor) -> torch.Tensor:
    """MACs x bits/32 of the stages, plus the other MACs: `bits` (B, 4) -> (B,)."""
    return bits @ bits.new_tensor(stages) / 32 + other


def dice_loss(y: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sum over classes 1 to 3 of 1 - Dice of the whole batch; y (B, 4, n, n), `labels` (B, n, n) 0 to 3."""
    truth = F.one_hot(labels, 4).movedim(-1, 1)[:, 1:]
    both = (y[:, 1:] * truth).sum((0, 2, 3))
    return (1 - 2 * both / (y[:, 1:].sum((0, 2, 3)) + truth.sum((0, 2, 3)) + 1e-5)).sum()


class MedDANet(nn.Module):
    """U-Net of width `c` on n x n slices or m x m windows, both divisible by 8; weights come from `seed`."""

    def __init__(self, c: int = 8, n: int = 96, m: int = 64, bits: tuple[int, int] = (8, 16), seed: int = 0):
        super().__init__()
        if n % 8 or m % 8 or not 0 < m <= n:
            raise ValueError(f"Slices of {n}, windows of {m} pixels: both must divide by 8, m be at most n.")
        self.n, self.m = n, m
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.unet, self.crop_head, self.whole_head = UNet(c, bits), head(c), head(c)
            self.decision, self.position = policy_network(3), policy_network(2)
        self.full = sum(stage_macs(c, n)) + other_macs(c, n, n)  # what costs are a share of
        self.crop_macs, self.whole_macs = ((stage_macs(c, k), other_macs(c, k, n)) for k in (m, n))
        self.policy_cost = [policy_macs(outputs, n) / self.full for outputs in (3, 2)]

    def _cost(self, table, bits: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
        bits = x.new_full((len(x), 4), 32) if bits is None else bits
        return cost(*table, bits) / self.full

    def whole(self, x: torch.Tensor, adaptive: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """Probabilities (B, 4, n, n) and costs (B,); weights as they are, or in `adaptive` bits."""
        features, bits = self.unet(x, adaptive)
        return self.whole_head(features), self._cost(self.whole_macs, bits, x)

    def crop(self, x: torch.Tensor, adaptive: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """The same of a window; its cost has the position network's in it."""
        a = self.position(x).sigmoid()
        features, bits = self.unet(cut(x, a, self.m), adaptive)
        y = self.crop_head(paste(features, a, self.n))
        return y, self._cost(self.crop_macs, bits, x) + self.policy_cost[1]

    @staticmethod
    def skip(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Background everywhere, for nothing."""
        y = torch.zeros_like(x)
        y[:, 0] = 1
        return y, x.new_zeros(len(x))

    @torch.no_grad()
    def forward(self, x: torch.Tensor, adaptive: bool = True):
        """For use, in eval mode: probabilities (B, 4, n, n), choices (B,) and costs (B,).

        Only what is chosen is computed, slices of one choice together.
        """
        choices = self.decision(x).argmax(1)
        y, costs = self.skip(x)
        for which, run in ((CROP, self.crop), (WHOLE, self.whole)):
            if (chosen := choices == which).any():
                y[chosen], costs[chosen] = run(x[chosen], adaptive)
        return y, choices, costs + self.policy_cost[0]


def network_loss(
    model: MedDANet, x: torch.Tensor, labels: torch.Tensor, price: float | None = None
) -> torch.Tensor:
    """Phase 1, or with a `price` lambda_1, phase 2."""
    (crop, crop_cost), (whole, whole_cost) = (run(x, price is not None) for run in (model.crop, model.whole))
    loss = (dice_loss(crop, labels) + dice_loss(whole, labels)) / 2
    return loss if price is None else loss + price * (crop_cost + whole_cost).mean()


@torch.no_grad()
def outcomes(model: MedDANet, x: torch.Tensor, adaptive: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """What the choices would give, in eval mode: (B, 3, 4, n, n), and cost: (B, 3). Phase 3 can keep them."""
    y, costs = zip(model.skip(x), model.crop(x, adaptive), model.whole(x, adaptive), strict=True)
    return torch.stack(y, 1), torch.stack(costs, 1) + model.policy_cost[0]


def decision_loss(
    choice: torch.Tensor, y: torch.Tensor, costs: torch.Tensor, labels: torch.Tensor, price: float
) -> torch.Tensor:
    """Phase 3: `hard_choice` of the decision network's logits, `outcomes`, and the price lambda_2."""
    chosen = torch.einsum("bk,bkchw->bchw", choice, y)
    return dice_loss(chosen, labels) + price * (choice * costs).sum(1).mean()
