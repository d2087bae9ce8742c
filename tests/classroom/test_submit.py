"""What a student packs is what the grader accepts."""

from __future__ import annotations

import json

import pytest

from labkit.classroom import submit
from labkit.grading import intake, transplant


@pytest.fixture(scope="module")
def edition():
    return submit.edition("00")


def saved(path, edition, **answers):
    notebook = json.loads(json.dumps(edition))
    for cell in notebook["cells"]:
        cell["source"] = answers.get(cell["id"], cell["source"])
        if cell["cell_type"] == "code":
            cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "x" * 400_000}]
    path.write_text(json.dumps(notebook))
    return path


def test_a_pack_is_taken_by_intake_and_says_which_exercises_have_an_answer(edition, tmp_path):
    path = saved(tmp_path / "00_welcome.ipynb", edition, dice="def dice(p, t):\n    return 1")
    assert path.stat().st_size > 5 << 20
    made = submit.pack(path, edition, tmp_path / "hand-in")
    assert made.found["dice"] == "an answer" and "still the stub" in made.found["regions"]
    (one,) = intake.collect(tmp_path / "hand-in")
    given = transplant.answers(intake.read(one), edition)
    assert given["dice"].source == "def dice(p, t):\n    return 1"
    assert path.stat().st_size > 5 << 20, "the student's own file keeps its outputs"


def test_an_earlier_pack_is_never_overwritten(edition, tmp_path):
    path = saved(tmp_path / "00_welcome.ipynb", edition)
    first = submit.pack(path, edition, tmp_path / "hand-in").file
    first.write_text("kept")
    names = [submit.pack(path, edition, tmp_path / "hand-in").file.name for _ in range(2)]
    assert names == ["00_welcome-2.ipynb", "00_welcome-3.ipynb"] and first.read_text() == "kept"
    assert sorted(p.name for p in (tmp_path / "hand-in").iterdir()) == sorted([first.name, *names])


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"", "is empty"), (b'{"cells": [', "is not JSON"), (b"[]", "holds no cells"), (b"\xff\xfe{", "UTF-8")],
)
def test_what_the_grader_rejects_is_not_packed_and_the_reason_is_its_own(edition, tmp_path, data, said):
    path = tmp_path / "00_welcome.ipynb"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"would be rejected: .*{said}"):
        submit.pack(path, edition, tmp_path / "hand-in")
    assert not (tmp_path / "hand-in").exists()
    one = intake.collect(tmp_path)[0]
    with pytest.raises(intake.Rejected, match=said):
        intake.read(one)


def test_a_deleted_answer_cell_is_missed_and_lost_ids_are_remarked(edition, tmp_path):
    path = saved(tmp_path / "00_welcome.ipynb", edition)
    notebook = json.loads(path.read_text())
    notebook["cells"] = [cell for cell in notebook["cells"] if cell["id"] != "dice"]
    for cell in notebook["cells"]:
        del cell["id"]
    path.write_text(json.dumps(notebook))
    made = submit.pack(path, edition, tmp_path / "hand-in")
    assert "not found" in made.found["dice"]
    assert "regions: answer cell found by its metadata" in made.remarks


def test_a_name_that_the_grader_will_not_find_is_said_before_the_hand_in(edition, tmp_path):
    path = saved(tmp_path / "mine.ipynb", edition, dice="def dice(p, t):\n    return functools.reduce(p, t)")
    made = submit.pack(path, edition, tmp_path / "hand-in")
    assert made.remarks == (
        "dice: `functools` is needed in line 2 of the answer's cell, but no cell of the notebook gives it",
    )


def test_a_notebook_of_any_name_is_known_by_its_cells(edition, tmp_path):
    assert submit.lab_of(saved(tmp_path / "answer.ipynb", edition)) == "00_welcome"

    def exercises(notebook):
        return [cell for cell in notebook["cells"] if cell["metadata"].get("labkit")]

    as_many = exercises(submit.edition("01"))[: len(exercises(edition))]
    assert len(as_many) == len(exercises(edition)), "a tie: neither lab has more cells than the other"
    both = {**edition, "cells": [*edition["cells"], *as_many]}
    with pytest.raises(ValueError, match="cells of 00_welcome and of 01_transfer: keep those of one"):
        submit.lab_of(saved(tmp_path / "both.ipynb", both))
