"""What a check passes must carry the lab to its end: right answers unlike ours, in the whole lab."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from labkit.lessons import labs
from labkit.release import build, editions
from labkit.release.build import source_of

HERE = Path(__file__).parent
CELL = """import sys
sys.path.insert(0, {here!r})
from {module} import {test}
{exercise} = {test}.pytestmark[0].args[1][{number}][1]
"""
TEST = (
    "test_a_right_answer_passes_however_it_is_written"  # of each lab, with (exercise, answer) as parameters
)


def module_of(lab: str) -> str:
    return f"test_lab{lab}"


def answers(lab: str) -> dict[str, list[int]]:
    """exercise -> the numbers of its answers among the parameters of the lab's test."""
    given = getattr(importlib.import_module(module_of(lab)), TEST).pytestmark[0].args[1]
    found: dict[str, list[int]] = {}
    for number, (exercise, _) in enumerate(given):
        found.setdefault(exercise, []).append(number)
    return found


TURNS = [(lab, turn) for lab in labs() for turn in range(max(map(len, answers(lab).values())))]


@pytest.mark.slow
@pytest.mark.parametrize("lab, turn", TURNS)
def test_right_answers_that_look_unlike_ours_carry_a_lab_to_its_end(lab, turn, monkeypatch, tmp_path):
    """In turn 0 the first answer to each exercise, in turn 1 the second, where there is one, and so on."""
    monkeypatch.setenv("LABKIT_QUICK", "1")
    found, notebook = answers(lab), editions.instructor(source_of(lab))
    for cell in notebook.cells:
        if editions.role(cell) == "answer" and cell.metadata.labkit.exercise in found:
            exercise = cell.metadata.labkit.exercise
            numbers = found.pop(exercise)
            number = numbers[min(turn, len(numbers) - 1)]
            cell.source = CELL.format(
                here=str(HERE), module=module_of(lab), test=TEST, exercise=exercise, number=number
            )
    assert not found, "answers to exercises that the lab does not have"
    build.execute(notebook, cwd=tmp_path, strict=True)  # CellFailed: a check or a later cell
