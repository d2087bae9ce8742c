"""Train the delta of a model, and measure a model on whole patients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

from labkit.anatomy import head
from labkit.backbones import autocast
from labkit.data.slices import Volume, classes_of, sample_slabs
from labkit.files import replace
from labkit.metrics import regions_of, score
from labkit.tuning import delta


@dataclass(frozen=True)
class Recipe:
    """How to train. A step sees `volumes` runs of `slices` neighbours; the laptop's sees 16 single slices,
    since neighbours resemble each other and teach little more than one of them."""

    steps: int = 150
    lr: float = 1e-3  # of what the method tunes in the backbone
    head_lr: float = 2e-3  # of the head, the same for every method
    volumes: int = 16
    slices: int = 1
    warmup: float = 0.1  # share of the steps
    weight_decay: float = 1e-2  # not on biases, norms and other vectors
    seed: int = 0
    check_every: int = 50  # steps between looks at the validation patients
    patience: int = 5  # looks without a better mean Dice before stopping


def fit(
    model: nn.Module,
    train: Sequence[Volume],
    recipe: Recipe = Recipe(),
    validation: Sequence[Volume] = (),
    checkpoint: Path | None = None,
    progress: bool = True,
) -> list[dict]:
    """Train the delta of `model` in place; one row per step: step, loss, now and then validation Dice.

    With validation patients the best delta is kept and training stops early. With a checkpoint an interrupted
    run goes on and ends bit-identically. The batch and the random numbers of a step depend on the seed and
    the step alone.
    """
    trained = delta(model)
    optimizer = torch.optim.AdamW(parameter_groups(model, recipe), betas=(0.9, 0.99))
    state = dict(recipe=asdict(recipe), step=0, history=[], best=-1.0, best_delta={}, misses=0)
    if checkpoint and checkpoint.exists():
        state = resume(checkpoint, recipe, trained, optimizer)
    size = tuple(model.size)
    bar = tqdm(
        total=recipe.steps,
        initial=state["step"],
        desc="training",
        unit="step",
        disable=not progress,
        leave=False,
    )
    with torch.random.fork_rng(devices=[]), bar:
        while state["step"] < recipe.steps and state["misses"] < recipe.patience:
            step = state["step"]
            torch.manual_seed(recipe.seed * 10**6 + step)  # dropout
            x, y = sample_slabs(
                train,
                recipe.volumes,
                recipe.slices,
                size,
                torch.Generator().manual_seed(recipe.seed * 10**6 + step),
            )
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * schedule(step, recipe)
            model.train()
            with autocast():
                logits = model(x)
            loss = dice_ce(logits.flatten(0, 1).float(), y.flatten(0, 1))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trained.values(), 1.0)
            optimizer.step()
            state["step"] += 1
            state["history"].append(dict(step=state["step"], loss=loss.item()))
            bar.update()
            bar.set_postfix(loss=f"{loss.item():.3f}")
            if state["step"] % recipe.check_every == 0 or state["step"] == recipe.steps:
                if validation:
                    keep_best(state, trained, mean_dice(evaluate(model, validation, hausdorff=False)))
                if checkpoint:
                    replace(
                        checkpoint,
                        lambda path: torch.save(
                            state | dict(delta=copies(trained), optimizer=optimizer.state_dict()), path
                        ),
                    )
    with torch.no_grad():
        for name, best in state["best_delta"].items():
            trained[name].copy_(best)
    return state["history"]


def copies(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: t.detach().clone() for name, t in tensors.items()}


def keep_best(state: dict, trained: dict[str, nn.Parameter], dice: float) -> None:
    state["history"][-1]["validation_dice"] = dice
    state["misses"] += 1
    if dice > state["best"]:
        state.update(best=dice, best_delta=copies(trained), misses=0)


@torch.no_grad()
def resume(
    checkpoint: Path, recipe: Recipe, trained: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict:
    """The state that `fit` left in a file, after filling the parameters and the optimizer from it."""
    state = torch.load(checkpoint, weights_only=True)
    stored = state.pop("delta")
    shapes, stored_shapes = ({name: t.shape for name, t in tensors.items()} for tensors in (trained, stored))
    if state["recipe"] != asdict(recipe) or shapes != stored_shapes:
        raise ValueError(
            f"{checkpoint} belongs to another recipe or model; delete it to start anew, or name another file."
        )
    for name, parameter in trained.items():
        parameter.copy_(stored[name])
    optimizer.load_state_dict(state.pop("optimizer"))
    return state


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict]:
    """Head and the rest with their own peak rates; weight decay on matrices only."""
    in_head = {id(p) for p in head(model)}
    groups = []
    for peak, belongs in ((recipe.head_lr, True), (recipe.lr, False)):
        mine = [p for p in delta(model).values() if (id(p) in in_head) == belongs]
        for matrices, decay in ((True, recipe.weight_decay), (False, 0.0)):
            some = [p for p in mine if (p.ndim >= 2) == matrices]
            if some:
                groups.append(dict(params=some, peak=peak, lr=peak, weight_decay=decay))
    return groups


def schedule(step: int, recipe: Recipe) -> float:
    """Share of the peak rate: linear warm-up, then half a cosine down to 0."""
    warm = max(1, round(recipe.warmup * recipe.steps))
    if step < warm:
        return (step + 1) / warm
    return (1 + math.cos(math.pi * (step - warm) / max(1, recipe.steps - warm))) / 2


def dice_ce(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross-entropy plus 1 - soft Dice of the batch's labels: (n, K, H, W) and (n, H, W) -> scalar."""
    onehot = F.one_hot(target, logits.shape[1]).movedim(-1, 1).float()
    p = logits.softmax(1)
    overlap, total = (p * onehot).sum((0, 2, 3)), (p + onehot).sum((0, 2, 3))
    soft_dice = (2 * overlap + 1) / (total + 1)
    return F.cross_entropy(logits, target) + 1 - soft_dice[1:].mean()


@torch.no_grad()
def predict(model: nn.Module, volume: Volume, batch: int = 16) -> np.ndarray:
    """Label values of every voxel: (S, H, W) uint8."""
    model.eval()
    found = []
    for image in volume.image.split(batch):
        with autocast():
            found.append(model(image[None])[0].argmax(1))
    return np.asarray(classes_of(volume.case), np.uint8)[torch.cat(found).numpy()]


def evaluate(
    model: nn.Module, volumes: Sequence[Volume], hausdorff: bool = True, progress: bool = False
) -> list[dict]:
    """One row per patient and region: case, region, dice (and hd95 in mm)."""
    rows = []
    for volume in tqdm(volumes, desc="evaluating", unit="patient", disable=not progress, leave=False):
        case = volume.case
        regions = regions_of(case.label_names)
        found = score(predict(model, volume), case.label, case.spacing_mm, regions, hausdorff)
        rows += [dict(case=case.name, region=region, **values) for region, values in found.items()]
    return rows


def mean_dice(rows: list[dict]) -> float:
    """Mean over regions of the mean over patients."""
    regions = {row["region"] for row in rows}
    return float(np.mean([np.mean([row["dice"] for row in rows if row["region"] == r]) for r in regions]))
