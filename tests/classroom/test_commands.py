"""The commands around the grader, as they are documented and as they are called."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

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
