"""The snippets in cases/, read once."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from labkit.grading.jail import Limits

LIMITS = Limits(cpu=4, wall=20, memory=1 << 30)
FOLDER = Path(__file__).parent / "cases"


@dataclass(frozen=True)
class Case:
    """A snippet of a student's: # title, # expect: STATUS POINTS REASON, and the text of the answer cell.

    A line `# check: TEXT` before the second one is what the student put on top of the check cell.
    """

    name: str
    title: str
    status: str
    points: float
    reason: str
    source: str
    check: str = ""


def cases() -> list[Case]:
    found = []
    for path in sorted(FOLDER.glob("*.cell")):
        title, expect, source = path.read_text().split("\n", 2)
        check = ""
        if expect.startswith("# check: "):
            check = expect.removeprefix("# check: ") + "\n"
            expect, source = source.split("\n", 1)
        status, points, reason = re.fullmatch(r"# expect: (\w+) ([\d.]+) ?(.*)", expect).groups()
        found.append(
            Case(path.stem, title[2:], status.replace("_", " "), float(points), reason, source, check)
        )
    return found


def hand_in(edition: str, source: str, check: str = "") -> str:
    """The student's edition with an answer to `dice` alone; `check` goes on top of its check cell."""
    notebook = json.loads(edition)
    for cell in notebook["cells"]:
        if cell["id"] == "dice":
            cell["source"] = source
        elif cell["id"] == "dice-check":
            cell["source"] = check + "".join(cell["source"])
    return json.dumps(notebook)


CASES = cases()
