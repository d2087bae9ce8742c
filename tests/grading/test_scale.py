"""A large class does not need more memory than a small one: hand-ins are read one at a time."""

from __future__ import annotations

import json
import tracemalloc

from labkit.grading.intake import collect
from labkit.grading.ledger import Ledger, key

MB = 1 << 20
COUNT = 1_000
MARK = {"name": "is right on two voxels each, one in common", "holds": True, "reason": ""}


def test_a_thousand_hand_ins_are_collected_without_holding_them(tmp_path):
    for number in range(COUNT):
        (tmp_path / f"student{number:04}.ipynb").write_bytes(b"%d" % number + bytes(MB // 8))
    found, peak = watched(lambda: collect(tmp_path))
    assert len(found) == COUNT and len({one.sha256 for one in found}) == COUNT
    assert peak < 4 * MB, f"{peak / MB:.1f} MB for {COUNT // 8} MB of notebooks"


def test_a_ledger_of_a_thousand_is_read_in_little_memory(tmp_path):
    """Of each line only what a rerun and the table of scores ask for is kept, not the marks."""
    exercises = {f"exercise{n}": {"marks": [MARK] * 8, "score": 1.0, "points": 1.0} for n in range(3)}
    line = {"status": "graded", "lab": "00_welcome", "score": 3.0, "points": 3.0, "exercises": exercises}
    with open(tmp_path / "ledger.jsonl", "w") as file:
        for number in range(COUNT):
            file.write(json.dumps({**line, "key": key(str(number)), "student": f"student{number:04}"}) + "\n")
    size = (tmp_path / "ledger.jsonl").stat().st_size
    book, peak = watched(lambda: Ledger(tmp_path))
    assert all(book.final(key(str(number))) for number in range(COUNT))
    assert len(book.scores()) == COUNT
    assert peak < size / 2, f"{peak / MB:.1f} MB for a ledger of {size / MB:.1f} MB"


def watched(do) -> tuple:
    """What it returns, and the most memory that it held meanwhile."""
    tracemalloc.start()
    try:
        return do(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
