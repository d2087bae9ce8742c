"""Does pre-training pay? The same network from scratch, frozen, with LoRA and in full, on few patients.

    python benchmarks/pretraining.py                        run what is missing, print the table
    python benchmarks/pretraining.py --budget steps         every row the same number of steps
    python benchmarks/pretraining.py --budget convergence   until the validation patients say stop
    python benchmarks/pretraining.py --teacher FILE         also the first six blocks of the student's teacher

All rows train on the same slices with the same decoder. The learning rate of what a row tunes in the
backbone is chosen from one grid, by Dice on the validation patients, with seed 0; the head row, which tunes
nothing there, chooses its decoder's rate from that grid. Then three seeds are measured on the 20 test
patients. The budget of seconds is turned into steps by each row's step time, measured once and kept beside
the rows, so that a result does not depend on how busy the machine was later. Rows are kept in --out, one
file each.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from labkit.backbones import TINY
from labkit.data.brain import brain_patients
from labkit.data.slices import Volume, to_volume
from labkit.decoders.light import LightDecoder
from labkit.distill import load_teacher
from labkit.experiments import affordable
from labkit.files import write_atomically as write_file
from labkit.methods import Full, Head, LoRA, Scratch
from labkit.segmenter import Segmenter, segmenter
from labkit.training import Recipe, evaluate, fit, mean_dice
from labkit.tuning import tune

GRID = (1e-4, 3e-4, 1e-3, 3e-3)
SEEDS = (0, 1, 2)
PATIENTS = (4, 20)
REGIONS = ("ET", "WT", "TC")
ROWS = {
    "scratch": (Scratch(), "default"),
    "random + LoRA": (LoRA(), None),
    "pretrained + head": (Head(), "default"),
    "pretrained + LoRA": (LoRA(), "default"),
    "pretrained + full": (Full(), "default"),
}
TEACHER_BLOCKS = 6
TEACHER_ROWS = {"teacher's six blocks + head": Head(), "teacher's six blocks + LoRA": LoRA()}


@cache
def volumes(part: str, n: int | None = None) -> list[Volume]:
    return [to_volume(case) for case in brain_patients(part, n)]


def build(row: str, seed: int, teacher: Path | None) -> Segmenter:
    if row in TEACHER_ROWS:
        return tune(teacher_segmenter(teacher, seed), TEACHER_ROWS[row])
    method, weights = ROWS[row]
    return tune(segmenter(weights=weights, seed=seed), Scratch(seed) if row == "scratch" else method)


def teacher_segmenter(path: Path, seed: int) -> Segmenter:
    """The teacher at its own patch size, on slices enlarged so that it too sees 12 x 12 patches."""
    from timm.models import adapt_input_conv

    backbone = load_teacher(path, TEACHER_BLOCKS, TINY["img_size"] // TINY["patch_size"])
    colours = backbone.patch_embed.proj
    contrasts = torch.nn.Conv2d(4, colours.out_channels, colours.kernel_size, colours.stride)
    contrasts.weight.data, contrasts.bias.data = adapt_input_conv(4, colours.weight.data), colours.bias.data
    backbone.patch_embed.proj = contrasts
    torch.manual_seed(seed)
    return Segmenter(backbone, LightDecoder([backbone.embed_dim] * 4, classes=4))


def recipe_of(row: str, rate: float, seed: int, steps: int) -> Recipe:
    recipe = Recipe(steps=steps, seed=seed)
    return replace(recipe, head_lr=rate) if row.endswith("head") else replace(recipe, lr=rate)


def steps_of(row: str, budget: str, args: argparse.Namespace) -> int:
    """Steps that a row may take."""
    if budget == "convergence":
        return 2000
    if budget == "steps":
        return args.steps
    kept = args.out / "steps.json"
    known = json.loads(kept.read_text()) if kept.exists() else {}
    if row not in known:
        model = build(row, 0, args.teacher)
        known[row] = affordable(model, volumes("train", 4), Recipe(), None, args.seconds)
        write_file(kept, lambda path: path.write_text(json.dumps(known, indent=1)))
    return known[row]


def run(row: str, n: int, rate: float, seed: int, part: str, args: argparse.Namespace) -> dict:
    """One training, measured on the validation or the test patients; kept in a file."""
    name = f"{args.budget}-{row}-{n}-{rate:g}-{seed}-{part}".replace(" ", "").replace("'", "")
    file = args.out / f"{name}.json"
    if not file.exists():
        model = build(row, seed, args.teacher)
        recipe = recipe_of(row, rate, seed, steps_of(row, args.budget, args))
        fit(
            model,
            volumes("train", n),
            recipe,
            volumes("validation")[:5] if args.budget == "convergence" else (),
        )
        scores = evaluate(model, volumes(part), hausdorff=False)
        dice = {
            region: float(np.mean([s["dice"] for s in scores if s["region"] == region])) for region in REGIONS
        }
        result = dice | {"mean": mean_dice(scores), "steps": recipe.steps}
        write_file(file, lambda path: path.write_text(json.dumps(result)))
    return json.loads(file.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--budget", choices=("seconds", "steps", "convergence"), default="seconds")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--teacher", type=Path, help="the ViT-S/14 teacher, .safetensors")
    parser.add_argument("--out", type=Path, default=Path("pretraining-rows"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    print("| patients | row | rate | steps | ET | WT | TC | mean (deviation over seeds) |")
    print("| --- " * 8 + "|")
    for n in PATIENTS:
        for row in ROWS | (TEACHER_ROWS if args.teacher else {}):
            rate = max(GRID, key=lambda lr: run(row, n, lr, 0, "validation", args)["mean"])  # noqa: B023
            found = [run(row, n, rate, seed, "test", args) for seed in SEEDS]
            dice = [100 * np.mean([f[region] for f in found]) for region in REGIONS]
            means = [100 * f["mean"] for f in found]
            print(
                f"| {n} | {row} | {rate:g} | {found[0]['steps']} |",
                *(f"{d:.1f} |" for d in dice),
                f"{np.mean(means):.1f} ({np.std(means, ddof=1):.1f}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
