"""Labelling a scan by `labkit.training.sliding_window` beside a bare call of MONAI's inferer.

    python benchmarks/sliding_window.py                     tiny, 8 slices of 120 x 120
    python benchmarks/sliding_window.py --backbone vit_b16  ViT-B/16 with UPerNet, 4 slices of 192 x 192

The ratio of medians; both take turns, so that other work slows both alike. At most 1.05 is wanted.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from peft_cost import in_turn

from labkit.networks.segmenter import segmenter
from labkit.scans.case import Case
from labkit.scans.slices import Volume
from labkit.training.precision import autocast
from labkit.training.sliding_window import predict_windows

NETWORKS = {"tiny": ("light", (8, 120, 120), 4), "vit_b16": ("upernet", (4, 192, 192), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", choices=NETWORKS, default="tiny")
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    torch.manual_seed(0)
    decoder, shape, slices = NETWORKS[asked.backbone]
    model = segmenter(asked.backbone, weights=None, decoder=decoder).eval()
    window = (slices, *model.size)
    image = torch.randn(shape[0], 4, *shape[1:])
    nothing = np.zeros(shape, np.uint8)
    case = Case(
        "noise", image.movedim(1, 0).numpy(), nothing, (1.0,) * 3, tuple("abcd"), {1: "a", 2: "b", 3: "c"}
    )
    volume = Volume(case, image, torch.zeros(shape, dtype=torch.int64))

    def network(x: torch.Tensor) -> torch.Tensor:
        return model(x.movedim(1, 2)).movedim(2, 1)

    @torch.no_grad()
    def bare() -> np.ndarray:
        with autocast():
            logits = sliding_window_inference(
                image.movedim(1, 0)[None], window, 16 // slices, network, overlap=0.5, mode="gaussian"
            )
        return logits[0].argmax(0).numpy()

    def ours() -> np.ndarray:
        return predict_windows(model, volume, slices, tuple(model.size))

    alike = (ours() == bare()).mean()  # the mean of probabilities beside that of logits: not the same voxels
    seconds = in_turn({"ours": ours, "bare": bare}, asked.repeats)
    ratio = seconds["ours"] / seconds["bare"]
    print("| network | scan | window | labkit / MONAI | same labels |\n| --- | --- | --- | ---: | ---: |")
    print(f"| {asked.backbone} | {shape} | {window} | {ratio:.3f} | {alike:.3f} |")


if __name__ == "__main__":
    main()
