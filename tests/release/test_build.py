from __future__ import annotations

import contextlib
import json
import sys

import nbformat
import psutil
import pytest

from labkit.release import build as building
from labkit.release.build import CellFailed, build, run, source_of


def outputs(notebook, id):
    return next(cell.outputs for cell in notebook.cells if cell.id == id)


@pytest.mark.slow  # test_promises.py builds twice, too
def test_build_executes_the_notebook_and_building_again_gives_the_same_bytes(checkout, tiny):
    [built] = build(["01"])
    assert built == tiny.with_suffix(".ipynb")
    first = built.read_bytes()
    notebook = nbformat.reads(first.decode(), as_version=4)
    assert [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"] == [1, 2, 3, 4, 5]
    assert "PASS" in outputs(notebook, "double-check")[0].data["text/plain"]
    assert "seal" not in notebook.metadata.labkit
    assert build() == [built] and built.read_bytes() == first
    assert {path.name for path in built.parent.iterdir()} == {"01_tiny.py", "01_tiny.ipynb"}


@pytest.mark.slow
def test_cells_run_in_the_running_python_and_in_the_notebooks_folder(tiny, edit):
    edit("double(3)", "import sys, os; print(sys.executable); print(os.getcwd())")
    [built] = build(["01_tiny"])
    text = nbformat.read(built, as_version=4).cells[-1].outputs[0].text
    assert text == f"{sys.executable}\n{tiny.parent}\n"


@pytest.mark.parametrize(
    "ending",
    [pytest.param(one, marks=pytest.mark.slow) for one in ("double(3)", "1 / 0", "import os; os._exit(1)")],
)
def test_the_kernel_ends_with_its_notebook_however_that_ends(tiny, edit, ending):
    """A kernel that stays holds what its lab held: gigabytes, once a few were built."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    edit("double(3)", ending)
    with contextlib.suppress(CellFailed):
        build(["01_tiny"])
    started = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    assert not [child for child in started if "ipykernel_launcher" in " ".join(child.cmdline())]


def test_a_failing_cell_is_named_and_the_built_notebook_stays(built, edit):
    before = built.read_bytes()
    edit("assert four == 4", "assert four == 5, 'not five'")
    with pytest.raises(CellFailed) as error:
        build(["01"])
    assert "01_tiny: code cell 3 of 5" in str(error.value) and "AssertionError: not five" in str(error.value)
    assert "four = lab.working" in str(error.value)
    assert built.read_bytes() == before


@pytest.mark.slow  # a failing cell, whatever fails in it, is looked at above
def test_a_solution_that_fails_its_own_check_fails_the_build(edit):
    edit("    return twice", "    return twice if x < 2 else 0")
    edit("assert twice - x == x", "pass")
    with pytest.raises(CellFailed, match="double-check") as error:
        build(["01"])
    assert "NOT YET: double" in str(error.value)


def test_a_kernel_that_dies_and_a_cell_that_hangs_are_named(edit, monkeypatch):
    edit("double(3)", "import os; os._exit(1)")
    with pytest.raises(CellFailed, match="5 of 5 .* died"):
        build(["01"])
    edit("def double(x):", "import time; time.sleep(60)\ndef double(x):")
    monkeypatch.setattr(building, "CELL_SECONDS", 1)
    with pytest.raises(CellFailed, match="1 of 5 .* did not end"):
        build(["01"])


def test_a_leaking_source_is_not_built(tiny, edit):
    edit("double(3)", "def spoiler(x):\n    twice = x + x\n    assert twice - x == x\n    return twice")
    with pytest.raises(ValueError, match="shows the solution of double"):
        build(["01"])
    assert not tiny.with_suffix(".ipynb").exists()


@pytest.mark.slow
def test_what_changes_from_run_to_run_is_not_stored(edit):
    edit(
        "double(3)",
        "import sys, tqdm, ipywidgets\nfor _ in tqdm.tqdm(range(3)): pass\n"
        "print('kept', file=sys.stderr)\ndisplay(ipywidgets.IntSlider())\nobject()",
    )
    [built] = build(["01"])
    text = built.read_text()
    assert "widget" not in json.dumps(json.loads(text)["cells"][-1]["outputs"]) and "it/s" not in text
    assert "kept" in text and "<object at ...>" in text and '"execution":' not in text


def test_run_executes_the_lab_beside_the_students_work_without_touching_it(checkout):
    mine = checkout / "workbook" / "01_tiny.ipynb"
    mine.parent.mkdir()
    mine.write_text("my work")
    result = run("01")
    assert result == checkout / "workbook" / "results" / "01_tiny.ipynb"
    assert mine.read_text() == "my work"
    assert nbformat.read(result, as_version=4).cells[-1].execution_count == 5


@pytest.mark.slow  # four runs; that a run leaves the student's work alone is looked at above
def test_run_replaces_its_own_result_but_never_an_edited_one(checkout, tmp_path):
    result = run("01")
    assert run("1") == result
    edited = result.read_text().replace("Two times two", "My notes")
    result.write_text(edited)
    assert run("01").name == "01_tiny (2).ipynb"
    assert result.read_text() == edited
    mine = tmp_path / "mine.ipynb"
    mine.write_text("not even a notebook")
    assert run("01", mine).name == "mine (2).ipynb" and mine.read_text() == "not even a notebook"


@pytest.mark.slow
def test_run_keeps_the_notebook_of_a_failed_run_and_says_where(checkout, edit):
    edit("assert four == 4", "1 / 0")
    with pytest.raises(CellFailed, match="ZeroDivisionError") as error:
        run("01")
    kept = checkout / "workbook" / "results" / "01_tiny.ipynb"
    assert str(kept) in str(error.value)
    assert nbformat.read(kept, as_version=4).cells[3].outputs[0].ename == "ZeroDivisionError"


def test_an_unknown_lab_is_answered_with_those_that_exist(checkout):
    assert source_of("notebooks/01_tiny.py") == source_of("1") == checkout / "notebooks" / "01_tiny.py"
    with pytest.raises(ValueError, match="no lab '77'; there are 01_tiny"):
        run("77")
