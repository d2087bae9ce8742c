"""How long a lab runs by the clock, from the start of its kernel to its end.

    python benchmarks/labs.py                all labs in quick mode, as tests run them: trainings of one step
    python benchmarks/labs.py 02 --repeats 3 one lab, the fastest of three runs
    python benchmarks/labs.py --full         all steps and patients, no time of a student: minutes

Computers differ, and this one may be busy: right before each run a new interpreter imports torch and timm,
which every lab but 00 does, and the table says how long that took. Patients are made once and kept: count
the second run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from labkit import threads
from labkit.release import build, editions, promises

IMPORTS = (sys.executable, "-c", "import torch, timm")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("labs", nargs="*", metavar="NN", help="02, or 02_efficient; all if none is named")
    parser.add_argument("--full", action="store_true", help="not in quick mode")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each lab; the fastest counts")
    asked = parser.parse_args()
    if asked.repeats < 1:
        parser.error("--repeats is 1 or more")
    threads.wait_briefly()  # as under `labkit start`
    os.environ["LABKIT_QUICK"] = "" if asked.full else "1"
    try:
        sources = build.sources(asked.labs)
    except ValueError as error:
        parser.error(str(error))
    subprocess.run(IMPORTS, check=True)  # fills the disk's cache
    print("| lab | by the clock, s | processor, s | memory, GB | import of torch and timm, s |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for source in sources:
        clock, cost, imports = min((timed(source) for _ in range(asked.repeats)), key=lambda run: run[0])
        print(
            f"| {source.stem[:2]} | {clock:.1f} | {cost.seconds:.1f} | {cost.memory / promises.GB:.1f} "
            f"| {imports:.1f} |",
            flush=True,
        )


def timed(source: Path) -> tuple[float, promises.Cost, float]:
    """Seconds of one run of a lab, what its kernel took, and seconds of the imports right before."""
    start = time.perf_counter()
    subprocess.run(IMPORTS, check=True)
    imports = time.perf_counter() - start
    notebook, cost = editions.instructor(source), promises.Cost()
    start = time.perf_counter()
    build.execute(notebook, cwd=source.parent, strict=True, cost=cost)
    return time.perf_counter() - start, cost, imports


if __name__ == "__main__":
    main()
