"""The snippets in cases/, read once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "cases"


@dataclass(frozen=True)
class Case:
    """A snippet of a student's: # title, # expect: STATUS POINTS REASON, and the text of the answer cell."""

    name: str
    title: str
    status: str
    points: float
    reason: str
    source: str


def cases() -> list[Case]:
    found = []
    for path in sorted(FOLDER.glob("*.cell")):
        title, expect, source = path.read_text().split("\n", 2)
        status, points, reason = re.fullmatch(r"# expect: (\w+) ([\d.]+) ?(.*)", expect).groups()
        found.append(Case(path.stem, title[2:], status.replace("_", " "), float(points), reason, source))
    return found


CASES = cases()
