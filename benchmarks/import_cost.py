"""What importing labkit costs beside `import torch`: python benchmarks/import_cost.py [RUNS]

Each import runs in a new interpreter, the three in turn, so that other work slows all of them alike.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

STATEMENTS = ("import torch", "import labkit", "import labkit.methods, labkit.training.fit")


def seconds(statement: str) -> float:
    """One import in a new interpreter, interpreter start included."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


def main(runs: int = 10) -> None:
    for statement in STATEMENTS:
        seconds(statement)  # fills the disk cache
    times = {statement: [] for statement in STATEMENTS}
    for _ in range(runs):
        for statement in STATEMENTS:
            times[statement].append(seconds(statement))
    torch = statistics.median(times["import torch"])
    print(f"| statement | median of {runs}, s | min | max | x torch |\n| --- | ---: | ---: | ---: | ---: |")
    for statement, each in times.items():
        middle = statistics.median(each)
        print(f"| `{statement}` | {middle:.3f} | {min(each):.3f} | {max(each):.3f} | {middle / torch:.3f} |")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
