"""The nine tricks, side by side: what plain nbval says, run live, and what our grader says.

`python tests/adversarial/against_nbval.py` prints the table. docs/grading.md holds a copy, and a
test keeps that copy true.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from corpus import CASES, LIMITS, Case, hand_in

TRICKS = [case for case in CASES if case.name.startswith("nbval_")]
CHECK = """p, t = np.array([True, True, False]), np.array([True, False, True])
assert np.array_equal(dice(p, t), 0.5)"""  # each of the tricks gives another value, so this must fail
TIMEOUT = 3
HEADER = "| The student's cell | plain nbval, the check that must fail | exit code | labkit |\n"
HEADER += "| --- | --- | --- | --- |\n"


def plain_nbval(case: Case) -> tuple[str, int]:
    """What nbval reports for the check cell, and pytest's exit code; the trick's cell is judged too."""
    new = nbformat.v4.new_code_cell
    cells = [new("import numpy as np"), new(case.source), new(case.check + CHECK)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trick.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
        options = ["--nbval-lax", "--nbval-current-env", f"--nbval-cell-timeout={TIMEOUT}", "-q", "-p"]
        options += ["no:cacheprovider", f"--junitxml={folder}/report.xml", "--rootdir", folder, str(path)]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options],
            capture_output=True,
            cwd=folder,
            env={**os.environ, "PYTEST_ADDOPTS": ""},
        )
        check = list(xml.parse(f"{folder}/report.xml").iter("testcase"))[-1]
    kinds = {child.tag: child.get("type", "") for child in check}
    if "failure" in kinds or "error" in kinds:
        return "fails", done.returncode
    return ("expected to fail" if "skipped" in kinds else "**passes**"), done.returncode


def table(lines: dict[str, dict]) -> str:
    """The table as Markdown; `lines` are the ledger's, by the name of the case."""
    with ThreadPoolExecutor(2) as pool:
        verdicts = list(pool.map(plain_nbval, TRICKS))
    rows = []
    for case, (verdict, code) in zip(TRICKS, verdicts, strict=True):
        found = lines[case.name]["exercises"]["dice"]
        said = found["reason"] or next(mark["reason"] for mark in found["marks"] if mark["reason"])
        rows.append(f"| {case.title} | {verdict} | {code} | {found['score']:g} points: {said} |")
    return HEADER + "\n".join(rows) + "\n"


def main() -> None:
    from labkit.grading.grade import grade
    from labkit.grading.release import release

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        release(folder / "release", ["00"])
        edition = (folder / "release" / "student" / "00_welcome.ipynb").read_text()
        (folder / "hand-ins").mkdir()
        for case in TRICKS:
            (folder / "hand-ins" / f"{case.name}.ipynb").write_text(hand_in(edition, case.source, case.check))
        grade(folder / "hand-ins", folder / "release", folder / "out", limits=LIMITS)
        lines = (folder / "out" / "ledger.jsonl").read_text().splitlines()
        print(table({line["student"]: line for line in map(json.loads, lines)}))


if __name__ == "__main__":
    main()
