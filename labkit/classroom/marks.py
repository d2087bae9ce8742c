"""The marks of a run, as the ledger has them, for whatever carries them to students."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from labkit.grading import submitter
from labkit.grading.ledger import DOUBTS
from labkit.grading.submitter import guarded


def read(out: Path, lab: str | None = None) -> list[dict]:
    """The latest line of each student in OUT/ledger.jsonl, by name; ValueError when there are none.

    A ledger may hold several labs; then `lab` ("00" or "00_welcome") says which one.
    """
    path = Path(out) / "ledger.jsonl"
    if not path.is_file():
        raise ValueError(f"{out} holds no marks (ledger.jsonl): give the folder that `labkit grade` wrote.")
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]  # a grader may be writing the last line right now
    lines = [json.loads(line) for line in whole.splitlines()]
    lines = [line for line in lines if lab in (None, line["lab"], line["lab"].split("_")[0])]
    labs = sorted({line["lab"] for line in lines})
    if len(labs) > 1:
        raise ValueError(f"{out} holds marks of {', '.join(labs)}: say which, as --lab {labs[0]}.")
    if not lines:
        raise ValueError(f"{out} holds no marks{f' of lab {lab}' if lab else ''} yet.")
    latest, times = submitter.latest(lines), {}
    for line in lines:
        times.setdefault(submitter.person(line), set()).add(line["student"])
    for line in latest.values():
        if (count := len(times[submitter.person(line)])) > 1:
            said = f"handed in {count} times; submission {number(line)} counts, as the newest"
            line["flags"] = [*line["flags"], said]
    return [latest[name] for name in sorted(latest)]


def without_score(out: Path) -> list[str]:
    """A sentence for each hand-in that has no verdict: in how many runs, and what to do."""
    lines = [json.loads(line) for line in (Path(out) / "ledger.jsonl").read_bytes().splitlines()]
    said = []
    for student, line in sorted(submitter.latest(lines).items()):
        if line["score"] is None:
            runs = sum(one["key"] == line["key"] and one["score"] is None for one in lines)
            do = "add --again to try once more" if runs >= DOUBTS else "run this again"
            said.append(f"{student}: not graded, the fault is not theirs ({runs} of {DOUBTS} runs); {do}")
    return said


def number(line: dict) -> str:
    """The number of the hand-in's own platform; empty if none is recorded. What it counts is beside it."""
    return submitter.of(line).number


def exercises(lines: list[dict]) -> list[str]:
    """The names of the lab's exercises, in its order, as the lines have them; a rejected one has none."""
    return list(dict.fromkeys(name for line in lines for name in line["exercises"]))


def points(value: float) -> str:
    """Points as LMS take them: at most two decimals, a point, no thousands separator."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def graded(lines: list[dict]) -> list[dict]:
    """The lines that have a score; a doubt of the grader's own is not a zero."""
    return [line for line in lines if line["score"] is not None]


def as_csv(lines: list[dict]) -> bytes:
    """One row per student, one column per exercise; no cell that a spreadsheet takes for a formula."""
    names = exercises(lines)
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\r\n")
    rows.writerow(
        map(guarded, ["student", "lab", *names, "score", "points", "status", "name", "number", "remarks"])
    )
    for line in lines:
        each = [line["exercises"].get(name, {}).get("score") for name in names]
        scores = ["" if score is None else points(score) for score in (*each, line["score"])]
        remarks = "; ".join([*filter(None, [line["reason"]]), *line["flags"]])
        cells = [line["student"], line["lab"], *scores, points(line["points"]), line["status"]]
        rows.writerow(map(guarded, [*cells, submitter.of(line).name, number(line), remarks]))
    return table.getvalue().encode("utf-8-sig")
