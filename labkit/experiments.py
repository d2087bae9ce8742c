"""Runs: a method, data and a recipe in, a row of a table out."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from labkit.data.case import Case
from labkit.data.msd import read_cases, split
from labkit.data.slices import Volume, classes_of, to_volume
from labkit.methods import METHODS
from labkit.segmenter import Segmenter, segmenter
from labkit.training import Recipe, evaluate, fit, mean_dice
from labkit.tuning import Method, count, tune

BASELINES = ("scratch", "head")  # what a method has to beat


def train_on_folder(
    folder: str | Path, method: str, steps: int | None = None, seconds: float | None = None, seed: int = 0
) -> str:
    """Train on a Decathlon-style folder, beside the baselines: a Markdown table of Dice on held-out patients.

    Every method sees the same batches, for `steps` steps or about `seconds` of training, whichever ends
    first; 60 seconds if neither is given. Cases that can't be read are named and left out.
    """
    if method not in METHODS:
        raise ValueError(f"There is no method {method!r}; choose one of {', '.join(METHODS)}.")
    if steps is None and seconds is None:
        seconds = 60
    cases, problems = read_cases(folder)
    for problem in problems.values():
        tqdm.write(f"left out: {problem}", file=sys.stderr)
    check_alike(cases, folder)
    volumes = {case.name: to_volume(case) for case in cases}
    parts = split(volumes, seed, validation=0)  # nothing is chosen here, so nobody is needed to choose on
    train, test = ([volumes[name] for name in parts[part]] for part in ("train", "test"))
    names = tqdm(dict.fromkeys((*BASELINES, method)), desc="methods", unit="method", leave=False)
    rows = [
        dict(method=name) | run(METHODS[name](), train, test, Recipe(seed=seed), steps, seconds)
        for name in names
    ]
    return (
        f"{markdown(rows)}\n\nDice on {len(test)} held-out patients, after training on {len(train)} "
        f"others (seed {seed})."
    )


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
) -> dict:
    """Tune a fresh segmenter and measure it: its cost, Dice per region and their mean."""
    model = fresh(method, train[0].case, recipe.seed)
    recipe = replace(recipe, steps=affordable(model, train, recipe, steps, seconds))
    start = time.perf_counter()
    fit(model, train, recipe)
    row = {
        "tuned parameters": count(model).tuned,
        "steps": recipe.steps,
        "seconds": round(time.perf_counter() - start),
    }
    scores = evaluate(model, test, hausdorff=False, progress=True)
    for region in dict.fromkeys(score["region"] for score in scores):
        row[region] = float(np.mean([score["dice"] for score in scores if score["region"] == region]))
    return row | {"mean": mean_dice(scores)}


def fresh(method: Method, case: Case, seed: int) -> Segmenter:
    """A segmenter for the channels and labels of `case`, tuned by `method`; `seed` fixes its random start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return tune(segmenter(in_chans=len(case.channels), classes=len(classes_of(case)), seed=seed), method)


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
