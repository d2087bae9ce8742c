"""What a training step of each method costs beside one of full fine-tuning: on the laptop and at full size.

    python benchmarks/method_cost.py                      every method on tiny, a run of 4 slices
    python benchmarks/method_cost.py --backbone vit_b16   on ViT-B/16 with UPerNet, the same
    python benchmarks/method_cost.py lora med_tuning --repeats 9     two of them, steadier times

Memory is what a step must hold besides the network: what autograd keeps for the backward pass (in float32,
`labkit.training.cost`), the gradients and AdamW's two moments. Times are ratios of medians; method and full
take turns, so that other work slows both alike. Weights are random: costs do not depend on them.
"""

from __future__ import annotations

import argparse
import copy

import torch
from peft_cost import in_turn, stepper

from labkit.methods import METHODS
from labkit.networks.segmenter import segmenter
from labkit.training.cost import MIB, nbytes, saved_for_backward
from labkit.tuning import delta, tune

NETWORKS = {"tiny": ("light", (1, 4, 4, 96, 96)), "vit_b16": ("upernet", (1, 4, 4, 128, 128))}


def held(model: torch.nn.Module, x: torch.Tensor) -> tuple[float, float]:
    """MiB kept for the backward pass; MiB of gradients and moments."""
    return saved_for_backward(model, x) / MIB, 3 * nbytes(delta(model).values()) / MIB


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("methods", nargs="*", help="names in labkit.methods; all if none")
    parser.add_argument("--backbone", choices=NETWORKS, default="tiny")
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    torch.manual_seed(0)
    decoder, shape = NETWORKS[asked.backbone]
    x, random = torch.randn(shape), segmenter(asked.backbone, weights=None, decoder=decoder)
    full = tune(copy.deepcopy(random), METHODS["full"]())
    of_full = sum(held(full, x))
    full_step = stepper(full, x)
    print("| method | tuned | activations, MiB | gradients and moments, MiB | both, x full | step, x full |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in asked.methods or METHODS:
        model = tune(copy.deepcopy(random), METHODS[name]())
        activations, others = held(model, x)
        seconds = in_turn({"it": stepper(model, x), "full": full_step}, asked.repeats)
        tuned = sum(p.numel() for p in delta(model).values())
        print(
            f"| {name} | {tuned:,} | {activations:.1f} | {others:.1f} | "
            f"{(activations + others) / of_full:.2f} | {seconds['it'] / seconds['full']:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
