"""A newer edition with a student's answers in it, and an answer taken back to its stub."""

from __future__ import annotations

import ast

import nbformat
import pytest

from labkit.release import carry, workbook
from labkit.release.workbook import bring_over, make_workbook, newest, reset, untouched

LAB, NEW = "01_tiny", "01_tiny (new edition).ipynb"
ANSWER = "def double(x):\n    # mine\n    return 2 * x"
STUB = 'def double(x):\n    """Twice x."""\n    raise NotImplementedError("double")'


@pytest.fixture
def folder(checkout, tmp_path):
    make_workbook(tmp_path / "workbook")
    return tmp_path / "workbook"


def change(path, how):
    """What a student does in JupyterLab: change a notebook and save it."""
    notebook = nbformat.read(path, as_version=4)
    how(notebook)
    nbformat.write(notebook, path)
    return path.read_bytes()


def answered(source=ANSWER):
    return lambda notebook: notebook.cells[1].update(source=source)


def sources(path):
    return [cell.source for cell in nbformat.read(path, as_version=4).cells]


def test_a_newer_edition_has_the_answers_and_the_older_file_stays_as_it_is(folder, edit, capsys):
    mine = change(folder / f"{LAB}.ipynb", answered())
    edit("Two times two", "Twice two")
    assert make_workbook(folder) == [folder / NEW]
    assert sources(folder / NEW)[:2] == ["# Twice two", ANSWER]
    assert (folder / f"{LAB}.ipynb").read_bytes() == mine
    assert "with your answers to double" in capsys.readouterr().out
    edit("Twice two", "2 x 2")  # nobody worked in the new one yet: it is made anew, again with the answer
    assert make_workbook(folder) == [folder / NEW]
    assert sources(folder / NEW)[:2] == ["# 2 x 2", ANSWER] and untouched(folder / NEW)


def test_cells_of_ones_own_come_along_after_the_cell_that_they_followed(folder, edit):
    def own(notebook):
        notebook.cells[0].source += "\n\nI think it is 5."
        notebook.cells.insert(2, nbformat.v4.new_code_cell("helper = 3", execution_count=4))
        notebook.cells.append(nbformat.v4.new_markdown_cell("the end"))

    change(folder / f"{LAB}.ipynb", own)
    edit('"points": 2', '"points": 3')
    make_workbook(folder)
    found = sources(folder / NEW)
    assert found[:4] == ["# Two times two\n\nI think it is 5.", "# Two times two", STUB, "helper = 3"]
    assert found[-1] == "the end" and len(found) == 8
    nbformat.validate(nbformat.read(folder / NEW, as_version=4))


def test_an_answer_to_what_is_asked_otherwise_now_is_kept_as_a_comment(folder, edit):
    change(folder / f"{LAB}.ipynb", answered())
    edit("def double(x):", "def double(x, y):")
    make_workbook(folder)
    source = sources(folder / NEW)[1]
    assert source.startswith("def double(x, y):") and "#     return 2 * x" in source
    ast.parse(source)
    assert carry.answer_in(nbformat.read(folder / NEW, as_version=4), workbook._edition(LAB).cells[1]) is None


def test_an_answer_to_an_exercise_that_is_gone_is_kept_as_a_cell(folder, edit):
    change(folder / f"{LAB}.ipynb", answered())
    edit('"exercise": "double"', '"exercise": "twofold"')
    make_workbook(folder)
    assert ANSWER in sources(folder / NEW)


@pytest.mark.parametrize(
    "source", ["", STUB, 'def double(x):\n    y = x\n    raise NotImplementedError("double")']
)
def test_what_is_no_answer_yet_leaves_the_new_stub(folder, edit, source):
    before = change(
        folder / f"{LAB}.ipynb", lambda notebook: notebook.cells[1].update(source=source, execution_count=1)
    )
    edit("Two times two", "Twice two")
    edit("Twice x.", "Twice x, a number.")
    make_workbook(folder)
    assert sources(folder / NEW)[1] == STUB.replace("Twice x.", "Twice x, a number.")
    assert (folder / f"{LAB}.ipynb").read_bytes() == before


def test_later_answers_are_brought_over_on_demand_into_stubs_only(folder, edit):
    path = folder / f"{LAB}.ipynb"
    change(path, lambda notebook: notebook.cells[1].update(execution_count=1))
    edit("Two times two", "Twice two")
    make_workbook(folder)
    mine = change(path, answered())
    with pytest.raises(ValueError, match="has an answer to double.*`labkit update 01`"):
        newest(folder, LAB)
    assert bring_over(folder, LAB) == (folder / NEW, ["double"])
    assert sources(folder / NEW)[1] == ANSWER and path.read_bytes() == mine
    assert newest(folder, LAB) == folder / NEW

    better = change(folder / NEW, answered("def double(x): return x + x"))
    assert bring_over(folder, LAB) == (folder / NEW, [])
    assert (folder / NEW).read_bytes() == better


def test_the_file_that_counts_is_the_only_one_or_said(folder):
    assert newest(folder, LAB) == folder / f"{LAB}.ipynb"
    (folder / f"{LAB}-Copy1.ipynb").write_bytes((folder / f"{LAB}.ipynb").read_bytes())
    with pytest.raises(ValueError, match="'01_tiny.ipynb', '01_tiny-Copy1.ipynb': give the file that counts"):
        newest(folder, LAB)
    with pytest.raises(ValueError, match="has no 02_none.ipynb"):
        newest(folder, "02_none")


def test_a_reset_brings_the_stub_back_and_keeps_the_answer_below(folder):
    path = folder / f"{LAB}.ipynb"
    change(path, answered())
    reset(path, LAB, "double")
    source = sources(path)[1]
    assert source.startswith(STUB) and source.endswith("# def double(x):\n#     # mine\n#     return 2 * x")
    ast.parse(source)
    change(path, answered(STUB))
    before = path.read_bytes()
    reset(path, LAB, "double")  # nothing to keep
    assert path.read_bytes() == before
    with pytest.raises(ValueError, match="01_tiny has no exercise 'duble'; it has double"):
        reset(path, LAB, "duble")
