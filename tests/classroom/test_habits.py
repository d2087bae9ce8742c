"""Habits of honest students, in a real jail: full points, and `labkit check` says so before."""

from __future__ import annotations

import json
import re

import pytest

from labkit.classroom import feedback, submit
from labkit.classroom.check import check_notebook
from labkit.grading.grade import grade

IMPORT = "import functools\n\n\ndef own(f):\n    return functools.wraps(f)(lambda *a, **k: f(*a, **k))"


def helped(cells, names):
    """The answers with a decorator of the student's own."""
    for name in names:
        source = re.sub("^( *)def ", r"\1@own\n\1def ", cells[name]["source"], count=1, flags=re.MULTILINE)
        cells[name]["source"] = source


def code(source):
    return {
        "cell_type": "code",
        "id": "own",
        "metadata": {},
        "outputs": [],
        "execution_count": None,
        "source": source,
    }


def setup(notebook):
    return next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")


def place(notebook, name):
    return next(n for n, cell in enumerate(notebook["cells"]) if cell["id"] == name)


def at_the_top(notebook, names, stubs):
    notebook["cells"].insert(0, code(IMPORT))


def in_our_setup_cell(notebook, names, stubs):
    setup(notebook)["source"] += "\n" + IMPORT


def beside_the_first_answer(notebook, names, stubs):
    notebook["cells"].insert(place(notebook, names[0]), code(IMPORT))


def under_a_magic_in_the_first_answer(notebook, names, stubs):
    cell = notebook["cells"][place(notebook, names[0])]
    cell["source"] = f"%matplotlib inline\n{IMPORT}\n\n\n{cell['source']}"


def in_try_and_if_and_a_table(notebook, names, stubs):
    source = (
        "try:\n    import functools\nexcept ImportError:\n    raise\nCFG = {}\nCFG['s'] = functools.wraps\n"
    )
    source += "if True:\n    def own(f):\n        return CFG['s'](f)(lambda *a, **k: f(*a, **k))"
    notebook["cells"].insert(place(notebook, names[0]), code(source))


def below_untouched_stubs(notebook, names, stubs):
    at_the_top(notebook, names, stubs)
    for name in names:
        at = place(notebook, name)
        notebook["cells"].insert(at + 1, {**code(notebook["cells"][at]["source"]), "id": f"mine-{name}"})
        notebook["cells"][at]["source"] = stubs[name]


def with_an_experiment_beside_each(notebook, names, stubs):
    at_the_top(notebook, names, stubs)
    for name in names:
        notebook["cells"].insert(place(notebook, name) + 1, code("while True:\n    pass"))


HABITS = [
    at_the_top,
    in_our_setup_cell,
    beside_the_first_answer,
    under_a_magic_in_the_first_answer,
    in_try_and_if_and_a_table,
    below_untouched_stubs,
    with_an_experiment_beside_each,
]


def nowhere(notebook, names, stubs):
    """No habit: what the answers need was deleted."""


@pytest.mark.slow  # test_transplant.py and test_check_is_grade.py look at the same without a jail
@pytest.mark.parametrize("lab", ["04_lora", "09_med_tuning"])
def test_right_answers_get_full_points_wherever_the_student_put_what_they_need(
    jailed, released, edition, tmp_path, lab
):
    folder = tmp_path / "in"
    folder.mkdir()
    stubs = {cell["id"]: "".join(cell["source"]) for cell in edition("student", lab)["cells"]}
    for habit in [*HABITS, nowhere]:
        notebook = edition("instructor", lab)
        for cell in notebook["cells"]:
            cell["source"] = "".join(cell["source"])
        answers = {
            cell["id"]: cell
            for cell in notebook["cells"]
            if cell["metadata"].get("labkit", {}).get("role") == "answer" and cell["cell_type"] == "code"
        }
        helped(answers, answers)
        habit(notebook, list(answers), stubs)
        (folder / f"{habit.__name__}.ipynb").write_text(json.dumps(notebook))
    grade(folder, released, tmp_path / "out", lab, workers=1, progress=False)
    lines = [json.loads(line) for line in (tmp_path / "out" / "ledger.jsonl").read_text().splitlines()]
    assert len(lines) == len(HABITS) + 1
    for line in lines:
        path = folder / f"{line['student']}.ipynb"
        right = line["student"] != "nowhere"
        assert line["score"] == (line["points"] if right else 0), (line["student"], line["exercises"])
        assert all(bool(one) == right for one in check_notebook(path).feedback.values()), line["student"]
        remarks = submit.pack(path, submit.edition(lab), tmp_path / "hand-in").remarks
        page = feedback.student_page(line, {}, {})
        needed = "own` is needed in line 1 of the answer"
        assert any(needed in remark for remark in remarks) == (needed in page) == (not right)
