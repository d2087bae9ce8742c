"""The labs of a workbook that are open: which hold memory, and whether the last kernel of a lab ended badly.

Each kernel leaves a note in the workbook while it lives. A note whose process is gone was left by a kernel
that was killed: by the system when memory ran out, or by a restart in the middle of a cell.
"""

from __future__ import annotations

import atexit
import os
from pathlib import Path

from labkit.paths import KEPT


def register(workbook: Path, lab: str) -> tuple[list[str], bool]:
    """Leave the note of this process; the other labs that are open, and whether this lab's last kernel died.

    Where `workbook` is none (the grader's jail, a build) or cannot be written, nothing is left or found.
    """
    import psutil

    folder = workbook / KEPT / "kernels"
    if not (workbook / KEPT).is_dir():
        return [], False
    others, died = set(), False
    try:
        folder.mkdir(exist_ok=True)
        for note in folder.iterdir():
            pid, _, name = note.name.partition("-")
            if not pid.isdigit():
                continue
            if int(pid) == os.getpid():
                note.unlink(missing_ok=True)  # `start` was run again
            elif psutil.pid_exists(int(pid)) and note.read_text() == _started(int(pid)):
                others.add(name)
            else:
                died |= name == lab
                note.unlink(missing_ok=True)
        own = folder / f"{os.getpid()}-{lab}"
        own.write_text(_started(os.getpid()))
        atexit.register(own.unlink, missing_ok=True)
    except OSError:  # a full disk, or a process of somebody else's
        pass
    return sorted(others - {lab}), died


def _started(pid: int) -> str:
    """When a process began; its number alone may have been another's before."""
    import psutil

    try:
        return f"{psutil.Process(pid).create_time():.2f}"
    except psutil.Error:
        return ""
