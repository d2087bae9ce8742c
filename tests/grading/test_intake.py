"""Which files count as handed in, and under what name."""

from __future__ import annotations

import json
import os

import pytest

from labkit.grading import intake
from labkit.grading.submitter import Submitter

EMPTY = json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []})


def test_notebooks_and_students_folders_are_found_and_links_and_other_files_are_not(tmp_path):
    (tmp_path / "ann.ipynb").write_text(EMPTY)
    (tmp_path / "bob").mkdir()
    (tmp_path / "bob" / "lab.ipynb").write_text(EMPTY + " ")
    (tmp_path / "bob" / "conftest.py").write_text("raise SystemExit")
    (tmp_path / "bob" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit")
    (tmp_path / "link.ipynb").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe.ipynb")
    (tmp_path / "dir.ipynb").mkdir()
    assert [one.student for one in intake.collect(tmp_path)] == ["ann", "bob"]


@pytest.mark.parametrize(
    ("name", "alias"),
    [
        ("Zoë", "Zoe"),
        ("=cmd()", "_cmd__"),
        ("a\nb", "a_b"),
        ("evil\u202exslx", "evil_xslx"),
        ("x" * 240, "x" * 80),
        ("\u200b", "_"),
        ("李", "_"),
    ],
)
def test_a_name_is_made_safe_and_the_original_is_kept(tmp_path, name, alias):
    (tmp_path / f"{name}.ipynb").write_text(EMPTY)
    (one,) = intake.collect(tmp_path)
    assert one.student == alias
    assert any(ascii(name) in flag for flag in one.flags)


def test_twins_in_name_and_in_content_are_flagged(tmp_path):
    for name in ("Ann", "ann", "bob"):
        (tmp_path / f"{name}.ipynb").write_text(EMPTY + (" " if name == "ann" else ""))
    first, second, third = intake.collect(tmp_path)
    assert (first.student, second.student) in {("Ann", "ann (2)"), ("ann", "Ann (2)")}
    assert second.flags == ("another submission has the same name",) or "same name" in second.flags[0]
    assert [flag for one in (first, second, third) for flag in one.flags if "same file as" in flag]


def test_a_folder_without_notebooks_says_so(tmp_path):
    with pytest.raises(ValueError, match="holds no notebooks"):
        intake.collect(tmp_path)
    with pytest.raises(ValueError, match="is no folder"):
        intake.collect(tmp_path / "none")


def test_of_several_notebooks_in_a_students_folder_the_one_with_a_labs_cells_counts(tmp_path):
    check = {"cell_type": "code", "metadata": {}, "outputs": [], "source": 'lab.check("dice", dice)'}
    lab = json.dumps({**json.loads(EMPTY), "cells": [check]})
    for student, files in {
        "ann": {"a.ipynb": EMPTY, "b.ipynb": lab},
        "bob": {"a.ipynb": lab, "b.ipynb": lab + " "},
        "kim": {"a.ipynb": EMPTY, "b.ipynb": "{"},
    }.items():
        (tmp_path / student).mkdir()
        for name, text in files.items():
            (tmp_path / student / name).write_text(text)
    ann, bob, kim = intake.collect(tmp_path)
    assert (ann.path.name, ann.flags[0]) == ("b.ipynb", "2 notebooks; the one with a lab's cells counts")
    assert len(intake.read(ann)) == 1
    for one, said in ((bob, "2 have"), (kim, "none has")):
        with pytest.raises(intake.Rejected, match=f"it is 2 notebooks, of which {said} a lab's cells"):
            intake.read(one)


HEAD = "student,name,platform,kind,number,members,counts\n"


def test_whose_a_notebook_is_comes_from_the_list_or_else_from_its_name(tmp_path):
    for name in ("ann_12", "Jos\u00e9", "bo"):
        (tmp_path / f"{name}.ipynb").write_text(EMPTY)
    rows = "ann_12,Ann,canvas,user,12,,yes\nbo,Bo,canvas,user,9,,no\n"
    (tmp_path / "hand-ins.csv").write_text(HEAD + rows)
    found = {one.student: one.submitter for one in intake.collect(tmp_path)}
    assert found["ann_12"] == Submitter("canvas", "user", "12", "Ann")
    assert found["bo"] == Submitter("folder", "login", "bo", "bo")
    assert found["Jose"] == Submitter("folder", "login", "Jos\u00e9", "Jos\u00e9")


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "ann,Ann,canvas,user,12,,yes\nann,Bo,canvas,user,13,,yes\n",
        HEAD + "ann,Ann,canvas,user,12,{,yes\n",
        HEAD + "ann,Ann,canvas,user,12,[1],yes\n",
        HEAD + 'ann,Ann,canvas,user,12,"[{""name"": ""A""}]",yes\n',
        "student,name,counts,platform,kind,number,members\nann,Ann,yes\n",
        HEAD + "ann,Ann\xff,canvas,user,12,,yes\n",
    ],
)
def test_a_list_of_ours_that_is_damaged_stops_the_grading(tmp_path, text):
    (tmp_path / "ann.ipynb").write_text(EMPTY)
    (tmp_path / "hand-ins.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="not as `labkit collect` wrote it(.|\n)*Collect the download again"):
        intake.collect(tmp_path)


def test_a_list_of_somebody_elses_or_of_an_older_edition_is_left_alone(tmp_path):
    (tmp_path / "ann.ipynb").write_text(EMPTY)
    for text in ("", "a,b\n1,2\n", "student,name,file,counts\nann,Ann,ann.ipynb,yes\n"):
        (tmp_path / "hand-ins.csv").write_text(text)
        assert intake.collect(tmp_path)[0].submitter == Submitter("folder", "login", "ann", "ann")


def test_a_name_with_signs_that_are_no_text_can_still_be_written_down(tmp_path):
    os.close(os.open(os.fsencode(tmp_path) + b"/a\xff\x1b.ipynb", os.O_CREAT | os.O_WRONLY))
    (one,) = intake.collect(tmp_path)
    assert one.submitter.name == "a\ufffd?" and one.submitter.name.encode()
