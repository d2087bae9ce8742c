"""The student's cells, found and set into our notebook."""

from __future__ import annotations

import nbformat
import pytest

from labkit.grading import transplant
from labkit.release import editions

SOURCE = '''# %%
import math
import os.path as p, json

START = 2
print("a demonstration that trains for minutes")

# %% labkit={"exercise": "one", "role": "answer"}
def one():
    """One."""
    ### BEGIN SOLUTION
    return START - 1
    ### END SOLUTION

# %% labkit={"exercise": "one", "role": "check"}
lab.check("one", one)

# %%
one = lab.working("one", one)

# %% labkit={"exercise": "two", "role": "answer"}
def two():
    ### BEGIN SOLUTION
    return math.ceil(one() + 0.5)
    ### END SOLUTION

# %% labkit={"exercise": "two", "role": "check"}
lab.check("two", lambda: two())
'''


@pytest.fixture
def release(tmp_path):
    (tmp_path / "00_x.py").write_text(SOURCE)
    return editions.student(tmp_path / "00_x.py")


def cell(id_="", source="", type_="code", exercise="", role=""):
    return {"id": id_, "type": type_, "source": source, "exercise": exercise, "role": role}


ONE = cell("one", "def one():\n    return START - 1")


def test_only_what_an_answer_needs_runs_before_it(release):
    given = transplant.answers([ONE, cell("two", "def two():\n    return math.ceil(one() + 0.5)")], release)
    made = transplant.notebook(given["two"], given, release)
    assert [c.metadata.labkit.role for c in made.cells] == ["prelude", "answer", "check"]
    assert made.cells[0].source.split("\n\n") == ["import math", "START = 2", ONE["source"]]
    assert "lab." not in "".join(c.source for c in made.cells)


def test_a_name_that_is_local_to_the_answer_pulls_in_nothing(release):
    given = transplant.answers([cell("one", "def one(math=1):\n    START = 2\n    return START")], release)
    assert [c.metadata.labkit.role for c in transplant.notebook(given["one"], given, release).cells] == [
        "answer",
        "check",
    ]


def test_a_cell_is_found_by_id_then_by_metadata_then_by_the_name_it_defines(release):
    text = ONE["source"]
    for given, flag in (
        (ONE, []),
        (cell("x", text, exercise="one", role="answer"), ["answer cell found by its metadata"]),
        (cell("x", text), ["answer cell found by the name it defines"]),
        (cell("x", "def another(): pass"), ["answer cell not found"]),
    ):
        answer = transplant.answers([given], release)["one"]
        assert answer.flags == flag
        assert answer.source == (None if flag == ["answer cell not found"] else text)


def test_of_several_answers_the_last_that_is_no_stub_counts(release):
    stub = next(c.source for c in release.cells if c.id == "one")
    answer = transplant.answers([cell("one", "def one(): return 5"), cell("one", stub)], release)["one"]
    assert answer.source == "def one(): return 5"
    assert not transplant.attempted(transplant.answers([cell("one", stub)], release)["one"], release)


def test_cells_added_beside_an_answer_run_with_it_in_their_place(release):
    cells = [
        cell("a", "A = 1"),
        ONE,
        cell("b", "B = 1"),
        cell("one-check", "lab.check('one', one)"),
        cell("c", "C"),
    ]
    answer = transplant.answers(cells, release)["one"]
    assert (answer.before, answer.after) == (["A = 1"], ["B = 1"])


def test_what_is_checked_is_what_our_check_cell_says(release):
    assert transplant.expression(release, "one") == "one"
    assert transplant.expression(release, "two") == "lambda: two()"


def test_text_that_is_no_python_breaks_nothing(release):
    for source in ("def one(:", "%magic math", "(" * 5000, "one = " + "-" * 50_000 + "1", "\0"):
        given = transplant.answers([cell("one", source)], release)
        nbformat.validate(transplant.notebook(given["one"], given, release))
