"""Train the delta of a model: the recipe, the loop, the loss, and the checkpoint it goes on from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from numbers import Integral
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

from labkit.files import write_atomically
from labkit.networks.anatomy import head
from labkit.networks.segmenter import Segmenter, segmenter
from labkit.scans.augment import AUGMENTATIONS
from labkit.scans.case import Case
from labkit.scans.slices import Volume, classes_of, sample_slabs
from labkit.training.evaluate import evaluate, mean_dice
from labkit.training.precision import autocast, best_device, device_of
from labkit.training.quick import BATCH, STEPS, at_most
from labkit.tuning import (
    Method,
    check_finite,
    delta,
    describe,
    digest,
    fill,
    frozen_digest,
    members,
    settings,
    state,
    tune,
)

COUNTS = ("steps", "batch_size", "slices", "check_every", "patience", "accumulate")  # whole numbers from 1
CURE = "start anew with a lower lr or head_lr, or a longer warmup, and look at the scans for such numbers"
SIZES = ("lr", "head_lr", "weight_decay")  # numbers from 0


class Diverged(ValueError):
    """A training whose loss, gradient or parameters are no longer finite."""


@dataclass(frozen=True)
class Recipe:
    """How to train. A step sees `batch_size` runs of `slices` neighbours; the laptop's sees 16 single slices,
    since neighbours resemble each other and teach little more than one of them."""

    steps: int = 150
    lr: float = 1e-3  # of what the method tunes in the backbone
    head_lr: float = 2e-3  # of the head, the same for every method
    batch_size: int = 16  # runs of slices in a step
    slices: int = 1
    warmup: float = 0.1  # share of the steps
    augment: str = "plain"  # or "strong", for scans of other scanners: see labkit.scans.augment
    weight_decay: float = 1e-2  # not on biases, norms and other vectors
    seed: int = 0
    check_every: int = 50  # steps between looks at the validation patients
    patience: int = 5  # looks without a better mean Dice before stopping
    crop: bool = (
        False  # see windows of the network's size, as a full-size scan needs, not whole slices scaled
    )
    accumulate: int = 1  # parts that a step's runs are computed in, one after another, to save memory

    def __post_init__(self):
        for name in COUNTS:
            if not isinstance(number := getattr(self, name), Integral) or number < 1:
                raise ValueError(f"Recipe({name}={number}) can't be; give a whole number, at least 1.")
        if not isinstance(self.seed, Integral):
            raise ValueError(f"Recipe(seed={self.seed}) can't be; give a whole number.")
        for name in SIZES:
            if not 0 <= (number := getattr(self, name)) < math.inf:
                raise ValueError(f"Recipe({name}={number}) can't be; give a number from 0 on.")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"Recipe(warmup={self.warmup}) can't be; it is a share of the steps, 0 to 1.")
        if self.augment not in AUGMENTATIONS:
            raise ValueError(
                f"There is no augmentation {self.augment!r}; choose one of {', '.join(AUGMENTATIONS)}."
            )
        if self.accumulate > self.batch_size:
            raise ValueError(
                f"accumulate={self.accumulate} parts of {self.batch_size} runs are not possible; give 1 to "
                f"{self.batch_size}."
            )


def fresh(
    method: Method | tuple[Method, ...], case: Case, seed: int, decoder: str = "light", **network
) -> Segmenter:
    """A segmenter for the channels and labels of `case`, tuned by `method`, on the fastest device that there
    is; `seed` fixes all it draws, and `network` is what else `segmenter` takes."""
    channels, classes = len(case.channels), len(classes_of(case))
    model = segmenter(in_chans=channels, classes=classes, decoder=decoder, seed=seed, **network)
    model.preprocessing = case.preprocessing  # `evaluate` and `predict` refuse cases that are others
    return tune(model, method, seed).to(best_device())


def fit(
    model: nn.Module,
    train: Sequence[Volume],
    recipe: Recipe = Recipe(),
    validation: Sequence[Volume] = (),
    checkpoint: str | Path | None = None,
    progress: bool = True,
    on_step: Callable[[dict], None] | None = None,
) -> list[dict]:
    """Train the delta of `model` in place; one row per step: step, loss, now and then validation Dice.

    With validation patients the best delta is kept and training stops early. With a checkpoint an interrupted
    run goes on and ends bit-identically (on a CPU; other devices add in an order of their own). The batch and
    the random numbers of a step depend on the seed and the step alone. `on_step` sees each row as soon as it
    is there. In quick mode (`labkit.training.quick`) a few steps of a few slices are taken, whatever the
    recipe says.
    The model stays on its device (`labkit.training.precision.best_device`), is left in evaluation mode, and
    knows the length of its runs (`model.slices`), in which it is read from then on.
    ValueError: there is nobody to train on, the model is merged, the checkpoint belongs to something else, or
    (`Diverged`) its loss, a gradient or a parameter is no longer finite. Nothing of such a training is
    returned or kept.
    """
    if not train:
        raise ValueError("There is no patient to train on; give at least one.")
    few = at_most(recipe.batch_size, max(BATCH // recipe.slices, recipe.accumulate))
    recipe = replace(recipe, steps=at_most(recipe.steps, STEPS), batch_size=few)
    checkpoint = Path(checkpoint) if checkpoint else None
    optimizer = torch.optim.AdamW(parameter_groups(model, recipe), betas=(0.9, 0.99))
    belongs = belongs_to(model, recipe, train, validation) if checkpoint else {}
    history, best, best_state, misses = [], -1.0, {}, 0
    if checkpoint and checkpoint.exists():
        history, best, best_state, misses = resume(checkpoint, model, belongs, optimizer)
    bar = tqdm(
        total=recipe.steps,
        initial=len(history),
        desc="training",
        unit="step",
        disable=not progress,
        leave=False,
    )
    with torch.random.fork_rng(devices=[]), bar:
        for step in range(len(history), recipe.steps):
            if misses == recipe.patience:
                break
            loss = training_step(model, optimizer, train, recipe, step)
            history.append(dict(step=step + 1, loss=loss))
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}")
            if on_step:
                on_step(history[-1])
            if (step + 1) % recipe.check_every and step + 1 < recipe.steps:
                continue
            try:
                check_finite(state(model), f"After step {step + 1} the training has diverged", CURE)
            except ValueError as error:
                raise Diverged(str(error)) from None
            if validation:
                dice = mean_dice(evaluate(model, validation, False, slices=recipe.slices, crop=recipe.crop))
                history[-1]["validation_dice"] = dice
                misses += 1
                if dice > best:
                    best, best_state, misses = dice, copies(state(model)), 0
            if checkpoint:
                progress_so_far = (history, best, best_state, misses)
                keep(checkpoint, model, belongs, optimizer, progress_so_far)
    fill(model, best_state)
    model.slices = recipe.slices
    model.eval()
    return history


def training_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, train: Sequence[Volume], recipe: Recipe, step: int
) -> float:
    """One step on the batch that belongs to it; returns the loss before the step.

    Diverged: the loss or its gradient is not finite; the model is then as it was before the step.
    """
    seed = recipe.seed * 10**6 + step
    torch.manual_seed(seed)  # dropout
    numbers = torch.Generator().manual_seed(seed)
    size = tuple(model.size)
    x, y = sample_slabs(train, recipe.batch_size, recipe.slices, size, numbers, recipe.augment, recipe.crop)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * schedule(step, recipe)
    model.train()
    optimizer.zero_grad()
    loss = backward(model, x, y, recipe.accumulate)
    length = float(nn.utils.clip_grad_norm_(delta(model).values(), 1.0))
    if not (math.isfinite(loss) and math.isfinite(length)):
        raise Diverged(
            f"The training has diverged: in step {step + 1} the loss is {loss} and the length of its "
            f"gradient {length}; {CURE}."
        )
    optimizer.step()
    return loss


def backward(model: nn.Module, x: torch.Tensor, y: torch.Tensor, parts: int) -> float:
    """Add the gradient of a batch, computed in so many parts; returns its loss.

    Each part counts by its share of the runs: for a loss that is a mean over voxels, as cross-entropy is,
    the sum is the gradient of the whole batch. The soft Dice of a batch is a ratio of sums and no mean of its
    parts', and batch normalisation sees a part alone: with `dice_ce` the step differs a little from one of
    the whole batch.
    """
    device, total = device_of(model), 0.0
    for some, target in zip(x.tensor_split(parts), y.tensor_split(parts), strict=True):
        with autocast(device.type):
            logits = model(some.to(device))
        loss = dice_ce(logits.flatten(0, 1).float(), target.to(device).flatten(0, 1)) * (len(some) / len(x))
        loss.backward()
        total += loss.item()
    return total


def copies(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: t.detach().clone() for name, t in tensors.items()}


def belongs_to(
    model: nn.Module, recipe: Recipe, train: Sequence[Volume], validation: Sequence[Volume]
) -> dict:
    """What a checkpoint must agree with to be continued."""
    return {
        "recipe": asdict(recipe),
        "method": describe(model.tuned_by),
        "shapes": {name: list(t.shape) for name, t in state(model).items()},
        "backbone": frozen_digest(model),
        "training patients": digest(tensors_of(train)),
        "validation patients": digest(tensors_of(validation)),
        "preprocessing": [volume.case.preprocessing.to_json() for volume in train[:1]],
    }


def tensors_of(volumes: Sequence[Volume]) -> Iterator[torch.Tensor]:
    """All that training sees of patients."""
    for volume in volumes:
        yield from (volume.image, volume.target)


def keep(checkpoint: Path, model: nn.Module, belongs: dict, optimizer: torch.optim.Optimizer, so_far: tuple):
    """Write all that `resume` needs; `belongs` is of `belongs_to`."""
    kept = dict(
        belongs_to=belongs,
        state=copies(state(model)),
        optimizer=optimizer.state_dict(),
        so_far=so_far,
    )
    write_atomically(checkpoint, partial(torch.save, kept))


def resume(checkpoint: Path, model: nn.Module, belongs: dict, optimizer: torch.optim.Optimizer) -> tuple:
    """Fill model and optimizer from a checkpoint; returns history, best Dice, best state and misses.

    ValueError: the checkpoint is of another recipe, method, backbone or of other patients. One written before
    checkpoints named backbone and patients is taken for one of these.
    """
    kept = torch.load(checkpoint, weights_only=True, map_location="cpu")
    theirs = kept.get("belongs_to", {})
    if {"recipe", "method", "shapes"} <= theirs.keys():
        theirs = belongs | theirs
    unlike = [what for what in belongs if compared(theirs, what) != compared(belongs, what)]
    if unlike:
        raise ValueError(
            f"{checkpoint} belongs to another {' and '.join(unlike)}; delete it to start anew, or name "
            "another file."
        )
    fill(model, kept["state"])
    optimizer.load_state_dict(kept["optimizer"])
    return kept["so_far"]


def compared(belongs: dict, what: str):
    """A part of `belongs_to`, equal for equal methods however they are written."""
    return settings(belongs.get(what)) if what == "method" else belongs.get(what)


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict]:
    """Groups for the optimizer: the head's peak rate, the method's times what it asks for (`rates`), and
    weight decay on matrices only: not on what has one dimension, nor on what its module names `vectors`."""
    in_head = {id(p) for p in head(model)}
    rates = [one.rates(model) for one in members(model.tuned_by) if hasattr(one, "rates")]
    vectors = {getattr(m, name) for m in model.modules() for name in getattr(m, "vectors", ())}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for p in delta(model).values():
        peak = recipe.head_lr if id(p) in in_head else recipe.lr * math.prod(r.get(p, 1.0) for r in rates)
        decay = recipe.weight_decay if p.ndim >= 2 and p not in vectors else 0.0
        groups.setdefault((peak, decay), []).append(p)
    return [
        dict(params=params, peak=peak, lr=peak, weight_decay=decay)
        for (peak, decay), params in groups.items()
    ]


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
