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
    roles = [(c.metadata.labkit.role, c.metadata.labkit.theirs) for c in made.cells]
    assert roles == [("prelude", False), ("prelude", True), ("answer", True), ("check", False)]
    assert [c.source for c in made.cells[:2]] == ["import math\n\nSTART = 2", ONE["source"]]
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


def ran(cells, release, exercise="one"):
    """What the transplanted notebook's cells hold, and the flags."""
    given = transplant.answers(cells, release)
    made = transplant.notebook(given[exercise], given, release)
    return [c.source for c in made.cells[:-1]], given[exercise].flags


HELP = "def aid():\n    return 1"
USES = cell("one", "def one():\n    return aid()")
CHECK = cell("one-check", 'lab.check("one", one)', exercise="one", role="check")


@pytest.mark.parametrize(
    "helper",
    [
        HELP,
        f"import functools\n\n\n@functools.cache\n{HELP}",
        "class aid:\n    pass",
        "try:\n    from fast import aid\nexcept ImportError:\n    def aid():\n        return 1",
        "if True:\n    def aid():\n        return 1",
        "with open('/dev/null') as file:\n    aid = file.readlines",
        "for aid in (int, float):\n    pass",
        "aid = {}\naid['s'] = 1\naid.update(t=2)",
        "aid = 1\naid += 1",
        f"%matplotlib inline\n{HELP}",
        f"%%time\n{HELP}",
        "aid = !ls",
        "%time aid = int()",
        f"print?\n{HELP}",
    ],
)
def test_whatever_gives_a_name_is_found_wherever_the_student_wrote_it(release, helper):
    setup = cell(release.cells[0].id, release.cells[0].source + "\n" + helper)
    noise = cell("n", "raise SystemExit('an experiment that no answer needs')")
    for cells in (
        [cell("h", helper), noise, USES],
        [setup, noise, USES],
        [USES, CHECK, noise, cell("h", helper)],
    ):
        sources, flags = ran(cells, release)
        space = {}
        space["get_ipython"] = FakeIPython(space).itself
        for source in sources:
            exec(source, space)
        assert "aid" in space and "SystemExit" not in "".join(sources) and not flags
        if "update" in helper:
            assert space["aid"] == {"s": 1, "t": 2}
        if "+=" in helper:
            assert space["aid"] == 2


class FakeIPython:
    def __init__(self, space):
        self.space = space

    def itself(self):
        return self

    def getoutput(self, command):
        return [command]

    def run_line_magic(self, name, code):
        exec(code, self.space)


def test_of_two_bindings_a_function_finds_the_last_above_its_answer_also_through_helpers(release):
    cells = [
        cell("a", "def aid():\n    return deep"),
        cell("b", "deep = 1"),
        cell("c", "deep = 2"),
        USES,
        CHECK,
    ]
    cells += [cell("d", "deep = 3")]
    assert ran(cells, release)[0][:-1] == [cells[0]["source"], "deep = 2"]


def test_what_builds_on_the_answer_runs_below_it(release):
    cells = [cell("one", "def one():\n    return TABLE[0]"), cell("t", "TABLE = [one, 5]"), CHECK]
    assert ran(cells, release)[0] == [cells[0]["source"], "TABLE = [one, 5]"]


def test_a_name_that_is_nowhere_is_named_with_its_line_and_where_it_might_stand(release):
    missing = ran([USES], release)[1]
    assert missing == ["`aid` is needed in line 2 of the answer's cell, but no cell of the notebook gives it"]
    (flag,) = ran([USES, cell("h", HELP, type_="text")], release)[1]
    assert "begins with `def aid():` cannot be read: it is no code cell" in flag
    (flag,) = ran([USES, cell("h", f"{HELP}\n)")], release)[1]
    assert "cannot be read: line 3: unmatched ')'" in flag
    assert ran([USES, cell("s", "from somewhere import *")], release)[1] == []
    (flag,) = ran([cell("one", "def one(:")], release)[1]
    assert "cannot be read as Python: line 1: invalid syntax" in flag


def test_an_answer_that_cannot_be_read_wants_nothing(release):
    for source in ("def one(:  # math START", "%%bash\nmath START"):
        assert ran([cell("one", source)], release)[0] == [source]


def test_an_untouched_stub_gives_way_and_a_trial_below_the_check_does_not_count(release):
    stub = next(c.source for c in release.cells if c.id == "one")
    mine = "def one():\n    return 5"
    for cells in ([cell("one", stub), cell("x", mine)], [cell("one", stub), CHECK, cell("x", mine)]):
        assert transplant.answers(cells, release)["one"].source == mine
    cells = [cell("one", mine), CHECK, cell("x", "def one():\n    return 'a trial'")]
    assert transplant.answers(cells, release)["one"].source == mine
    cells = [cell("one", "# first try"), cell("x", mine), CHECK]
    assert transplant.answers(cells, release)["one"].source == mine


def test_what_is_checked_is_what_our_check_cell_says(release):
    assert transplant.expression(release, "one") == "one"
    assert transplant.expression(release, "two") == "lambda: two()"


def test_text_that_is_no_python_breaks_nothing(release):
    for source in ("def one(:", "%magic math", "(" * 5000, "one = " + "-" * 50_000 + "1", "\0"):
        given = transplant.answers([cell("one", source)], release)
        nbformat.validate(transplant.notebook(given["one"], given, release))
