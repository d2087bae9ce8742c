"""Every exercise: the course's own answer passes, every known mistake fails and is called by name."""

from __future__ import annotations

import pytest

from labkit.lessons import exercises, flaws, labs
from labkit.paths import checkout_root
from labkit.release.editions import instructor, role

EXERCISES = [(lab, name) for lab in labs() for name in exercises(lab)]
SOURCES = sorted((checkout_root() / "notebooks").glob("*.py"))


@pytest.mark.parametrize("lab, name", EXERCISES)
def test_the_reference_passes_and_every_mistake_fails_under_its_own_name(lab, name):
    assert not (found := flaws(name, exercises(lab)[name])), "\n".join(found)


def test_there_are_labs_with_exercises():
    assert EXERCISES


def test_every_exercise_is_asked_in_its_notebook_and_every_question_has_its_exercise():
    asked = {
        (source.stem, cell.metadata.labkit.exercise)
        for source in SOURCES
        for cell in instructor(source).cells
        if role(cell) == "check"
    }
    assert asked == set(EXERCISES)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_every_answer_has_a_check(source):
    cells = instructor(source).cells
    answers, checks = (
        {cell.metadata.labkit.exercise for cell in cells if role(cell) == which}
        for which in ("answer", "check")
    )
    assert answers == checks
