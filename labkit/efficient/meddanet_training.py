r"""A small Med-DANet V2 (see `labkit.efficient.meddanet`), trained on a laptop: first both ways of looking at
a slice, then the decision between them and skipping.

1. `train_networks`: U-Net, heads and position network, on the mean over crop and whole of Dice loss and
   cross-entropy.
2. `look_at`: once, what skip, crop and whole would give on every slice of the training patients.
3. `train_decision`: the decision network alone, for a price of computing, on those.

Dice of a batch is made of sums over pixels, and what the decision network hands on, $\sum_k u_k y_k$, is
linear in the choice u. So step 2 keeps three sums for each slice, choice and label instead of pictures, and
step 3 has the loss of `meddanet.decision_loss` to the last digit, without segmenting anything again.

Deviations. Cross-entropy beside Dice (the paper's code has Dice alone): with it a minute is enough. Weights
stay in full precision: the paper's second phase, which learns the bits, is left out.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

from labkit.efficient.meddanet import SKIP, MedDANet, dice_loss, hard_choice, outcomes
from labkit.scans.slices import Volume, classes_of, excerpt, sample_slabs
from labkit.training.quick import PATIENTS, STEPS, at_most
from labkit.training.quick import SLICES as FEW

SLICES = 16  # computed at once


def loss_of(y: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Dice loss and cross-entropy of probabilities (B, 4, n, n) and labels (B, n, n)."""
    return dice_loss(y, labels) + F.nll_loss(y.clamp_min(1e-7).log(), labels)


def rate(step: int, steps: int, peak: float, warmup: int = 10) -> float:
    """Linear warm-up, then (1 - t)^.9."""
    return peak * min((step + 1) / warmup, 1) * (1 - step / steps) ** 0.9


def train_networks(
    model: MedDANet,
    train: Sequence[Volume],
    steps: int = 100,
    slices: int = 16,
    lr: float = 4e-3,
    seed: int = 0,
    progress: bool = True,
) -> list[dict]:
    """Train all but the decision, in place; a row of step and loss per step. The same seed, the same bits."""
    steps = at_most(steps, STEPS)
    parts = (model.unet, model.crop_head, model.whole_head, model.position)
    parameters = [p for part in parts for p in part.parameters()]
    optimizer = torch.optim.Adam(parameters, lr, weight_decay=1e-5, amsgrad=True)
    numbers, history = torch.Generator().manual_seed(seed), []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout
        for part in parts:
            part.train()
        bar = tqdm(range(steps), desc="networks", unit="step", disable=not progress, leave=False)
        for step in bar:
            for group in optimizer.param_groups:
                group["lr"] = rate(step, steps, lr)
            x, labels = (t[:, 0] for t in sample_slabs(train, slices, 1, (model.n, model.n), numbers))
            loss = (loss_of(model.crop(x)[0], labels) + loss_of(model.whole(x)[0], labels)) / 2
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            history.append(dict(step=step + 1, loss=loss.item()))
            bar.set_postfix(loss=f"{loss.item():.3f}")
    model.eval()
    return history


@dataclass(frozen=True)
class Outcomes:
    """What each choice would give on B slices, as sums over pixels; all that the decision learns from."""

    x: torch.Tensor  # (B, 4, n, n)
    both: torch.Tensor  # (B, 3 choices, 3 labels): probability that lies on the label
    found: torch.Tensor  # (B, 3, 3): all probability of the label
    truth: torch.Tensor  # (B, 3): pixels of the label
    costs: torch.Tensor  # (B, 3): shares of the whole slice

    def loss(self, choice: torch.Tensor, price: float, rows: torch.Tensor) -> torch.Tensor:
        """`meddanet.decision_loss` of the slices `rows` under choices (B, 3)."""
        both, found = (torch.einsum("bk,bkc->c", choice, sums[rows]) for sums in (self.both, self.found))
        dice = 1 - 2 * both / (found + self.truth[rows].sum(0) + 1e-5)
        return dice.sum() + price * (choice * self.costs[rows]).sum(1).mean()


@torch.no_grad()
def look_at(model: MedDANet, train: Sequence[Volume], progress: bool = True) -> Outcomes:
    """Skip, crop and whole on every slice of the patients."""
    model.eval()
    parts, some = [], train[: at_most(len(train), PATIENTS)]
    for volume in tqdm(some, desc="outcomes", unit="patient", disable=not progress, leave=False):
        volume = excerpt(volume, at_most(len(volume.image), FEW))
        for x, labels in zip(volume.image.split(SLICES), volume.target.split(SLICES), strict=True):
            y, costs = outcomes(model, x, adaptive=False)
            truth = F.one_hot(labels, 4).movedim(-1, 1)[:, 1:].float()
            both = torch.einsum("bkchw,bchw->bkc", y[:, :, 1:], truth)
            parts.append((x, both, y[:, :, 1:].sum((3, 4)), truth.sum((2, 3)), costs))
    return Outcomes(*map(torch.cat, zip(*parts, strict=True)))


def train_decision(
    model: MedDANet,
    seen: Outcomes,
    price: float,
    steps: int = 180,
    slices: int = 32,
    lr: float = 2e-3,
    seed: int = 0,
    progress: bool = True,
) -> nn.Module:
    """A decision network for a `price`, trained from the model's own; the model stays as it is."""
    steps = at_most(steps, STEPS)
    decision = copy.deepcopy(model.decision).train()
    optimizer = torch.optim.Adam(decision.parameters(), lr)
    numbers = torch.Generator().manual_seed(seed)
    bar = tqdm(range(steps), desc=f"decision at {price:g}", unit="step", disable=not progress, leave=False)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = rate(step, steps, lr)
        rows = torch.randint(len(seen.x), (slices,), generator=numbers)
        loss = seen.loss(hard_choice(decision(seen.x[rows]), numbers), price, rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
    return decision.eval()


@dataclass(frozen=True)
class Read:
    """A volume, read slice by slice."""

    labels: np.ndarray  # (S, H, W) uint8, label values
    choices: np.ndarray  # (S,)
    costs: np.ndarray  # (S,) shares of the whole slice at full precision


@torch.inference_mode()
def read(model: MedDANet, volume: Volume, always: int | None = None) -> Read:
    """Segment a patient by the model's decisions, or `always` by one choice (and then decide nothing).

    In quick mode the few with most label are read, and all others skipped.
    """
    model.eval()
    S, area = len(volume.image), (volume.target > 0).flatten(1).sum(1)
    classes, choices, costs = torch.zeros_like(volume.target), torch.full((S,), SKIP), torch.zeros(S)
    for some in area.topk(at_most(S, FEW)).indices.sort().values.split(SLICES):
        x = volume.image[some]
        if always is None:
            y, choices[some], costs[some] = model(x, adaptive=False)
        else:
            y, costs[some] = (model.skip, model.crop, lambda x: model.whole(x))[always](x)
            choices[some] = always
        classes[some] = y.argmax(1)
    labels = np.asarray(classes_of(volume.case), np.uint8)[classes.numpy()]
    return Read(labels, choices.numpy(), costs.numpy())
