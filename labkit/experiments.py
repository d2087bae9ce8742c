"""Runs: a method, data and a recipe in, a row of a table out."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from labkit.data.case import Case
from labkit.data.folders import read_folder
from labkit.data.msd import split
from labkit.data.slices import Volume, classes_of, to_volume
from labkit.methods import METHODS
from labkit.metrics import mean_by_region
from labkit.precision import best_device
from labkit.segmenter import Segmenter, segmenter
from labkit.training import Recipe, evaluate, fit, mean_dice
from labkit.tuning import Method, count, tune

LAPTOP = Recipe()
BASELINES = ("scratch", "head")  # what a method has to beat


def train_on_folder(
    folder: str | Path,
    method: str,
    steps: int | None = None,
    seconds: float | None = None,
    recipe: Recipe = LAPTOP,
    **network,
) -> list[dict]:
    """Train on a folder as of the Decathlon, BraTS or KiTS, beside the baselines: a row each, see `run`.

    `network` is what `segmenter` takes: backbone, decoder and weights, by default the laptop's. The recipe's
    seed also splits the patients.

    Every method sees the same batches, for `steps` steps or about `seconds` of training, whichever ends
    first; 60 seconds if neither is given. Cases that can't be read are named on stderr and left out.
    """
    if method not in METHODS:
        raise ValueError(f"There is no method {method!r}; choose one of {', '.join(METHODS)}.")
    if steps is None and seconds is None:
        seconds = 60
    cases, problems = read_folder(folder)
    for problem in problems.values():
        tqdm.write(f"left out: {problem}", file=sys.stderr)
    check_alike(cases, folder)
    volumes = {case.name: to_volume(case) for case in cases}
    parts = split(
        volumes, recipe.seed, validation=0
    )  # nothing is chosen here, so nobody is needed to choose on
    train, test = ([volumes[name] for name in parts[part]] for part in ("train", "test"))
    names = tqdm(dict.fromkeys((*BASELINES, method)), desc="methods", unit="method", leave=False)
    return [
        {"method": name} | run(METHODS[name](), train, test, recipe, steps, seconds, **network)
        for name in names
    ]


def check_alike(cases: Sequence[Case], folder: str | Path) -> None:
    """One network needs the same channels and labels in all cases; ValueError names one that differs."""
    if not cases:
        raise ValueError(f"{folder}: no case of it can be read; the reasons are above.")
    first = cases[0]
    for case in cases:
        for what in ("channels", "label_names"):
            if getattr(case, what) != getattr(first, what):
                raise ValueError(
                    f"{folder}: {case.name} has {what} {getattr(case, what)}, but {first.name} "
                    f"has {getattr(first, what)}; all must have the same, so leave some out."
                )


def run(
    method: Method,
    train: Sequence[Volume],
    test: Sequence[Volume],
    recipe: Recipe,
    steps: int | None = None,
    seconds: float | None = None,
    **network,
) -> dict:
    """Tune a fresh segmenter and measure it: what it cost, Dice per region and their mean."""
    model = fresh(method, train[0].case, recipe.seed, **network)
    recipe = replace(recipe, steps=affordable(model, train, recipe, steps, seconds))
    start = time.perf_counter()
    history = fit(model, train, recipe)
    seconds = time.perf_counter() - start
    scores = evaluate(model, test, False, progress=True, slices=recipe.slices, crop=recipe.crop)
    return {
        "trained on": len(train),
        "tested on": len(test),
        "tuned parameters": count(model).tuned,
        "steps": len(history),
        "seconds": round(seconds),
        **mean_by_region(scores),
        "mean": mean_dice(scores),
    }


def fresh(
    method: Method | tuple[Method, ...], case: Case, seed: int, decoder: str = "light", **network
) -> Segmenter:
    """A segmenter for the channels and labels of `case`, tuned by `method`, on the fastest device that there
    is; `seed` fixes all it draws, and `network` is what else `segmenter` takes."""
    channels, classes = len(case.channels), len(classes_of(case))
    model = segmenter(in_chans=channels, classes=classes, decoder=decoder, seed=seed, **network)
    return tune(model, method, seed).to(best_device())


def affordable(
    model: Segmenter, train: Sequence[Volume], recipe: Recipe, steps: int | None, seconds: float | None
) -> int:
    """How many steps to train: `steps`, or as many as fit into `seconds`, timed on a copy of the model."""
    if seconds is None:
        return recipe.steps if steps is None else steps
    trial, took = copy.deepcopy(model), []
    for _ in range(6):
        start = time.perf_counter()
        fit(trial, train, replace(recipe, steps=1), progress=False)
        took.append(time.perf_counter() - start)
    fit_in = max(1, int(seconds / np.median(took[1:])))  # the first step is slower
    return fit_in if steps is None else min(steps, fit_in)


def markdown(rows: Sequence[dict]) -> str:
    """Rows with the same keys as a table; fractions with three digits."""

    def line(cells) -> str:
        return f"| {' | '.join(f'{cell:.3f}' if isinstance(cell, float) else str(cell) for cell in cells)} |"

    return "\n".join([line(rows[0]), line("---" for _ in rows[0]), *(line(row.values()) for row in rows)])
