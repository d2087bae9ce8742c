"""What must hold for a released lab, each as a function that returns what is wrong, as sentences."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml
from pathlib import Path

import nbformat

from labkit.release import build, editions

COLOUR = re.compile(r"(\x1b|#x1B)\[[0-9;]*m")
EXCEPTION = re.compile(r"[A-Za-z_][\w.]*: ")  # at the start of a line: where a traceback comes to its point


def out_of_date(source: Path) -> list[str]:
    """Cells in which the built notebook is not its source, or was not executed without errors."""
    built = source.with_suffix(".ipynb")
    cure = f"run `labkit build {source.stem.split('_')[0]}`"
    if not built.is_file():
        return [f"{built.name} is missing: {cure}"]
    expected, found = editions.instructor(source), nbformat.read(built, as_version=4)
    if [cell.id for cell in found.cells] != [cell.id for cell in expected.cells]:
        return [f"{built.name} has other cells than {source.name}: {cure}"]
    wrong = [f"metadata of {built.name} differ: {cure}"] if found.metadata != expected.metadata else []
    for ours, theirs in zip(expected.cells, found.cells, strict=True):
        same = all(ours[key] == theirs[key] for key in ("cell_type", "source", "metadata"))
        wrong += [] if same else [f"{built.name}, cell {ours.id} differs from {source.name}: {cure}"]
        if theirs.cell_type == "code":
            wrong += (
                [] if theirs.execution_count else [f"{built.name}, cell {ours.id} was never executed: {cure}"]
            )
            wrong += [
                f"{built.name}, cell {ours.id} shows {output.ename}: {output.evalue}"
                for output in theirs.outputs
                if output.output_type == "error"
            ]
    return wrong


def nbval_failures(notebook: Path, cell_seconds: int = 300) -> list[str]:
    """Cells that do not pass `pytest --nbval-lax` with strict checks.

    nbval lets a cell pass that swallows the interrupt of its time-out, expects all later ones to fail, and
    exits with 0. So each cell's own outcome and time are read: anything but a pass in time is a failure.
    """
    cells = [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "--nbval-lax",
            "--nbval-current-env",
            "--nbval-cell-timeout",
            str(cell_seconds),
            "-q",
            "-p",
            "no:cacheprovider",
            "-o",
            "addopts=",
            "-o",
            "xfail_strict=true",
            f"--junitxml={report}",
            str(notebook),
        ]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=folder,
            env={**os.environ, "LABKIT_STRICT": "1", "LABKIT_HEADLESS": "1"},
        )
        cases = list(xml.parse(report).iter("testcase")) if report.is_file() else []
    if len(cases) != len(cells):
        return [
            f"{notebook.name}: nbval ran {len(cases)} of {len(cells)} cells\n"
            f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
        ]
    return [
        f"{notebook.name}, cell {cell.id}: {why}"
        for cell, case in zip(cells, cases, strict=True)
        if (why := _why(case, cell_seconds))
    ]


def student_failures(source: Path) -> list[str]:
    """What is wrong with the student's edition: outputs, solutions, any error but an exercise's stub."""
    notebook = editions.student(source)
    exercises = {cell.metadata.labkit.exercise for cell in notebook.cells if editions.role(cell) == "answer"}
    wrong = editions.leaks(source)
    wrong += [
        f"{source.name}, cell {cell.id}: the student's edition has outputs"
        for cell in notebook.cells
        if cell.get("outputs") or cell.get("execution_count")
    ]
    with tempfile.TemporaryDirectory() as folder:
        build.execute(notebook, cwd=Path(folder), keep_going=True)
    return wrong + [
        f"{source.name}, cell {cell.id} of the student's edition: {output.ename}: {output.evalue}"
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "error"
        and not (output.ename == "NotImplementedError" and output.evalue in exercises)
    ]


def _why(case: xml.Element, cell_seconds: int) -> str:
    """What nbval says against a cell, without colours and source; empty when it passed in time."""
    if float(case.get("time", 0)) >= cell_seconds:
        return f"time-out after {cell_seconds} s"
    outcome = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
    if outcome is None:
        return ""
    lines = COLOUR.sub("", outcome.text or outcome.get("message", "")).rstrip().splitlines()
    starts = [i for i, line in enumerate(lines) if EXCEPTION.match(line)]
    return "\n".join(lines[starts[-1] :] if starts else [outcome.tag, *lines[-6:]])
