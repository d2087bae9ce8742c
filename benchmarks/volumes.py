"""Does it pay to look at the neighbouring slices? LoRA, full and head tuning, ST-Adapter, Med-Tuning.

    python benchmarks/volumes.py                 run what is missing, print the tables
    python benchmarks/volumes.py --table         only print what is there
    python benchmarks/volumes.py st_adapter      this row alone, with and without ghosts
    python benchmarks/volumes.py lora-still      LoRA on patients who lay still

Neighbours teach little more than a single slice, so methods are compared on equal batches: whether a method
looks at neighbours or not, a step sees 4 runs of 4 neighbouring slices of 20 patients, and there are 200
steps. Of two learning rates (of the head where nothing else is tuned) the one with the higher mean Dice on
six validation patients, with seed 0, is kept, and three seeds of it are measured on twenty test patients.
Once with patients who moved, so that single slices show tumours that are not there, and once with the same
patients lying still (`labkit.data.ghosts`): what is left of a difference then has other reasons.

Each row is a file under data/results/volumes/, rewritten after every training: an interrupted run goes on
where it stopped. It holds the scores of every test patient, in the order of `brain_patients("test")`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy import stats

from labkit.data.brain import brain_patients
from labkit.data.slices import Volume, to_volume
from labkit.files import write_atomically
from labkit.methods import Full, Head, LoRA, MedTuning, STAdapter
from labkit.metrics import BRATS_REGIONS
from labkit.paths import data_dir
from labkit.quick import PATIENTS, at_most
from labkit.segmenter import segmenter
from labkit.training import Recipe, evaluate, fit, mean_dice
from labkit.tuning import Method, count, tune

OUT = data_dir() / "results" / "volumes"
TRAIN, VALIDATION, TEST = 20, 6, 20
STEPS, RUNS, SLICES, SEEDS = 200, 4, 4, (0, 1, 2)
SCORES = {"dice": "Dice", "lesion_dice": "lesion-wise Dice"}
MEASURED = (*SCORES, "false_lesions")
METHODS: dict[str, tuple[Method, tuple[float, float]]] = {  # and its two rates
    "head": (Head(), (2e-3, 4e-3)),
    "full": (Full(), (3e-4, 1e-3)),
    "lora": (LoRA(), (1e-3, 3e-3)),
    "st_adapter": (STAdapter(), (1e-3, 2e-3)),
    "med_tuning": (MedTuning(), (1e-3, 2e-3)),
}
RIVAL = "lora"  # whom the others are compared with: frozen as they are, and blind to neighbours


@dataclass(frozen=True)
class Row:
    """A method on patients who moved, or lay still."""

    method: str
    ghosts: bool

    @property
    def name(self) -> str:
        return f"{self.method}-{'ghosts' if self.ghosts else 'still'}"

    def recipe(self, rate: float, seed: int) -> Recipe:
        rates = {"head_lr": rate} if self.method == "head" else {"lr": rate}
        return Recipe(steps=STEPS, volumes=RUNS, slices=SLICES, seed=seed, **rates)


ROWS = [Row(method, ghosts) for ghosts in (True, False) for method in METHODS]


@cache
def volumes(part: str, n: int, ghosts: bool) -> list[Volume]:
    return [to_volume(case) for case in brain_patients(part, at_most(n, PATIENTS), ghosts=ghosts)]


def place(row: Row, out: Path) -> Path:
    return out / f"{row.name}.json"


def read(row: Row, out: Path) -> dict:
    """What is known of a row: its file, or a row without trainings."""
    file = place(row, out)
    return json.loads(file.read_text()) if file.exists() else {**asdict(row), "trainings": []}


def write(row: Row, known: dict, out: Path) -> None:
    write_atomically(place(row, out), lambda path: path.write_text(json.dumps(known) + "\n"))


def train(row: Row, known: dict, rate: float, seed: int, out: Path) -> dict:
    """The row's training with this rate and seed, made and written if it is not there yet."""
    for one in known["trainings"]:
        if (one["rate"], one["seed"]) == (rate, seed):
            return one
    recipe = row.recipe(rate, seed)
    model = tune(segmenter(seed=seed), METHODS[row.method][0], seed)
    fit(model, volumes("train", TRAIN, row.ghosts), recipe)
    how = dict(hausdorff=False, slices=SLICES)
    validation = mean_dice(evaluate(model, volumes("validation", VALIDATION, row.ghosts), **how))
    found = evaluate(model, volumes("test", TEST, row.ghosts), lesions=True, **how)
    test = {
        score: {r: [round(one[score], 4) for one in found if one["region"] == r] for r in BRATS_REGIONS}
        for score in MEASURED
    }
    known |= {"tuned": count(model).tuned, "inserted": count(model).inserted, "recipe": asdict(recipe)}
    known["trainings"].append({"rate": rate, "seed": seed, "validation": validation, "test": test})
    write(row, known, out)
    return known["trainings"][-1]


def finish(row: Row, known: dict, out: Path) -> None:
    """All trainings of a row, and which rate did better."""
    _, rates = METHODS[row.method]
    known["rate"] = max(rates, key=lambda rate: train(row, known, rate, SEEDS[0], out)["validation"])
    for seed in SEEDS:
        train(row, known, known["rate"], seed, out)
    known["complete"] = True
    write(row, known, out)


def tests(known: dict, score: str) -> np.ndarray:
    """The chosen rate's test scores: (seeds, regions, patients)."""
    chosen = [one for one in known["trainings"] if one["rate"] == known["rate"]]
    return np.array([[one["test"][score][region] for region in BRATS_REGIONS] for one in chosen])


def paired(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Mean difference of the same patients' scores, and half its 95 % interval (Student's t)."""
    d = a - b
    return float(d.mean()), float(stats.t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / np.sqrt(len(d)))


def line(known: dict, rival: dict, score: str) -> str:
    """Per region and in the mean: mean over seeds; then their spread, and the difference to the rival."""
    found = 100 * tests(known, score)
    regions, means = found.mean((0, 2)), found.mean((1, 2))
    cells = [f"{value:.1f}" for value in regions] + [f"{means.mean():.1f} ({means.std(ddof=1):.1f})"]
    if known["method"] == RIVAL or not rival.get("complete"):
        cells.append("")
    else:  # each patient's mean over seeds and regions
        difference, half = paired(found.mean((0, 1)), 100 * tests(rival, score).mean((0, 1)))
        cells.append(f"{difference:+.1f} ({difference - half:.1f} to {difference + half:.1f})")
    return " | ".join(cells)


def table(ghosts: bool, score: str, out: Path) -> str:
    """Markdown: one of the scores, with or without ghosts."""
    heads = ["method", "tuned", "rate", *BRATS_REGIONS, "mean (deviation over seeds)"]
    heads += [f"beside {RIVAL} (95 % interval over patients)"]
    heads += ["false lesions a patient, WT"] if score == "lesion_dice" else []
    lines = [f"| {' | '.join(heads)} |", "| --- " + "| ---: " * (len(heads) - 1) + "|"]
    rival = read(Row(RIVAL, ghosts), out)
    for method in METHODS:
        known = read(Row(method, ghosts), out)
        if not known.get("complete"):
            done = len(known["trainings"])
            lines.append(f"| {method} | not computed yet ({done} trainings) " + "| " * (len(heads) - 2) + "|")
            continue
        cells = f"| {method} | {known['tuned']:,} | {known['rate']:g} | {line(known, rival, score)} |"
        if score == "lesion_dice":
            false = tests(known, "false_lesions")[:, list(BRATS_REGIONS).index("WT")].mean()
            cells += f" {false:.1f} |"
        lines.append(cells)
    return "\n".join(lines)


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
    if unknown := [one for one in asked.rows if not any(row.name.startswith(one) for row in ROWS)]:
        parser.error(f"no row begins with {unknown[0]}; there are {', '.join(row.name for row in ROWS)}")
    if not asked.table:
        for row in ROWS:
            if not asked.rows or any(row.name.startswith(one) for one in asked.rows):
                print(row.name, flush=True)
                finish(row, read(row, asked.out), asked.out)
    for ghosts in (True, False):
        for score, title in SCORES.items():
            print(f"\n{title}, patients {'with ghosts' if ghosts else 'who lay still'}\n")
            print(table(ghosts, score, asked.out))


if __name__ == "__main__":
    main()
