"""A saved notebook is checked without Jupyter, and says what it would have said there."""

from __future__ import annotations

import nbformat
import pytest

from labkit import lessons, paths
from labkit.classroom import submit
from labkit.classroom.check import check_cells, check_notebook
from labkit.release import editions

LESSON = """
from labkit.lessons import Challenge, Exercise
pair = lambda: (2, 3)
EXERCISES = {
    "add": Exercise(reference=lambda a, b: a + b, challenges=(Challenge("two and three", pair),)),
    "twice": Exercise(reference=lambda a, b: 2 * (a + b), challenges=(Challenge("two and three", pair),)),
    "answer": Exercise(reference=lambda: 42),
}
"""

SOURCE = """
# %%
import math
from labkit.lessons import start
lab = start("97")

# %%
raise RuntimeError("a training of minutes")

# %% labkit={"exercise": "add", "role": "answer", "points": 1}
def add(a, b):
    ### BEGIN SOLUTION
    return ADD
    ### END SOLUTION

# %% labkit={"exercise": "add", "role": "check"}
lab.check("add", add)

# %%
seconds = 1 / 0
add = lab.working("add", add)

def both(a, b):
    return add(a, b)

# %% labkit={"exercise": "twice", "role": "answer", "points": 1}
def twice(a, b):
    ### BEGIN SOLUTION
    return both(a, b) + int(math.sqrt(both(a, b) ** 2))
    ### END SOLUTION

# %% labkit={"exercise": "twice", "role": "check"}
lab.check("twice", twice)

# %% labkit={"exercise": "answer", "role": "answer", "points": 1}
### BEGIN SOLUTION
answer = ANSWER
### END SOLUTION

# %% labkit={"exercise": "answer", "role": "check"}
lab.check("answer", answer)
"""


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Write a notebook of lab 97 with two answers in it."""
    (tmp_path / "lab97_saved").mkdir()
    (tmp_path / "lab97_saved" / "__init__.py").write_text(LESSON)
    monkeypatch.setattr(lessons, "__path__", [*lessons.__path__, str(tmp_path)])
    monkeypatch.setattr(paths, "data_dir", lambda: tmp_path)

    def write(add="a + b", answer="42", edition=editions.instructor):
        source = tmp_path / "97_saved.py"
        source.write_text(SOURCE.replace("ADD", add).replace("ANSWER", answer))
        nbformat.write(edition(source), path := source.with_suffix(".ipynb"))
        return path

    return write


def checked(path):
    """The lab of a notebook whose source lies beside it."""
    return check_cells(submit.read(path)[1], editions.student(path.with_suffix(".py")), "97_saved")


def states(lab):
    return {name: feedback.status for name, feedback in lab.feedback.items()}


def test_right_answers_pass_and_nothing_else_of_the_notebook_runs_or_prints(saved, capsys):

    lab = checked(saved())
    assert states(lab) == dict.fromkeys(("add", "twice", "answer"), "PASS")
    assert "97_saved: 3 of 3 solved" in str(lab.progress()) and capsys.readouterr().out == ""
    assert lab.feedback["add"].exercise == "add"


def test_a_wrong_answer_is_shown_and_what_builds_on_it_is_judged_with_it_as_when_graded(saved):
    lab = checked(saved(add="a - b", answer="41"))
    assert states(lab) == {"add": "NOT YET", "twice": "NOT YET", "answer": "NOT YET"}
    assert "Expected  5" in str(lab.feedback["add"]) and "Expected  42" in str(lab.feedback["answer"])


def test_the_students_edition_has_nothing_attempted(saved):
    lab = checked(saved(edition=editions.student))
    assert states(lab) == dict.fromkeys(("add", "twice", "answer"), "NOT ATTEMPTED")


@pytest.mark.parametrize(
    "add, says",
    [("a +", "line 3 of your cell: return a +"), ("a + secnods", "line 3 of your cell: return a + secnods")],
)
def test_an_answer_that_does_not_run_is_feedback_with_its_line(saved, add, says):
    lab = checked(saved(add=add) if add != "a +" else broken(saved()))
    assert lab.feedback["add"].status == "NOT YET" and says in str(lab.feedback["add"])
    assert lab.feedback["answer"]


def broken(path):
    """The notebook with an answer that is no Python."""
    path.write_text(path.read_text().replace("return a + b", "return a +"))
    return path


def test_strict_mode_changes_nothing_here(saved, monkeypatch):
    monkeypatch.setenv("LABKIT_STRICT", "1")
    assert states(checked(saved(answer="41")))["answer"] == "NOT YET"


def test_what_is_no_labs_notebook_is_refused_with_a_cure(tmp_path):
    (tmp_path / "text.ipynb").write_text("no notebook")
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "plain.ipynb")
    for name, says in (("none", "save it"), ("text", "line 1 is not JSON"), ("plain", "labkit start")):
        with pytest.raises(ValueError, match=says):
            check_notebook(tmp_path / f"{name}.ipynb")
