"""A method trained on a folder of one's own scans, beside what it has to beat: a row of a table each."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from labkit.methods import METHODS
from labkit.metrics import mean_by_region
from labkit.networks.segmenter import Segmenter
from labkit.scans.case import Case
from labkit.scans.folders import read_folder, split
from labkit.scans.slices import Volume, to_volume
from labkit.training.evaluate import evaluate, mean_dice
from labkit.training.fit import Recipe, fit, fresh
from labkit.training.label_scan import about_of
from labkit.tuning import Method, count, save

LAPTOP = Recipe()
BASELINES = ("scratch", "head")  # what a method has to beat


def train_on_folder(
    folder: str | Path,
    method: str,
    steps: int | None = None,
    seconds: float | None = None,
    recipe: Recipe = LAPTOP,
    out: Path | None = None,
    **network,
) -> list[dict]:
    """Train on a folder as of the Decathlon, BraTS or KiTS, beside the baselines: a row each, see `run`.

    `network` is what `segmenter` takes: backbone, decoder and weights, by default the laptop's. The recipe's
    seed also splits the patients.

    Every method sees the same batches, for `steps` steps or about `seconds` of training, whichever ends
    first; 60 seconds if neither is given. Cases that can't be read are named on stderr and left out.
    `out` is a new file for what the method has learned, with all that `labkit predict` wants to know.
    ValueError: there is no such method, `out` is there already, the cases differ.
    """
    if method not in METHODS:
        raise ValueError(f"There is no method {method!r}; choose one of {', '.join(METHODS)}.")
    if out:
        check_new(out)
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
    rows = []
    for name in names:
        kept = out if name == method else None
        row = run(METHODS[name](), train, test, recipe, steps, seconds, kept, **network)
        rows.append({"method": name} | row)
    return rows


def check_new(out: Path) -> None:
    """ValueError, before anything is trained: what is learned could not be kept in this file."""
    if out.exists() or out.suffix != ".safetensors":
        raise ValueError(f"{out}: name a new file that ends in .safetensors; nothing is overwritten.")


def check_alike(cases: Sequence[Case], folder: str | Path) -> None:
    """One network needs cases that were prepared alike; ValueError names one that differs."""
    if not cases:
        raise ValueError(f"{folder}: no case of it can be read; the reasons are above.")
    first = cases[0]
    for case in cases:
        for what in ("channels", "label_names", "window_hu", "resampled_mm"):
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
    out: Path | None = None,
    **network,
) -> dict:
    """Tune a fresh segmenter and measure it: what it cost, Dice per region and their mean.

    Its delta is kept in `out`, if given, as soon as it is trained.
    """
    model = fresh(method, train[0].case, recipe.seed, **network)
    recipe = replace(recipe, steps=affordable(model, train, recipe, steps, seconds))
    start = time.perf_counter()
    history = fit(model, train, recipe)
    seconds = time.perf_counter() - start
    if out:
        save(model, out, **about_of(train[0].case, recipe))
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
