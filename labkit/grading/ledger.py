"""What was graded, one JSON line each, only ever added to: killed at any moment, it holds whole lines.

A line's `key` says what was graded by what: the same submission is not graded twice by the same grader.
Lines come in the order of the submissions, whatever order they were finished in, so that two runs write the
same bytes; results that are ahead of their turn wait in files of their own.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from pathlib import Path

from labkit import files
from labkit.grading import submitter
from labkit.grading.intake import Submission

DOUBTS = 3  # runs without a verdict, after which the next one leaves a hand-in alone unless asked


class Ledger:
    def __init__(self, folder: Path):
        self.path, self.waiting = folder / "ledger.jsonl", folder / ".work" / "waiting"
        self.waiting.mkdir(parents=True, exist_ok=True)
        self.lines = self._mend()

    def expect(self, handed_in: list[Submission]) -> None:
        """ValueError when a hand-in has the safe name of somebody else in here, whose mark it would replace.

        Lines of older editions do not say whose they are: of them nothing is known.
        """
        known = {line["student"].casefold(): line for line in self.lines if line["submitter"]}
        wrong = []
        for one in handed_in:
            line = known.get(one.student.casefold())
            if line and not _same(there := submitter.of(line), one.submitter):
                wrong.append(
                    f"- {line['student']}: that mark is of {there}; this hand-in is of {one.submitter}"
                )
        if wrong:
            raise ValueError(
                f"{self.path} has marks of others under the names of {len(wrong)} of these hand-ins; nothing "
                "was graded.\n"
                + "\n".join(wrong)
                + "\nRename the notebook, or give another folder for marks."
            )

    def final(self, key: str, again: bool = False) -> dict | None:
        """The latest line for a key, without its marks; none for a doubt that is to be tried again.

        That it is for DOUBTS runs, and with `again` at any.
        """
        found = [line for line in self.lines if line["key"] == key]
        open_ = found and found[-1]["status"] == "doubt" and (again or self.doubts(key) < DOUBTS)
        return found[-1] if found and not open_ else None

    def doubts(self, key: str) -> int:
        """How many runs ended without a verdict on what has this key."""
        return sum(line["key"] == key and line["status"] == "doubt" for line in self.lines)

    def ahead(self, key: str) -> dict | None:
        """A result that was finished before its turn, perhaps by a run that was killed."""
        path = self.waiting / f"{key}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def hold(self, line: dict) -> None:
        files.write_atomically(self.waiting / f"{line['key']}.json", lambda part: _written(part, text(line)))

    def append(self, line: dict) -> None:
        """Add a line for good; when this returns it is on the disk."""
        with open(self.path, "ab") as file:
            file.write(text(line).encode())
            file.flush()
            os.fsync(file.fileno())
        self.lines.append(_kept(line))
        (self.waiting / f"{line['key']}.json").unlink(missing_ok=True)

    def scores(self) -> list[dict]:
        """The latest line of every student, without its marks, in the order of their names."""
        latest = submitter.latest(self.lines)
        return [latest[name] for name in sorted(latest)]

    def _mend(self) -> list[dict]:
        """Read the ledger; half a line at its end, from a run that was killed, is cut off."""
        if not self.path.exists():
            return []
        lines, whole = [], 0
        with open(self.path, "rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    lines.append(_kept(json.loads(line)))
                    whole += len(line)
        if whole != self.path.stat().st_size:
            os.truncate(self.path, whole)
        return lines


def _kept(line: dict) -> dict:
    """What is asked for later, without the marks: a class of thousands fits into little memory."""
    kept = {name: line[name] for name in ("key", "student", "lab", "status", "score", "points")}
    return {**kept, "submitter": line.get("submitter")}


def _same(one: submitter.Submitter, other: submitter.Submitter) -> bool:
    """Whether two hand-ins under one safe name are of one person, or one team."""
    if (one.platform, one.kind) != (other.platform, other.kind):
        return False
    if one.kind in ("user", "user or group", "submission"):
        return one.number == other.number
    return one.name == other.name


def key(*parts: str) -> str:
    """The key of a line: a hash over everything that its verdict depends on."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def text(line: dict) -> str:
    """A line as it is written, in the order it was made in: exercises stay in the lab's."""
    return json.dumps(line, ensure_ascii=True, allow_nan=False) + "\n"


def write_scores(path: Path, lines: list[dict]) -> None:
    """A row per student, with the name as it was written, as CSV that no spreadsheet takes for a formula."""
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["student", "lab", "score", "points", "status", "name"])
    for line in lines:
        score = "" if line["score"] is None else f"{line['score']:g}"
        cells = [line["student"], line["lab"], score, f"{line['points']:g}", line["status"]]
        rows.writerow(map(submitter.guarded, [*cells, submitter.of(line).name]))
    files.write_atomically(path, lambda part: _written(part, table.getvalue()))


def _written(path: Path, content: str) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
