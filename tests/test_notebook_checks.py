from __future__ import annotations

import nbformat
import pytest
from notebook_checks import nbval_failures, out_of_date, student_failures

from labkit.release.editions import student


def test_a_lab_in_order_has_nothing_to_say(tiny, built):
    assert out_of_date(tiny) == [] and nbval_failures(built) == [] and student_failures(tiny) == []


def test_a_built_notebook_that_is_not_its_source_is_named(tiny, built, edit):
    notebook = nbformat.read(built, as_version=4)
    notebook.cells[3].source += "\n# edited by hand"
    notebook.cells[5].execution_count = None
    notebook.cells[4].outputs = [nbformat.v4.new_output("error", ename="E", evalue="e", traceback=[])]
    nbformat.write(notebook, built)
    said = " ".join(out_of_date(tiny))
    assert "differs from" in said and "never executed" in said and "shows E: e" in said
    edit("double(3)", "double(4)")
    assert "other cells" in out_of_date(tiny)[0]
    built.unlink()
    assert "missing" in out_of_date(tiny)[0]


@pytest.mark.parametrize(
    "wrong, says, cell_seconds",
    [
        ("assert False, 'no'", "AssertionError: no", 300),
        pytest.param("lab.check('double', lambda x: 0)", "NotSolved", 300, marks=pytest.mark.slow),
        pytest.param(
            "import time\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    pass",
            "time-out",
            20,  # the first cells import torch
            marks=pytest.mark.slow,
        ),
    ],
)
def test_nbval_names_the_cell_that_fails_even_where_it_would_exit_with_0(built, wrong, says, cell_seconds):
    notebook = nbformat.read(built, as_version=4)
    notebook.cells[3].source = wrong
    nbformat.write(notebook, built)
    found = nbval_failures(built, cell_seconds=cell_seconds)
    assert found and notebook.cells[3].id in found[0] and says in "".join(found)


def test_a_broken_notebook_does_not_pass_for_lack_of_cells(built):
    text = built.read_text()
    built.write_text(text.replace('"nbformat": 4', '"nbformat": 99'))
    with pytest.raises(Exception):  # noqa: B017  nbformat has many
        nbval_failures(built)


@pytest.mark.slow  # no lab is released without its student edition being run
def test_a_student_edition_with_any_other_error_than_a_stub_is_named(tiny, edit):
    edit("double(3)", "undefined_name\n\n# %%\nraise NotImplementedError('something else')")
    first, second = student_failures(tiny)
    *_, last, very_last = student(tiny).cells
    assert first == (
        f"01_tiny.py, cell {last.id} of the student's edition: "
        "NameError: name 'undefined_name' is not defined"
    )
    assert very_last.id in second and "something else" in second
