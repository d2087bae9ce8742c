"""Every released lab: built from its source, right under nbval, and safe to give to students.

Labs run in quick mode; `python3 lab.py test --full` runs them as students do.
"""

from __future__ import annotations

import pytest
from notebook_checks import nbval_failures, out_of_date, student_failures

from labkit.paths import checkout_root

LONG = ("02", "05", "06", "07", "10")  # many cells that take a while also in quick mode
NOTEBOOKS = checkout_root() / "notebooks"
SOURCES = sorted(NOTEBOOKS.glob("*.py"))
each_lab = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)


@pytest.fixture(autouse=True)
def speed(request, monkeypatch):
    monkeypatch.setenv("LABKIT_QUICK", "" if request.config.getoption("full") else "1")


def test_there_are_labs_and_every_notebook_has_its_source():
    assert SOURCES
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == {source.stem for source in SOURCES}


@each_lab
def test_the_built_notebook_is_its_source_executed_without_errors(source):
    assert not (found := out_of_date(source)), "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [pytest.param(one, marks=pytest.mark.slow) if one.stem[:2] in LONG else one for one in SOURCES],
    ids=lambda source: source.stem,
)
def test_the_built_notebook_passes_nbval_with_strict_checks(source):
    assert not (found := nbval_failures(source.with_suffix(".ipynb"))), "\n".join(found)


@pytest.mark.slow  # tests/grading runs most students' editions in the jail
@each_lab
def test_the_student_edition_has_no_answers_and_raises_only_the_stubs(source):
    assert not (found := student_failures(source)), "\n".join(found)
