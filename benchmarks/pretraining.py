"""Does pre-training pay? The same network from scratch, frozen, with LoRA and in full, on few patients.

    python benchmarks/pretraining.py             run what is missing, print the table
    python benchmarks/pretraining.py --table     only print the table of what is there

All rows take the same 120 steps of 8 slices with the same decoder. Each row has two learning
rates of what it tunes in the backbone (the head row, which tunes nothing there, of its decoder); the better
one on six validation patients, with seed 0, is kept, and three seeds of it are measured on ten test patients.
Every training is kept in a file of its own under data/results/pretraining/: an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np

from labkit.data.brain import brain_patients
from labkit.data.slices import Volume, to_volume
from labkit.files import write_atomically
from labkit.methods import Full, Head, LoRA, Scratch
from labkit.metrics import mean_by_region
from labkit.paths import data_dir
from labkit.segmenter import segmenter
from labkit.training import Recipe, evaluate, fit
from labkit.tuning import tune

OUT = data_dir() / "results" / "pretraining"
PATIENTS, SEEDS, STEPS, SLICES = (4, 20), (0, 1, 2), 120, 8
VALIDATION, TEST = 6, 10
ROWS = {  # method, and its two rates
    "scratch": (Scratch(), (3e-4, 1e-3)),
    "pretrained, full": (Full(), (3e-4, 1e-3)),
    "pretrained, head": (Head(), (2e-3, 4e-3)),
    "pretrained, LoRA": (LoRA(), (1e-3, 3e-3)),
}


@cache
def volumes(part: str, n: int) -> list[Volume]:
    return [to_volume(case) for case in brain_patients(part, n)]


def place(row: str, n: int, rate: float, seed: int) -> Path:
    return OUT / f"{row.replace(', ', '-')}-{n}-{rate:g}-{seed}.json"


def run(row: str, n: int, rate: float, seed: int) -> dict:
    """One training, measured on validation and test patients; from its file if there is one."""
    file = place(row, n, rate, seed)
    if not file.exists():
        method, _ = ROWS[row]
        rates = dict(head_lr=rate) if isinstance(method, Head) else dict(lr=rate)
        recipe = Recipe(steps=STEPS, volumes=SLICES, seed=seed, **rates)
        model = tune(segmenter(seed=seed), method, seed)
        fit(model, volumes("train", n), recipe)
        result = dict(row=row, patients=n, recipe=asdict(recipe))
        for part, count in (("validation", VALIDATION), ("test", TEST)):
            result[part] = mean_by_region(evaluate(model, volumes(part, count), hausdorff=False))
        write_atomically(file, lambda path: path.write_text(json.dumps(result, indent=1) + "\n"))
    return json.loads(file.read_text())


def mean(dices: dict[str, float]) -> float:
    return float(np.mean(list(dices.values())))


def complete(row: str, n: int) -> bool:
    """Whether all trainings of a line are there."""
    rates = [rate for rate in ROWS[row][1] if place(row, n, rate, 0).exists()]
    if len(rates) < 2:
        return False
    return all(place(row, n, best_rate(row, n), seed).exists() for seed in SEEDS)


def best_rate(row: str, n: int) -> float:
    return max(ROWS[row][1], key=lambda rate: mean(run(row, n, rate, 0)["validation"]))


def line(row: str, n: int) -> str:
    """A line of the table: the chosen rate, then mean and deviation over seeds on the test patients."""
    best = best_rate(row, n)
    tests = [run(row, n, best, seed)["test"] for seed in SEEDS]
    regions = " | ".join(f"{100 * np.mean([test[r] for test in tests]):.1f}" for r in tests[0])
    means = [100 * mean(test) for test in tests]
    return f"| {n} | {row} | {best:g} | {regions} | {np.mean(means):.1f} ({np.std(means, ddof=1):.1f}) |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", action="store_true", help="train nothing")
    only_table = parser.parse_args().table
    print("| patients | row | rate | ET | WT | TC | mean (deviation over seeds) |")
    print("| --- " * 7 + "|")
    for n in PATIENTS:
        for row in ROWS:
            if only_table and not complete(row, n):
                print(f"| {n} | {row} | not computed yet |")
            else:
                print(line(row, n), flush=True)


if __name__ == "__main__":
    main()
