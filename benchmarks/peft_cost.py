"""What a method costs beside full fine-tuning, and LoRA beside Hugging Face's peft: one run, two tables.

    python benchmarks/peft_cost.py                 tiny, 16 slices; the second table needs peft
    python benchmarks/peft_cost.py --repeats 20    steadier times

Times are ratios of medians; the two sides of a ratio take turns, so that other work slows both alike.
Memory is what autograd keeps for the backward pass, in float32 (`labkit.training.cost`); it does not vary.
"""

from __future__ import annotations

import argparse
import copy
import time

import numpy as np
import torch
from torch import nn

from labkit.methods import METHODS, LoRA
from labkit.networks.backbones import load_backbone
from labkit.networks.segmenter import segmenter
from labkit.training.cost import MIB, saved_for_backward, step
from labkit.tuning import delta, merge, tune


def in_turn(actions: dict, repeats: int) -> dict[str, float]:
    """Median seconds of each action, one of each per round."""
    seconds = {name: [] for name in actions}
    for round_ in range(repeats + 2):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            if round_ >= 2:  # the first ones warm up
                seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(each)) for name, each in seconds.items()}


def stepper(model: nn.Module, x: torch.Tensor):
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    model.train()
    return lambda: step(model, x, optimizer)


def methods_beside_full(x: torch.Tensor, repeats: int) -> None:
    print("| method | tuned | kept for backward, MiB | x full | step, x full |")
    print("| --- | ---: | ---: | ---: | ---: |")
    pretrained = segmenter()
    full = tune(copy.deepcopy(pretrained), METHODS["full"]())
    kept_full = saved_for_backward(full, x)
    for name, method in METHODS.items():
        model = tune(copy.deepcopy(pretrained), method())
        kept, tuned = saved_for_backward(model, x), sum(p.numel() for p in delta(model).values())
        seconds = in_turn({"it": stepper(model, x), "full": stepper(full, x)}, repeats)
        ratio = seconds["it"] / seconds["full"]
        print(f"| {name} | {tuned:,} | {kept / MIB:.1f} | {kept / kept_full:.2f} | {ratio:.2f} |", flush=True)


class Pooled(nn.Module):
    """A backbone as both libraries tune it, with one number per slice as its output."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.backbone(x).mean((1, 2))

    def get_classifier(self) -> nn.Module:
        return nn.Identity()


def lora_beside_peft(x: torch.Tensor, repeats: int, r: int = 8) -> None:
    """peft sees timm's fused qkv as one matrix: rank 2r there is as many numbers as our r on q and on v."""
    from peft import LoraConfig, get_peft_model

    base = load_backbone("tiny")
    ours = tune(Pooled(copy.deepcopy(base)), LoRA(r=r))
    for r_theirs, name in (
        (r, f"peft, r = {r} on qkv"),
        (2 * r, f"peft, r = {2 * r} on qkv (as many numbers)"),
    ):
        config = LoraConfig(r=r_theirs, lora_alpha=r_theirs, target_modules=["qkv"], lora_dropout=0.0)
        theirs = get_peft_model(Pooled(copy.deepcopy(base)), config)
        seconds = in_turn({"ours": stepper(ours, x), "theirs": stepper(theirs, x)}, repeats)
        kept = saved_for_backward(ours, x) / saved_for_backward(theirs, x)
        print(
            f"| ours, r = {r} on q and v, over {name} | {kept:.3f} | "
            f"{seconds['ours'] / seconds['theirs']:.3f} |"
        )
    merged, plain = merge(copy.deepcopy(ours)).eval(), Pooled(copy.deepcopy(base)).eval()
    with torch.inference_mode():
        seconds = in_turn({"merged": lambda: merged(x), "plain": lambda: plain(x)}, repeats)
    print(f"| ours merged over the base, inference | - | {seconds['merged'] / seconds['plain']:.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=8)
    repeats = parser.parse_args().repeats
    torch.manual_seed(0)
    methods_beside_full(torch.randn(4, 4, 4, 96, 96), repeats)
    print("\n| LoRA, tiny, 16 slices | kept for backward, ratio | time, ratio |\n| --- | ---: | ---: |")
    lora_beside_peft(torch.randn(16, 4, 96, 96), repeats)


if __name__ == "__main__":
    main()
