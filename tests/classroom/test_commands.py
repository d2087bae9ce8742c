"""The commands around the grader, as they are documented and as they are called."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import nbformat
import pytest
import typer
from typer.testing import CliRunner

from labkit import cli
from labkit.classroom import demo_class
from labkit.paths import checkout_root

INSTRUCTORS = (checkout_root() / "docs" / "instructors.md").read_text(encoding="utf-8")
NEW = ("submit", "collect", "export", "feedback", "autograder", "demo-class")


def documented() -> list[str]:
    found = re.findall(r"^ +(labkit .+)$", INSTRUCTORS, re.MULTILINE)
    return sorted({*found, *re.findall(r"`(labkit [^`]+ [^`]+)`", INSTRUCTORS)})


@pytest.mark.parametrize("line", documented())
def test_a_documented_command_is_one_that_exists(line):
    group = typer.main.get_command(cli.app)
    _, name, *arguments = shlex.split(line)
    assert name in group.commands, f"there is no command {name}"
    group.commands[name].make_context(name, arguments)


def test_what_the_demo_class_says_to_try_is_what_the_instructors_page_says():
    for line in demo_class.next_commands(Path("demo")):
        assert f"    {line}\n" in INSTRUCTORS


@pytest.mark.parametrize("command", NEW)
def test_every_command_explains_itself_with_an_example(command):
    said = CliRunner().invoke(cli.app, [command, "--help"]).output
    assert "Example" in said and f"labkit {command}" in said


def test_collect_says_what_it_left_out_and_what_is_wrong_is_a_sentence(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "ann.ipynb").write_text("{}")
    (tmp_path / "in" / "ann.pdf").write_text("x")
    done = CliRunner().invoke(cli.app, ["collect", str(tmp_path / "in"), str(tmp_path / "out")])
    assert done.exit_code == 0 and "left out: ann.pdf" in done.output and "1 notebooks" in done.output
    for arguments in (
        ["collect", str(tmp_path / "in"), str(tmp_path / "out")],
        ["collect", str(tmp_path / "none"), str(tmp_path / "out2")],
        ["export", str(tmp_path), "--to", "canvas"],
        ["feedback", str(tmp_path), str(tmp_path)],
        ["submit", "no-such-lab"],
    ):
        assert isinstance(CliRunner().invoke(cli.app, arguments).exception, ValueError), arguments


def test_submit_makes_the_file_and_names_it(tmp_path):
    from labkit.release.workbook import make_workbook

    make_workbook(tmp_path / "workbook")
    done = CliRunner().invoke(cli.app, ["submit", "00", "--workbook", str(tmp_path / "workbook")])
    assert done.exit_code == 0, done.output
    assert "dice: its cell is empty or still the stub" in done.output
    assert (tmp_path / "workbook" / "hand-in" / "00_welcome.ipynb").is_file()


def test_submit_says_of_each_answer_whether_it_passes_and_where_it_breaks(tmp_path):
    from labkit.classroom import submit

    edition = submit.edition("00")
    answers = {
        "dice": "def dice(prediction, truth):\n    return (prediction & truth.sum()",
        "tumour_ml": "def tumour_ml(label, spacing_mm):\n    return 0.0",
    }
    for cell in edition.cells:
        cell.source = answers.get(cell.id, cell.source)
    (tmp_path / "mine.ipynb").write_text(nbformat.writes(edition))
    done = CliRunner().invoke(
        cli.app, ["submit", str(tmp_path / "mine.ipynb"), "--out", str(tmp_path / "out")]
    )
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    assert (tmp_path / "out" / "mine.ipynb").exists() and str(tmp_path / "out") in said[
        "Hand in this one file"
    ]
    assert "does not pass the lab's check" in said["dice"] and "line 2" in said["dice"]
    assert "does not pass the lab's check (has the right values" in said["tumour_ml"]
    assert said["regions"].startswith("its cell is empty or still the stub")
