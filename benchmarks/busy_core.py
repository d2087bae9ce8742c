"""What another program on one core does to training: python benchmarks/busy_core.py [ROUNDS]

Steps of LoRA on the laptop's network by two threads, while the rest of the computer is idle and while an
endless loop keeps one core busy, as a browser that draws does. PyTorch's threads wait for each other as they
do by themselves, and as `labkit` has them wait. In turn, so that other work slows all of them alike.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from labkit import threads

WAYS = {"by itself": {}, "`labkit`": {"GOMP_SPINCOUNT": threads.SPINS}}
STEPS, THREADS = 20, 2


def steps() -> list[float]:
    """Seconds of each training step, in this process."""
    import torch
    from torch.nn import functional as F

    from labkit.methods import LoRA
    from labkit.networks.segmenter import segmenter
    from labkit.tuning import tune

    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    model = tune(segmenter("tiny", in_chans=1, classes=3), LoRA()).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    x, y = torch.randn(4, 1, 96, 96), torch.randint(0, 3, (4, 96, 96))
    seconds = []
    for _ in range(3 + STEPS):
        start = time.perf_counter()
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    return seconds[3:]


def measured(way: dict[str, str], busy: bool) -> list[float]:
    """The same in a process of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP_", "OMP_"))}
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        command = [sys.executable, __file__, "--steps"]
        done = subprocess.run(command, env=clean | way, stdout=subprocess.PIPE, text=True, check=True)
    finally:
        if other:
            other.kill()
    return [float(word) for word in done.stdout.split()]


def main(rounds: int = 3) -> None:
    found = {(busy, name): [] for busy in (False, True) for name in WAYS}
    for _ in range(rounds):
        for busy, name in found:
            found[busy, name] += measured(WAYS[name], busy)
    print(f"| other core | threads wait | median of {rounds * STEPS} steps, s | slowest | all |")
    print("| --- | --- | ---: | ---: | ---: |")
    for (busy, name), each in found.items():
        print(
            f"| {'busy' if busy else 'idle'} | {name} | {statistics.median(each):.2f} | {max(each):.2f} "
            f"| {sum(each):.1f} |"
        )


if __name__ == "__main__":
    if "--steps" in sys.argv:
        print(*steps())
    else:
        main(*map(int, sys.argv[1:]))
