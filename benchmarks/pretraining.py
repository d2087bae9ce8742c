"""Does pre-training pay? Five rows, on 4 and on 20 patients, at a budget of seconds, of steps, and to convergence.

    python benchmarks/pretraining.py --out data/results           what is missing is run, the tables are written

Every row trains on the same slices with the same decoder, whose rate is 2e-3. The rate of what a row tunes in the
backbone is chosen from one grid by Dice on the validation patients, with seed 0; the head row, which tunes nothing there,
chooses its decoder's rate from the same grid. Then three seeds are measured on the 20 test patients. Steps for a
budget of seconds come from each row's step time, measured once and kept, so that results do not depend on how busy
the machine was later. `--teacher FILE` adds the first six blocks of the bundled backbone's teacher.
"""
from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from labkit.anatomy import feature_widths
from labkit.backbones import TINY
from labkit.data.brain import brain_patients
from labkit.data.slices import to_volume
from labkit.decoders.light import LightDecoder
from labkit.distill import load_teacher
from labkit.files import replace as write_file
from labkit.methods import Full, Head, LoRA, Scratch
from labkit.segmenter import Segmenter, segmenter
from labkit.training import Recipe, evaluate, fit, mean_dice
from labkit.tuning import tune

GRID = (1e-4, 3e-4, 1e-3, 3e-3)
SEEDS = (0, 1, 2)
ROWS = {
    "scratch": (Scratch(), "default"),
    "random + LoRA": (LoRA(), None),
    "pretrained + head": (Head(), "default"),
    "pretrained + LoRA": (LoRA(), "default"),
    "pretrained + full": (Full(), "default"),
}
TEACHER_ROWS = {f"teacher's first six blocks + {name}": (method, "teacher")
                for name, method in {"head": Head(), "LoRA": LoRA()}.items()}


class FirstFour(nn.Module):
    """Feature maps of four of the teacher's six blocks are taken, as of the student's four: after 2, 3, 4 and 6."""


def build(row: str, seed: int, teacher: Path | None) -> nn.Module:
    method, weights = (ROWS | TEACHER_ROWS)[row]
    if weights == "teacher":
        model = teacher_segmenter(teacher, seed)
    else:
        model = segmenter(weights=weights, seed=seed)
    return tune(model, replace(method, seed=seed) if isinstance(method, Scratch) else method)
