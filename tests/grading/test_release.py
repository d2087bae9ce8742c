"""A release: editions, hashes, and the secrets apart."""

from __future__ import annotations

import json

import pytest

from labkit.grading.bench import with_hidden
from labkit.grading.evidence import varies
from labkit.grading.release import _carried, load, release, stub_lines
from labkit.lessons import Challenge, Exercise, exercises


def test_nothing_that_students_get_holds_a_secret(released):
    bundle = json.loads((released / "grading" / "bundle.json").read_text())
    public = (released / "release.json").read_text()
    public += "".join(path.read_text() for path in (released / "student").iterdir())
    assert bundle["key"] not in public
    assert "BEGIN SOLUTION" not in public
    assert '"hides"' not in public
    assert set(json.loads((released / "release.json").read_text())["labs"]) == set(bundle["labs"])


def test_the_module_that_holds_the_answer_is_away_while_it_is_graded(released):
    labs = json.loads((released / "grading" / "bundle.json").read_text())["labs"]
    assert labs["00_welcome"]["dice"]["hides"] == ["labkit.metrics"]
    assert "peft" in labs["01_transfer"]["freeze"]["forbids"]


def test_a_second_release_keeps_the_key_and_the_bytes(released, tmp_path):
    release(tmp_path, ["00"])
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    release(tmp_path, ["00"])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files


def test_parts_that_do_not_fit_are_refused_with_a_cure(released, tmp_path):
    with pytest.raises(ValueError, match="say which one"):
        load(released)
    with pytest.raises(ValueError, match="holds no release"):
        load(tmp_path)
    release(tmp_path, ["00"])
    notebook = tmp_path / "student" / "00_welcome.ipynb"
    notebook.write_text(notebook.read_text().replace("def dice(prediction", "def dice(predicted"))
    with pytest.raises(ValueError, match="release again"):
        load(tmp_path)
    release(tmp_path, ["00"])
    public = json.loads((tmp_path / "release.json").read_text())
    (tmp_path / "release.json").write_text(json.dumps({**public, "package": "other"}))
    with pytest.raises(ValueError, match="another labkit"):
        load(tmp_path)


def test_a_line_that_is_only_in_the_stub_is_found(tmp_path):
    source = tmp_path / "00_x.py"
    source.write_text(
        '# %% labkit={"exercise": "one", "role": "answer"}\n'
        "def one():\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION\n"
    )
    assert stub_lines(source) == []


def test_an_exercise_whose_inputs_cannot_be_carried_is_not_released():
    exercise = Exercise(reference=len, challenges=(Challenge("a set", lambda: ({1},)),))
    with pytest.raises(ValueError, match="sets cannot be graded on 'a set'"):
        _carried("sets", exercise)


def test_every_exercise_of_lab_02_has_something_that_nobody_can_learn_by_heart(released):
    found = load(released, "02")
    assert "unforeseen" not in found.student
    for name, exercise in exercises("02").items():
        assert any(varies(with_hidden(exercise, found.exercises[name]["hidden"]))), name
