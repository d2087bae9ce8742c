"""What `labkit check` calls right is graded right, and so is what the lab does: for notebooks at random."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import random

import pytest
import torch
from IPython.core.inputtransformer2 import TransformerManager

from labkit import lessons, paths
from labkit.classroom.check import check_cells
from labkit.classroom.misconceptions import Here
from labkit.grading import evidence, transplant
from labkit.lessons.lab import exercises
from labkit.release import editions

NOTEBOOKS = int(os.environ.get("LABKIT_RANDOM_NOTEBOOKS", 100))  # .ci/run says 150
LESSON = """
import torch
from labkit.lessons import Challenge, Exercise
draw = lambda: (float(torch.randint(1, 99, ())),)
drawn = Challenge("a number", draw)
EXERCISES = {
    "more": Exercise(reference=lambda x: x + 2, challenges=(drawn,)),
    "most": Exercise(reference=lambda x: 3 * (x + 2), challenges=(drawn,)),
    "level": Exercise(reference=lambda: 7),
}
"""
SOURCE = """
# %%
import math
from labkit.lessons import start
lab = start("96")

# %%
ONE = math.gcd(3, 2)

# %% labkit={"exercise": "more", "role": "answer", "points": 1}
def more(x):
    ### BEGIN SOLUTION
    return x + 2 * ONE
    ### END SOLUTION

# %% labkit={"exercise": "more", "role": "check"}
lab.check("more", more)

# %%
my_more = lab.working("more", more)

# %% labkit={"exercise": "most", "role": "answer", "points": 1}
def most(x):
    ### BEGIN SOLUTION
    return 3 * more(x)
    ### END SOLUTION

# %% labkit={"exercise": "most", "role": "check"}
lab.check("most", most)

# %% labkit={"exercise": "level", "role": "answer", "points": 1}
### BEGIN SOLUTION
level = 7
### END SOLUTION

# %% labkit={"exercise": "level", "role": "check"}
lab.check("level", level)
"""
HELPERS = [  # each makes NAME() == 1
    "def NAME():\n    return 1",
    "import functools\n\n\n@functools.cache\ndef NAME():\n    return 1",
    "class NAME(int):\n    def __new__(cls):\n        return 1",
    "try:\n    from nowhere import NAME\nexcept ImportError:\n    NAME = lambda: 1",
    "if math.pi > 3:\n    def NAME():\n        return ONE",
    "import contextlib\nwith contextlib.suppress(ValueError):\n    NAME = lambda: 1",
    "for NAME in [lambda: 1]:\n    pass",
    "NAME_t = {}\nNAME_t['k'] = 1\n\ndef NAME():\n    return NAME_t['k']",
    "NAME_t = []\nNAME_t.append(1)\nNAME = lambda: NAME_t[0]",
    "NAME_t = 0\nNAME_t += 1\nNAME = lambda: NAME_t",
    "%matplotlib inline\ndef NAME():\n    return 1",
    "%%time\ndef NAME():\n    return 1",
    "NAME_t = !echo 1\ndef NAME():\n    return len(NAME_t)",
    "%time NAME = lambda: 1",
    "print?\nNAME = (lambda k: lambda: k)(1)",
    "from operator import *\n\ndef NAME():\n    return sub(2, 1)",
    "def NAME():\n    return 2",  # wrong
    "def other():\n    return 1",  # NAME is nowhere
    "def NAME(:\n    return 1",
]
ANSWERS = {
    "more": ["def more(x):\n    return x + 2 * NAME()", "%%time\ndef more(x):\n    return x + 2 * NAME()"],
    "most": [
        "def most(x):\n    return 3 * more(x) * NAME()",
        "def most(x):\n    return 3 * my_more(x) * NAME()\n\nmost?",
        "most = lambda x: 3 * (x + 2 * NAME())",
    ],
    "level": ["level = 7 * NAME()", "%time level = 6 + NAME()", "level = 0\nlevel += 7 * NAME()"],
}
NOISE = [
    "import time\ntime.sleep(100)",
    "raise SystemExit",
    "1 / 0",
    "trial = 'a trial'.nothing",
    "%nonsense",
    "x = (",
]


@pytest.fixture(scope="module")
def edition(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lesson")
    (folder / "lab96_random").mkdir()
    (folder / "lab96_random" / "__init__.py").write_text(LESSON)
    (folder / "96_random.py").write_text(SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lessons, "__path__", [*lessons.__path__, str(folder)])
        patch.setattr(paths, "data_dir", lambda: folder)
        yield editions.student(folder / "96_random.py")


def cell(source, id_="", exercise="", role="", type_="code"):
    return {"id": id_, "type": type_, "source": source, "exercise": exercise, "role": role}


def random_notebook(chance, edition):
    """Cells of a hand-in, with helpers, answers and experiments in random forms and places."""
    cells = []
    for one in edition.cells:
        mark = one.metadata.get("labkit", {})
        cells.append(cell(one.source, one.id, mark.get("exercise", ""), mark.get("role", "")))
    for exercise, forms in ANSWERS.items():
        name = f"help_{exercise}"
        helper = chance.choice(HELPERS).replace("NAME", name)
        source = chance.choice(forms).replace("NAME", name)
        at = next(n for n, one in enumerate(cells) if one["id"] == exercise)
        place = chance.choice(["setup", "top", "above", "inside", "other"])
        way = chance.choice(["in place", "in place", "copied", "below the stub", "left"])
        if place == "inside" and not helper.startswith("%%") and not source.startswith("%%"):
            source = f"{helper}\n{source}"
        elif place == "setup" and not helper.startswith("%%") and "(:" not in helper:
            cells[1] = {**cells[1], "source": f"{cells[1]['source']}\n{helper}"}
        else:
            where = {"top": 2, "other": chance.randint(2, at)}.get(place, at)
            cells.insert(where, cell(helper))
            at += 1
        if way == "in place":
            cells[at] = {**cells[at], "source": source}
        elif way == "copied":
            cells.insert(at + 1, {**cells[at], "id": f"copy-{exercise}", "source": source})
        elif way == "below the stub":
            cells.insert(at + 1, cell(source))
    noise = [cell(source) for source in chance.choices(NOISE, k=2)]
    for one in noise:
        cells.insert(chance.randint(2, len(cells)), one)
    if chance.random() < 0.2:  # an editor that drops ids, or metadata too
        bare = {"exercise": "", "role": ""} if chance.random() < 0.5 else {}
        cells[:] = [{**one, "id": "", **bare} for one in cells]
        noise = [one for one in cells if one["source"] in NOISE]
    return cells, [one for one in cells if one not in noise]


class IPython:
    """As much of a kernel as these notebooks ask for; another than labkit's own."""

    def __init__(self, space):
        self.space = space

    def run_line_magic(self, name, code):
        if name == "time":
            run(code, self.space)

    def run_cell_magic(self, name, line, body):
        run(body, self.space)

    def getoutput(self, command):
        return [command.removeprefix("echo ")]


@functools.cache
def compiled(source):
    return compile(TransformerManager().transform_cell(source), "<cell>", "exec")


def run(source, space):
    space["get_ipython"] = lambda: IPython(space)
    with contextlib.suppress(Exception):
        exec(compiled(source), space)


def graded(cells, edition):
    """exercise -> whether the transplanted notebook gets full points, by the grader's own judge."""
    given, found = transplant.answers(cells, edition), {}
    for name, exercise in exercises("96").items():
        found[name] = False
        if transplant.attempted(given[name], edition):
            space: dict = {}
            for one in transplant.notebook(given[name], given, edition).cells:
                run(one.source, space)
            value = space.get(name)
            call = value if callable(value) else lambda *inputs, value=value: value
            marks = evidence.judge(exercise, Here(call), [1, 2, 3], evidence.varies(exercise))
            found[name] = evidence.score(marks, 1.0) == 1.0
    return found


class Lab:
    """The lab of a notebook that is run from its top, with the student's own answers."""

    def __init__(self):
        self.passed = {}

    def check(self, name, answer):
        self.passed[name] = bool(lessons.check(name, exercises("96")[name], answer))

    def working(self, name, answer):
        return answer


def test_check_and_grade_and_the_lab_agree_on_notebooks_at_random(edition, monkeypatch):
    monkeypatch.setattr(
        torch, "manual_seed", torch.default_generator.manual_seed
    )  # looks for no GPU each time
    seen = {True: 0, False: 0}
    for seed in range(NOTEBOOKS):
        cells, without_noise = random_notebook(random.Random(seed), edition)
        shown = "\n# ---\n".join(one["source"] for one in cells)
        with contextlib.redirect_stdout(io.StringIO()):
            checked = check_cells(cells, edition, "96_random")
            marks = graded(cells, edition)
            space, lab = {}, Lab()
            for one in without_noise:
                space["LAB"] = lab
                run(one["source"].replace('start("96")', "LAB"), space)
        passed = {name: bool(feedback) for name, feedback in checked.feedback.items()}
        assert passed == marks, f"seed {seed}: check says {passed}, the grader {marks}\n{shown}"
        assert passed == {name: lab.passed.get(name, False) for name in passed}, (
            f"seed {seed}: {lab.passed}\n{shown}"
        )
        for name, right in passed.items():
            seen[right] += 1
            lost = f"help_{name}` is needed"
            assert not (right and any(lost in remark for remark in checked.remarks)), f"seed {seed}\n{shown}"
    assert min(seen.values()) > NOTEBOOKS / 4, "both outcomes are really tried"
