"""What a lab's first table promises, counted and measured, so that it is kept: minutes and memory.

`labkit build` runs a lab, measures it, and writes the row "Counted" of the table in the lab's source.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from labkit.files import write_atomically
from labkit.release import editions

WORDS_A_MINUTE = 180  # of prose with formulas, read to be understood
LINES_A_MINUTE = 12  # of code that is there already
ROW = re.compile(r"^# \| Counted \| (?P<minutes>\d+) minutes.*?(?P<GB>[\d.]+) GB of memory \|$", re.MULTILINE)
EXERCISE = re.compile(r"^#+ Exercise .*\((?:.*, )?(?:about )?(\d+) minutes?\b", re.MULTILINE)
GB, ALIKE = 1e9, 0.1  # a run differs from another; within this share the row stays


@dataclass
class Cost:
    """What a kernel took so far: `seconds` of processor time, and at most `memory` bytes."""

    seconds: float = 0.0
    memory: int = 0

    def look(self, pid: int) -> None:
        import psutil

        process = psutil.Process(pid)
        self.seconds = sum(process.cpu_times()[:2])
        self.memory = max(self.memory, _peak(pid) or process.memory_info().rss)


@dataclass(frozen=True)
class Counted:
    """What there is to do in a lab, in the student's edition; `solving` in minutes, as the exercises say."""

    words: int
    lines: int
    exercises: int
    solving: int

    def minutes(self, computing: float) -> int:
        """All of it, to five minutes, with so many seconds of computing."""
        whole = self.words / WORDS_A_MINUTE + self.lines / LINES_A_MINUTE + self.solving + computing / 60
        return 5 * round(whole / 5)


def counted(source: Path) -> Counted:
    """The words, lines and exercises of a lab."""
    cells = editions.student(source).cells
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    solving = [int(minutes) for minutes in EXERCISE.findall(prose)]
    words = re.findall(r"\w+", re.sub(r"<[^>]*>", " ", prose))
    return Counted(len(words), len(re.findall(r"^\s*\S", code, re.MULTILINE)), len(solving), sum(solving))


def promised(source: Path) -> tuple[int, float] | None:
    """Minutes and GB that the row says; None where there is no such row."""
    found = ROW.search(source.read_text(encoding="utf-8"))
    return (int(found["minutes"]), float(found["GB"])) if found else None


def renew(source: Path, cost: Cost) -> bool:
    """Write the row anew where it is off by more than a tenth, if there is one; whether it was."""
    text, there = source.read_text(encoding="utf-8"), counted(source)
    minutes, memory = there.minutes(cost.seconds), cost.memory / GB
    said = promised(source)
    if said is None or all(abs(a - b) <= ALIKE * b for a, b in zip(said, (minutes, memory), strict=True)):
        return False
    row = (
        f"# | Counted | {minutes} minutes with all exercises: {there.words:,} words, {there.lines} lines of "
        f"code, {there.exercises} exercises, {_long(cost.seconds)} of computing; {memory:.1f} GB of memory |"
    )
    whole = ROW.sub(row, text, count=1)
    write_atomically(source, lambda part: part.write_text(whole, encoding="utf-8", newline="\n"))
    return True


def with_outputs(notebook: NotebookNode, executed: NotebookNode) -> NotebookNode:
    """`notebook` with the outputs of the same cells of another."""
    for cell, done in zip(notebook.cells, executed.cells, strict=True):
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = done.outputs, done.execution_count
    notebook.metadata = executed.metadata
    return notebook


def _long(seconds: float) -> str:
    if seconds < 90:
        return f"{10 * max(1, round(seconds / 10))} seconds"
    return f"{round(seconds / 60)} minutes"


def _peak(pid: int) -> int | None:
    """The most memory that a process ever held, in bytes, where the system keeps it."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
