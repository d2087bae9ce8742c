from __future__ import annotations

import nbformat
import pytest

from labkit.release.build import build
from labkit.release.verify import nbval_failures, out_of_date, student_failures


def test_a_lab_in_order_has_nothing_to_say(tiny):
    [built] = build(["01"])
    assert out_of_date(tiny) == [] and nbval_failures(built) == [] and student_failures(tiny) == []


def test_a_built_notebook_that_is_not_its_source_is_named(tiny, edit):
    assert "missing" in out_of_date(tiny)[0]
    [built] = build(["01"])
    notebook = nbformat.read(built, as_version=4)
    notebook.cells[3].source += "\n# edited by hand"
    notebook.cells[5].execution_count = None
    notebook.cells[4].outputs = [nbformat.v4.new_output("error", ename="E", evalue="e", traceback=[])]
    nbformat.write(notebook, built)
    said = " ".join(out_of_date(tiny))
    assert "differs from" in said and "never executed" in said and "shows E: e" in said
    edit("double(3)", "double(4)")
    assert "other cells" in out_of_date(tiny)[0]


@pytest.mark.parametrize("wrong, says", [
    ("assert False, 'no'", "AssertionError: no"),
    ("lab.check('double', lambda x: 0)", "NotSolved"),
    ("while True:\n    try:\n        import time; time.sleep(60)\n    except KeyboardInterrupt:\n        break", "time-out"),
])
def test_nbval_names_the_cell_that_fails_even_where_it_would_exit_with_0(tiny, wrong, says):
    [built] = build(["01"])
    notebook = nbformat.read(built, as_version=4)
    notebook.cells[3].source = wrong
    nbformat.write(notebook, built)
    found = nbval_failures(built, cell_seconds=5)
    assert found and notebook.cells[3].id in found[0] and says in "".join(found)


def test_a_broken_notebook_does_not_pass_for_lack_of_cells(tiny):
    [built] = build(["01"])
    text = built.read_text()
    built.write_text(text.replace('"nbformat": 4', '"nbformat": 99'))
    with pytest.raises(Exception):  # noqa: B017  nbformat has many
        nbval_failures(built)


def test_a_student_edition_with_any_other_error_than_a_stub_is_named(tiny, edit):
    edit("double(3)", "undefined_name")
    assert student_failures(tiny) == [f"01_tiny.py, cell {_last(tiny)} of the student's edition: "
                                      "NameError: name 'undefined_name' is not defined"]
    edit("undefined_name", "raise NotImplementedError('something else')")
    assert "something else" in student_failures(tiny)[0]


def _last(source):
    from labkit.release.editions import student
    return student(source).cells[-1].id
