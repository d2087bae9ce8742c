"""What a student has solved, kept in the workbook: checks write it, a lab's last line, `labkit progress` and
the start page read it. Names of exercises and how they stand, no answers; nothing leaves the computer.
"""

from __future__ import annotations

import json
from pathlib import Path

from labkit.files import write_atomically
from labkit.lessons.feedback import PASS
from labkit.paths import KEPT


def begin(workbook: Path) -> None:
    """From now on what is solved in this workbook is kept; where nobody began (the grader's jail, a test),
    nothing is."""
    (workbook / KEPT).mkdir(parents=True, exist_ok=True)


def read(workbook: Path) -> dict[str, dict[str, str]]:
    """How each exercise stood when it was last checked: lab -> exercise -> "PASS" or "NOT YET"."""
    try:
        kept = json.loads(_file(workbook).read_text(encoding="utf-8"))
        return {
            str(lab): {str(name): str(status) for name, status in exercises.items()}
            for lab, exercises in kept.items()
        }
    except (OSError, ValueError, AttributeError):  # not there, or edited into something else
        return {}


def keep(workbook: Path, lab: str, exercise: str, status: str) -> None:
    """Write down how an exercise stands, or nothing where the disk is full: that must not stop a student."""
    if not (workbook / KEPT).is_dir():
        return
    from filelock import FileLock, Timeout

    try:
        with FileLock(_file(workbook).with_suffix(".lock"), timeout=2):
            kept = read(workbook)
            if kept.get(lab, {}).get(exercise) == status:
                return
            kept.setdefault(lab, {})[exercise] = status
            text = json.dumps(kept, indent=1, sort_keys=True)
            write_atomically(_file(workbook), lambda part: part.write_text(text, encoding="utf-8"))
    except (OSError, Timeout):
        return


def solved(kept: dict[str, dict[str, str]], lab: str) -> set[str]:
    """The exercises of a lab that passed when they were last checked."""
    return {name for name, status in kept.get(lab, {}).items() if status == PASS}


def _file(workbook: Path) -> Path:
    return workbook / KEPT / "progress.json"
