from __future__ import annotations

import os
import subprocess
import sys
import time

import nbformat
import pytest

from labkit.release.workbook import make_workbook, seal, untouched

NEW = "01_tiny (new edition).ipynb"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "workbook"


def work(path, answer="def double(x): return 2 * x  # mine"):
    """What a student does: write into the stub and save."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].source = answer
    nbformat.write(notebook, path)
    return path.read_bytes()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_new_workbook_holds_the_stubs_and_a_second_start_changes_nothing(checkout, folder):
    [path] = make_workbook(folder)
    assert path == folder / "01_tiny.ipynb" and untouched(path)
    assert 'raise NotImplementedError("double")' in nbformat.read(path, as_version=4).cells[1].source
    before = path.stat()
    assert make_workbook(folder) == [] and names(folder) == ["01_tiny.ipynb"]
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_work_on_the_present_edition_is_left_alone(checkout, folder, capsys):
    [path] = make_workbook(folder)
    mine = work(path)
    assert not untouched(path)
    assert make_workbook(folder) == [] and path.read_bytes() == mine and names(folder) == ["01_tiny.ipynb"]
    assert capsys.readouterr().out == ""


def test_an_untouched_stub_is_refreshed_when_the_course_has_a_newer_edition(checkout, folder, edit):
    make_workbook(folder)
    edit("Two times two", "Twice two")
    assert make_workbook(folder) == [folder / "01_tiny.ipynb"] and names(folder) == ["01_tiny.ipynb"]
    assert "Twice two" in (folder / "01_tiny.ipynb").read_text()


def test_a_newer_edition_is_laid_beside_work_and_said_in_one_line(checkout, folder, edit, capsys):
    [path] = make_workbook(folder)
    mine = work(path)
    edit("Two times two", "Twice two")
    assert make_workbook(folder) == [folder / NEW]
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "01_tiny.ipynb is yours" in said and NEW in said
    assert path.read_bytes() == mine and make_workbook(folder) == []
    edit("Twice two", "2 x 2")  # the one beside is untouched: refreshed
    assert make_workbook(folder) == [folder / NEW] and names(folder) == [NEW, "01_tiny.ipynb"]
    theirs = work(folder / NEW, "def double(x): return x + x  # better")
    edit("2 x 2", "2 + 2")  # now both are the student's
    assert make_workbook(folder) == [folder / "01_tiny (new edition 2).ipynb"]
    assert path.read_bytes() == mine and (folder / NEW).read_bytes() == theirs


def test_running_cells_is_work_too(checkout, folder, edit):
    [path] = make_workbook(folder)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].execution_count = 1
    nbformat.write(notebook, path)
    edit("Two times two", "Twice two")
    assert make_workbook(folder) == [folder / NEW]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b"\xff\xfe",
        b'{"metadata": {"labkit": {"seal": 1}}}',
        b"<<<<<<< HEAD\n{}\n",
        b'{"cells": 1, "nbformat": 4, "nbformat_minor": 5}',
    ],
)
def test_a_file_that_is_no_notebook_is_kept_whatever_is_in_it(checkout, folder, content):
    folder.mkdir()
    (folder / "01_tiny.ipynb").write_bytes(content)
    assert make_workbook(folder) == [folder / NEW]
    assert (folder / "01_tiny.ipynb").read_bytes() == content


def test_a_seal_cannot_hide_an_edit(checkout, folder, edit):
    [path] = make_workbook(folder)
    for old, new in (
        ("Two times two", "Note"),
        ('"points": 2', '"points": 3'),
        ('"outputs": []', '"outputs": [ ]'),
    ):
        before = path.read_text()
        assert old in before
        path.write_text(before.replace(old, new))
        assert untouched(path) == (old == '"outputs": []')  # white space is no work
        path.write_text(before)


def test_the_seal_of_a_notebook_survives_the_disk(tmp_path):
    cell = nbformat.v4.new_code_cell(
        "1\n2\n",
        outputs=[
            nbformat.v4.new_output(
                "display_data",
                {"image/png": "aGVsbG8=\n", "text/plain": "<Figure>\nx", "application/json": {"a": [1]}},
            )
        ],
    )
    notebook = seal(nbformat.v4.new_notebook(cells=[cell]))
    nbformat.write(notebook, tmp_path / "a.ipynb")
    assert untouched(tmp_path / "a.ipynb")


START = """
import sys
from pathlib import Path
from labkit.release import workbook
workbook.checkout_root = lambda: Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
while True:
    for path in workbook.make_workbook(Path(sys.argv[2])): print(path.name, flush=True)
    if sys.argv[3] == "once": break
    for path in Path(sys.argv[2]).glob("*.ipynb"): path.unlink()
"""


def process(checkout, folder, how):
    child = subprocess.Popen(
        [sys.executable, "-c", START, checkout, folder, how],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout.readline() == "ready\n"
    return child


def test_two_starts_at_once_make_one_workbook(checkout, folder):
    children = [process(checkout, folder, "once") for _ in range(2)]
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    written = [child.communicate()[0] for child in children]
    assert all(child.returncode == 0 for child in children)
    assert "01_tiny.ipynb" in "".join(written) and names(folder) == ["01_tiny.ipynb"]
    assert untouched(folder / "01_tiny.ipynb")


def test_a_killed_start_leaves_nothing_half_written(checkout, folder):
    for moment in range(3):
        child = process(checkout, folder, "again and again")
        child.stdin.write("\n")
        child.stdin.flush()
        child.stdout.readline()
        time.sleep(0.003 * moment)
        child.kill()
        child.communicate()
        assert all(untouched(path) for path in folder.glob("*.ipynb"))
    for part in folder.glob(".*"):
        os.utime(part, (0, 0))
    stale = folder / ".01_tiny.ipynb.1.part"
    stale.write_text("half")
    os.utime(stale, (0, 0))
    make_workbook(folder)
    assert names(folder) == ["01_tiny.ipynb"] and untouched(folder / "01_tiny.ipynb")
