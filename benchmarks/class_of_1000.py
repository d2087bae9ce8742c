"""A class that does not exist: how fast it is graded, and whether the grader's memory stays flat.

`python benchmarks/class_of_1000.py` makes 1,000 hand-ins of lab 00, all different and two of three wrong in
one exercise, grades them with the local workers, and prints hand-ins a minute per core and, on the way, the
memory of the grader's own process, without workers and jails. Then it grades once more what is graded, which
reads all hand-ins and the whole ledger.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import psutil

from labkit.grading.grade import cores
from labkit.grading.release import release
from labkit.paths import PACKAGE
from labkit.release import editions

PARTS = (0.1, 0.5, 1.0)


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parse.add_argument("--count", type=int, default=1000)
    parse.add_argument("--lab", default="00", help="one whose answers are functions")
    parse.add_argument("--workers", type=int, default=cores())
    given = parse.parse_args()
    with tempfile.TemporaryDirectory(prefix="class-") as name:
        folder = Path(name)
        release(folder / "release", [given.lab])
        hand_in(folder, given.count)
        size = sum(path.stat().st_size for path in (folder / "in").iterdir()) / given.count
        before, begin = os.getloadavg()[0], time.perf_counter()
        first = run(folder, given.count, given.workers)
        seconds = time.perf_counter() - begin
        begin = time.perf_counter()
        again = run(folder, given.count, given.workers)
        rate = 60 * given.count / seconds / given.workers
        ledger = (folder / "out" / "ledger.jsonl").stat().st_size
        print(f"{given.count} hand-ins of lab {given.lab} of {size / 1024:.0f} KB, {given.workers} workers")
        print(f"{rate:.1f} hand-ins a minute per core; load before: {before:.1f}")
        for part, megabytes in zip(PARTS, first, strict=True):
            print(f"memory of the grader at {part:4.0%}: {megabytes:.0f} MB")
        print(f"graded again in {time.perf_counter() - begin:.1f} s with {again[-1]:.0f} MB")
        print(f"ledger: {ledger / 1024:.0f} KB")


def hand_in(folder: Path, count: int) -> None:
    """Copies of the instructor's edition, each with a change of its own, into folder/in."""
    (folder / "in").mkdir()
    notebook = nbformat.read(next((folder / "release" / "instructor").glob("*.ipynb")), as_version=4)
    answers = [c for c in notebook.cells if c.cell_type == "code" and editions.role(c) == "answer"]
    right = [cell.source for cell in answers]
    for number in range(count):
        for cell, source in zip(answers, right, strict=True):
            cell.source = f"{source}\n\n# of student {number}"
        if number % 3:
            cell, source = answers[number % len(answers)], right[number % len(answers)]
            cell.source = f"{source}\n\n{wrong(source, number)}"
        nbformat.write(notebook, folder / "in" / f"student{number:04}.ipynb")


def wrong(source: str, number: int) -> str:
    """The answer's function once more, with a result that is not right."""
    name = next(node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
    return f"def {name}(*given, **named):\n    return {number} + 0.5\n"


def run(folder: Path, count: int, workers: int) -> list[float]:
    """Grade in a process of its own, and return that process's memory in MB at each of PARTS."""
    places = [folder / "in", folder / "release", folder / "out"]
    command = [sys.executable, "-m", "labkit", "grade", *places, "--workers", str(workers)]
    running = psutil.Popen(command, env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)})
    ledger, found, memory = folder / "out" / "ledger.jsonl", [], 0.0
    while running.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            memory = running.memory_info().rss / 2**20 or memory  # 0 once it has ended
        done = sum(1 for _ in open(ledger, "rb")) if ledger.exists() else 0
        if len(found) < len(PARTS) - 1 and done >= PARTS[len(found)] * count:
            found.append(memory)
        time.sleep(0.2)
    if running.returncode:
        raise SystemExit("the grader failed")
    return [*found, memory]


if __name__ == "__main__":
    main()
