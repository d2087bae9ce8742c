"""The lecture's parameter tables, printed values beside counted ones; on the meta device, so in seconds."""

from __future__ import annotations

import copy
import csv
from dataclasses import dataclass

import torch

from labkit.methods import (
    Adapter,
    AdapterBias,
    AdapterDrop,
    BitFit,
    Compacter,
    LoRA,
    ParallelAdapter,
    PrefixTuning,
)
from labkit.methods.paper import NETWORKS, ROWS
from labkit.networks.segmenter import segmenter
from labkit.paths import data_dir
from labkit.tuning import Method, count, delta, tune

TITLES = {"vit": "ViT-B/16 + UPerNet", "swin": "Swin-UNet"}


def med_tuning_table(body: str) -> str:
    """Tuned and inserted parameters of Med-Tuning's table for "vit" or "swin", as Markdown."""
    backbone, decoder = NETWORKS[body]
    lines = [
        f"| {TITLES[body]} | tuned, paper (M) | tuned, ours | inserted, paper (M) | inserted, ours |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    with torch.device("meta"):
        untuned = segmenter(backbone, decoder=decoder, weights=None)
    for row in ROWS:
        with torch.device("meta"):
            found = count(tune(copy.deepcopy(untuned), getattr(row, body)))
        tuned, inserted = getattr(row, f"printed_{body}")
        printed = "-" if inserted is None else f"{inserted:.3f}"
        ours = f"{found.inserted:,}" if found.inserted else "-"
        lines.append(f"| {row.name} | {tuned:.3f} | {found.tuned:,} | {printed} | {ours} |")
    return "\n".join(lines)


def published(data: str, body: str, score: str = "dice") -> dict[str, dict[str, float]]:
    """{method: {region: value}} as the Med-Tuning paper prints them for BraTS 2019, BraTS 2020 or KiTS19."""
    found: dict[str, dict[str, float]] = {}
    with (data_dir() / "published" / "med_tuning.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if (row["data"], row["network"]) == (data, body) and row[score]:
                found.setdefault(row["method"], {})[row["region"]] = float(row[score])
    return found


@dataclass(frozen=True)
class Formula:
    """A row of the lecture's summary table on a ViT-B/16: d_h = 768, d_m the bottleneck, L = 12 layers."""

    name: str
    written: str
    value: int
    method: Method
    why: str  # in one line, why the count is another


d, L, FF = 768, 12, 3072
FORMULAS = (
    Formula(
        "Sequential adapter, d_m = 64",
        "L x 2 x (2 d_h d_m)",
        L * 2 * 2 * d * 64,
        Adapter(m=64),
        "the two biases, d_h + d_m for each adapter",
    ),
    Formula(
        "Compacter, n = 4, d_m = 24",
        "L x 2 x (2 (d_h + d_m))",
        L * 2 * 2 * (d + 24),
        Compacter(),
        "biases, and the n^3 numbers of the shared rules",
    ),
    Formula(
        "AdapterDrop, n = 5, d_m = 64",
        "(L - n) x 2 x (2 d_h d_m)",
        (L - 5) * 2 * 2 * d * 64,
        AdapterDrop(n=5, m=64),
        "the two biases, d_h + d_m for each adapter",
    ),
    Formula(
        "Parallel adapter, d_m = 64",
        "L x 2 x (2 d_h d_m)",
        L * 2 * 2 * d * 64,
        ParallelAdapter(m=64),
        "the paper's best form stands beside the MLP only: half, and biases",
    ),
    Formula(
        "AdapterBias",
        "L x 2 x d_h",
        L * 2 * d,
        AdapterBias(),
        "the authors' code weighs the d_ff = 3072 hidden values of the MLP, not the d_h of its output",
    ),
    Formula(
        "Prefix tuning, n = 10, d_m = 512, while training",
        "n d_m + d_m^2 + L x 2 x d_h d_m",
        10 * 512 + 512**2 + L * 2 * d * 512,
        PrefixTuning(n=10, mid=512),
        "the embedding has width d_h, not d_m, and both layers have biases",
    ),
    Formula(
        "LoRA on two matrices, d_m = 8",
        "L x 2 x (2 d_h d_m)",
        L * 2 * 2 * d * 8,
        LoRA(r=8),
        "none",
    ),
    Formula(
        "BitFit, d_m = d_ff = 3072",
        "L x (7 d_h + d_m)",
        L * (7 * d + FF),
        BitFit(),
        "the patch embedding's and the last norm's bias; and d_m has to mean d_ff here, not a bottleneck",
    ),
)


def formula_table() -> str:
    """The lecture's summary table on a ViT-B/16, each formula beside what is really added, as Markdown."""
    import timm

    lines = ["| method | lecture | = | counted | the difference is |", "| --- | --- | ---: | ---: | --- |"]
    with torch.device("meta"):
        pretrained = timm.create_model("vit_base_patch16_224", num_classes=0).requires_grad_(False)
        for row in FORMULAS:
            row.method.inject(vit := copy.deepcopy(pretrained))
            found = sum(p.numel() for p in delta(vit).values())
            lines.append(f"| {row.name} | `{row.written}` | {row.value:,} | {found:,} | {row.why} |")
    return "\n".join(lines)
