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

FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Ledger:
    def __init__(self, folder: Path):
        self.path, self.waiting = folder / "ledger.jsonl", folder / ".work" / "waiting"
        self.waiting.mkdir(parents=True, exist_ok=True)
        self.lines = self._mend()

    def final(self, key: str) -> dict | None:
        """The latest line for a key, without its marks, unless it is a doubt, which is to be tried again."""
        found = [line for line in self.lines if line["key"] == key]
        return found[-1] if found and found[-1]["status"] != "doubt" else None

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
        latest = {line["student"]: line for line in self.lines}
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
    return {name: line[name] for name in ("key", "student", "lab", "status", "score", "points")}


def key(*parts: str) -> str:
    """The key of a line: a hash over everything that its verdict depends on."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def text(line: dict) -> str:
    return json.dumps(line, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n"


def write_scores(path: Path, lines: list[dict]) -> None:
    """student, score, points, status as CSV that no spreadsheet takes for a formula."""
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["student", "lab", "score", "points", "status"])
    for line in lines:
        score = "" if line["score"] is None else f"{line['score']:g}"
        rows.writerow([_safe(line["student"]), line["lab"], score, f"{line['points']:g}", line["status"]])
    files.write_atomically(path, lambda part: _written(part, table.getvalue()))


def _safe(cell: str) -> str:
    return f"'{cell}" if cell.startswith(FORMULA) else cell


def _written(path: Path, content: str) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
