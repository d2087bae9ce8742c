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
from labkit.tuning import Method, count

LAPTOP = Recipe()
BASELINES = ("scratch", "head")  # what a method has to beat


def train_on_folder(
    folder: str | Path,
    methods: str | Sequence[str],
    steps: int | None = None,
    seconds: float | None = None,
    recipe: Recipe = LAPTOP,
    **network,
) -> list[dict]:
    """Train on a folder as of the Decathlon, BraTS or KiTS, beside the baselines: a row each, see `run`.

    A look, of which nothing is kept: one seed, one rate. `labkit.studies.own_study` makes a study of it.

    `network` is what `segmenter` takes: backbone, decoder and weights, by default the laptop's. The recipe's
    seed also splits the patients.

    Every method sees the same batches, for `steps` steps or about `seconds` of training, whichever ends
    first; 60 seconds if neither is given. Cases that can't be read are named on stderr and left out.
    ValueError: there is no such method, the cases differ.
    """
    methods = (methods,) if isinstance(methods, str) else tuple(methods)
    check_methods(methods)
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
    rows = []
    with tqdm(dict.fromkeys((*BASELINES, *methods)), unit="method", leave=False) as names:
        for name in names:
            names.set_description(name)
            row = run(METHODS[name](), train, test, recipe, steps, seconds, **network)
            rows.append({"method": name} | row)
    return rows


def check_methods(methods: Sequence[str]) -> None:
    """ValueError: there is no such method, none at all, or one twice."""
    for method in methods:
        if method not in METHODS:
            raise ValueError(f"There is no method {method!r}; choose one of {', '.join(METHODS)}.")
    if not methods or len(set(methods)) < len(methods):
        raise ValueError(f"--method {' '.join(methods)} can't be: name at least one, and each once.")


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
