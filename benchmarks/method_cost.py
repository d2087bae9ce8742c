"""What a training step of each method costs beside one of full fine-tuning: on the laptop and at full size.

    python benchmarks/method_cost.py                      every method on tiny, a run of 4 slices
    python benchmarks/method_cost.py --backbone vit_b16   on ViT-B/16 with UPerNet, the same
    python benchmarks/method_cost.py lora med_tuning --repeats 9     two of them, steadier times
    python benchmarks/method_cost.py --backbone vit_b16 --device cuda     on a GPU

Memory is what a step must hold besides the network: what autograd keeps for the backward pass (in float32,
`labkit.training.cost`), the gradients and AdamW's two moments. Times are ratios of medians; method and full
take turns, so that other work slows both alike. Weights are random: costs do not depend on them. On a GPU a
last column is the most memory PyTorch held during a step, network, gradients and moments included.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable

import torch
from peft_cost import in_turn, stepper

from labkit.methods import METHODS
from labkit.networks.segmenter import segmenter
from labkit.training.cost import MIB, nbytes, saved_for_backward
from labkit.training.precision import autocast
from labkit.tuning import delta, tune

NETWORKS = {"tiny": ("light", (1, 4, 4, 96, 96)), "vit_b16": ("upernet", (1, 4, 4, 128, 128))}


def held(model: torch.nn.Module, x: torch.Tensor) -> tuple[float, float]:
    """MiB kept for the backward pass; MiB of gradients and moments."""
    return saved_for_backward(model, x) / MIB, 3 * nbytes(delta(model).values()) / MIB


def whole(action: Callable[[], None], device: str) -> Callable[[], None]:
    """The action in bfloat16 where `autocast` says so, and to its end: a GPU works on after the call."""

    def run() -> None:
        with autocast(device):
            action()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("methods", nargs="*", help="names in labkit.methods; all if none")
    parser.add_argument("--backbone", choices=NETWORKS, default="tiny")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    asked = parser.parse_args()
    device = asked.device
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch finds no GPU here; leave --device out, or run this where nvidia-smi lists one")
    torch.manual_seed(0)
    decoder, shape = NETWORKS[asked.backbone]
    x, random = torch.randn(shape, device=device), segmenter(asked.backbone, weights=None, decoder=decoder)
    full = tune(copy.deepcopy(random), METHODS["full"]()).to(device)
    of_full = sum(held(full, x))
    full_step = whole(stepper(full, x), device)
    full_step()  # its gradients and moments stay, and are no part of another method's peak
    peak_named, peak_rule = (" peak, MiB |", " ---: |") if device == "cuda" else ("", "")
    print(
        "| method | tuned | activations, MiB | gradients and moments, MiB | both, x full | step, x full |",
        end="",
    )
    print(f"{peak_named}\n| --- | ---: | ---: | ---: | ---: | ---: |{peak_rule}")
    for name in asked.methods or METHODS:
        before = torch.cuda.memory_allocated() if device == "cuda" else 0
        model = tune(copy.deepcopy(random), METHODS[name]()).to(device)
        activations, others = held(model, x)
        its_step, peak = whole(stepper(model, x), device), ""
        if device == "cuda":
            its_step()
            torch.cuda.reset_peak_memory_stats()
            its_step()
            peak = f" {(torch.cuda.max_memory_allocated() - before) / MIB:.0f} |"
        seconds = in_turn({"it": its_step, "full": full_step}, asked.repeats)
        tuned = sum(p.numel() for p in delta(model).values())
        print(
            f"| {name} | {tuned:,} | {activations:.1f} | {others:.1f} | "
            f"{(activations + others) / of_full:.2f} | {seconds['it'] / seconds['full']:.2f} |{peak}",
            flush=True,
        )
        del model, its_step


if __name__ == "__main__":
    main()
