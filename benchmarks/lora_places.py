"""Where to put LoRA? Table 5 of its paper on our patients: seven placements, one number of parameters.

    python benchmarks/lora_places.py             run what is missing, print the table
    python benchmarks/lora_places.py --table     only print what is there
    python benchmarks/lora_places.py q k,r=4     these rows alone, by the beginning of their names

Hu et al., 2021, arXiv:2106.09685, Table 5, gave GPT-3 18 million parameters in seven ways; here each way
adds 24,576 to the laptop's backbone, behind a linear head. Two rows more can't be had at that number and get
fewer, and one tunes the head alone: what does not beat it has shown nothing. All rows see the same slices of
20 patients for the same steps. Of two learning rates the one that does better on six validation patients with
seed 0 is kept, and three seeds of it are measured on ten test patients.

Each row is a file under data/results/lora_places/, rewritten after every training: an interrupted run goes
on where it stopped.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np

from labkit.anatomy import LINEARS
from labkit.data.brain import brain_patients
from labkit.data.slices import Volume, to_volume
from labkit.files import write_atomically
from labkit.methods import Head, LoRA
from labkit.paths import data_dir
from labkit.quick import at_most
from labkit.segmenter import segmenter
from labkit.training import Recipe, evaluate, fit, mean_dice
from labkit.tuning import Method, count, tune

OUT = data_dir() / "results" / "lora_places"
TRAIN, VALIDATION, TEST = 20, 6, 10
STEPS, SLICES, RATES, SEEDS = 150, 8, (1e-3, 3e-3), (0, 1, 2)
ROWS: dict[str, Method] = {
    "q,r=8": LoRA(8, targets=("q",)),
    "k,r=8": LoRA(8, targets=("k",)),
    "v,r=8": LoRA(8, targets=("v",)),
    "o,r=8": LoRA(8, targets=("o",)),
    "q,k,r=4": LoRA(4, targets=("q", "k")),
    "q,v,r=4": LoRA(4, targets=("q", "v")),
    "q,k,v,o,r=2": LoRA(2, targets=("q", "k", "v", "o")),
    "fc1,fc2,r=2": LoRA(2, targets=("fc1", "fc2")),  # fewer parameters
    "all six,r=1": LoRA(1, targets=tuple(LINEARS)),  # fewer parameters
    "head alone": Head(),
}


@cache
def volumes(part: str, n: int) -> list[Volume]:
    return [to_volume(case) for case in brain_patients(part, n)]


def place(name: str, out: Path) -> Path:
    return out / f"{name.replace(',', '-').replace(' ', '-').replace('=', '')}.json"


def read(name: str, out: Path) -> dict:
    """What is known of a row: its file, or a row without trainings."""
    file = place(name, out)
    return json.loads(file.read_text()) if file.exists() else {"name": name, "trainings": []}


def train(row: dict, rate: float, seed: int, out: Path) -> dict:
    """The row's training with this rate and seed, made and written if it is not there yet."""
    for one in row["trainings"]:
        if (one["rate"], one["seed"]) == (rate, seed):
            return one
    recipe = Recipe(steps=STEPS, lr=rate, volumes=SLICES, seed=seed)
    model = tune(segmenter(decoder="linear", seed=seed), ROWS[row["name"]], seed)
    fit(model, volumes("train", TRAIN), recipe)
    validation = evaluate(model, volumes("validation", VALIDATION), hausdorff=False)
    test = evaluate(model, volumes("test", TEST), hausdorff=False)
    row |= {"inserted": count(model).inserted, "train_patients": TRAIN, "recipe": asdict(recipe)}
    row["trainings"].append({"rate": rate, "seed": seed, "validation": mean_dice(validation), "test": test})
    write(row, out)
    return row["trainings"][-1]


def write(row: dict, out: Path) -> None:
    write_atomically(place(row["name"], out), lambda path: path.write_text(json.dumps(row, indent=1) + "\n"))


def finish(row: dict, out: Path) -> None:
    """All trainings of a row, then its rate, mean Dice, deviation over seeds, and each patient's mean."""
    rates = RATES[:1] if isinstance(ROWS[row["name"]], Head) else RATES  # a head alone has no rate of LoRA
    rate = max(rates, key=lambda one: train(row, one, SEEDS[0], out)["validation"])
    tests = [train(row, rate, seed, out)["test"] for seed in SEEDS]
    means = [mean_dice(test) for test in tests]
    found = [one for test in tests for one in test]
    patients = {
        case: float(np.mean([one["dice"] for one in found if one["case"] == case]))
        for case in dict.fromkeys(one["case"] for one in found)
    }
    row |= {"rate": rate, "mean": float(np.mean(means)), "spread": float(np.std(means, ddof=1))}
    row |= {"seeds": list(SEEDS), "patients": patients}
    write(row, out)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", help="beginnings of rows' names; all rows if none is given")
    parser.add_argument("--table", action="store_true", help="train nothing")
    parser.add_argument("--out", type=Path, default=OUT, help=f"where the files lie ({OUT})")
    asked = parser.parse_args()
    if at_most(STEPS, 0) < STEPS and asked.out == OUT and not asked.table:
        parser.error("LABKIT_QUICK=1 trains too briefly for results that are kept; unset it, or give --out")
    print("| LoRA on | adds | rate | mean Dice (deviation over seeds) |\n| --- | ---: | ---: | ---: |")
    for name in ROWS:
        if asked.rows and not any(name.startswith(one) for one in asked.rows):
            continue
        row = read(name, asked.out)
        if not asked.table:
            finish(row, asked.out)
        if "mean" not in row:
            print(f"| {name} | not computed yet | | |")
            continue
        score = f"{100 * row['mean']:.1f} ({100 * row['spread']:.1f})"
        print(f"| {name} | {row['inserted']:,} | {row['rate']:g} | {score} |", flush=True)


if __name__ == "__main__":
    main()
