"""A class of twelve that does not exist: what students hand in for lab 00, as Canvas would download it."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path

import nbformat

LAB = "00_welcome"
POINTS_COLUMN = "Lab 00 (4711)"
DICE = "def dice(prediction, truth):\n    both = np.count_nonzero(prediction & truth)\n"
SIZES = "    total = np.count_nonzero(prediction) + np.count_nonzero(truth)\n"
UNION = DICE + "    return both / np.count_nonzero(prediction | truth) if (prediction | truth).any() else 1.0"
NO_TWO = DICE + SIZES + "    return both / total if total else 1.0"
EMPTY = DICE + SIZES + "    return 2 * both / total if total else 0.0"
LABELS = 'def regions(label):\n    return {"ET": label == 4, "WT": label == 2, "TC": label == 1}'
VOXELS = "def tumour_ml(label, spacing_mm):\n    return float(np.count_nonzero(label))"
CUBIC_MM = (
    "def tumour_ml(label, spacing_mm):\n    s, h, w = spacing_mm\n"
    "    return float(np.count_nonzero(label) * s * h * w)"
)
NOISE = (
    "import sys, warnings\nwarnings.warn('deprecated')\nprint('tuning ' * 5000)\n"
    "print('careful', file=sys.stderr)\n"
)
HOSTILE = (
    "import os, signal\nfrom IPython import get_ipython\n"
    "empty = type('Empty', (), {'visit': lambda self, tree: type(tree)([], [])})\n"
    "get_ipython().ast_transformers.append(empty())\n"
    "open('/tmp/labkit-was-here', 'w').write('x')\n"
    "def dice(prediction, truth):\n    os.kill(os.getppid(), signal.SIGKILL)\n    return 1.0"
)
MARKUP = (
    "def dice(prediction, truth):\n"
    "    raise ValueError('=HYPERLINK(\"http://x\") <script>alert(1)</script> \\x1b[31m [click](http://x)')"
)
# what each student changes in the right answers; None: not a notebook, "stub": nothing done there
HAND_INS: dict[str, dict[str, str] | None] = {
    "student01": {},
    "student02": {},
    "student03": {"dice": "stub", "tumour_ml": "stub"},
    "student04": {"regions": "stub", "dice": "stub", "tumour_ml": "stub"},
    "student05": {"dice": UNION},
    "student06": {"dice": UNION, "tumour_ml": CUBIC_MM},
    "student07": {"dice": NO_TWO, "regions": LABELS},
    "student08": {"dice": EMPTY, "tumour_ml": VOXELS},
    "student09": {"dice": HOSTILE},
    "student10": {"dice": NOISE + EMPTY},
    "student11": {"dice": MARKUP, "regions": LABELS},
    "student12": None,
}
AGAIN, LATE = "student05", ("student08", "student11")


def demo_class(out: Path) -> list[str]:
    """Write OUT/release, OUT/submissions.zip and OUT/gradebook.csv; returns the commands to try next.

    ValueError when `out` holds something already.
    """
    from labkit.grading.release import release

    out = Path(out)
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} holds something already: give a folder that does not exist yet.")
    release(out / "release", [LAB])
    student, ours = (
        json.loads(nbformat.writes(nbformat.read(out / "release" / which / f"{LAB}.ipynb", as_version=4)))
        for which in ("student", "instructor")
    )
    with zipfile.ZipFile(out / "submissions.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number, (name, answers) in enumerate(HAND_INS.items(), start=1):
            late = "LATE_" * (name in LATE)
            if name == AGAIN:  # the first try, which does not count
                archive.writestr(
                    f"{name}_{9000 + number}_{500 + number}_{LAB}.ipynb", _notebook(student, ours, {})
                )
            file = f"{name}_{late}{9000 + number}_{700 + number}_{LAB}{'-1' * (name == AGAIN)}.ipynb"
            archive.writestr(file, _notebook(student, ours, answers))
    points = sum(cell["metadata"].get("labkit", {}).get("points", 0) for cell in ours["cells"])
    (out / "gradebook.csv").write_bytes(_gradebook(points))
    return next_commands(out)


def next_commands(out: Path) -> list[str]:
    """What to try on a demonstration class, in this order."""
    return [
        f"labkit collect {out}/submissions.zip {out}/hand-ins",
        f"labkit grade {out}/hand-ins {out}/release {out}/marks",
        f"labkit feedback {out}/marks {out}/release",
        f'labkit export {out}/marks --to canvas --into {out}/gradebook.csv --assignment "Lab 00"',
    ]


def _notebook(student: dict, ours: dict, answers: dict[str, str] | None) -> bytes:
    """The student's edition with our answers but for those that `answers` names."""
    right = {cell["id"]: cell["source"] for cell in ours["cells"]}
    cells = []
    for cell in student["cells"]:
        source = cell["source"]
        if cell["metadata"].get("labkit", {}).get("role") == "answer" and answers is not None:
            chosen = answers.get(cell["id"], right[cell["id"]])
            source = source if chosen == "stub" else chosen
        cells.append({**cell, "source": source})
    text = json.dumps({**student, "cells": cells}, indent=1)
    return text[: len(text) // 2].encode() if answers is None else text.encode()


def _gradebook(points: float) -> bytes:
    """As Canvas exports it: a mark at its start, two rows before the students, read-only columns."""
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\r\n")
    rows.writerow(["Student", "ID", "SIS Login ID", "Section", POINTS_COLUMN, "Current Score"])
    rows.writerow(["", "", "", "", "Manual Posting", ""])
    rows.writerow(["    Points Possible", "", "", "", f"{points:.2f}", "(read only)"])
    for number, name in enumerate([*HAND_INS, "student13"], start=1):
        rows.writerow([f"{name}, Demo", 9000 + number, name, "A", "", ""])
    return table.getvalue().encode("utf-8-sig")
