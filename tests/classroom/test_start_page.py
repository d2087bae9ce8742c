"""The page that a workbook opens with, on the course's own labs."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from typer.testing import CliRunner

from labkit.classroom import start_page
from labkit.cli import app
from labkit.lessons import exercises, labs, progress
from labkit.release import promises
from labkit.release.build import source_of


@pytest.fixture
def workbook(tmp_path):
    progress.begin(tmp_path)
    for lab in labs():
        (tmp_path / f"{lab}.ipynb").touch()
    return tmp_path


def row(text, lab):
    return next(line for line in text.splitlines() if f"]({lab}.ipynb)" in line and line.startswith("|"))


def test_every_lab_has_a_row_with_its_minutes_points_and_a_link_that_leads_there(workbook):
    text = start_page.make(workbook).read_text()
    links = [unquote(link) for link in re.findall(r"\]\(([^)]+)\)", text)]
    assert {f"{lab}.ipynb" for lab in labs()} == set(links)
    assert all((workbook / link).exists() for link in links)
    for lab in labs():
        minutes, memory = promises.promised(source_of(lab))
        assert f"| {minutes} | {memory:.1f} GB |" in row(text, lab), row(text, lab)
        source = source_of(lab).read_text()
        points = sum(map(int, re.findall(r'"role": "answer".*?"points": (\d+)', source)))
        assert f"| {points} | 0 of {len(exercises(lab))} |" in row(text, lab)
    assert "Begin with [Lab 00" in text and "**→**" in row(text, "00_welcome")


def test_it_says_what_is_solved_and_where_to_go_on(workbook):
    for name in exercises("00"):
        progress.keep(workbook, "00_welcome", name, "PASS")
    progress.keep(workbook, "01_transfer", next(iter(exercises("01"))), "PASS")
    text = start_page.make(workbook).read_text()
    assert row(text, "00_welcome").startswith("| ✓ |") and row(text, "01_transfer").startswith("| **→** |")
    assert f"1 of {len(exercises('01'))} |" in row(text, "01_transfer") and "Continue with [Lab 01" in text


def test_it_is_made_anew_but_a_page_that_somebody_edited_stays(workbook):
    page = start_page.make(workbook)
    first = page.read_text()
    progress.keep(workbook, "00_welcome", "dice", "PASS")
    assert start_page.make(workbook).read_text() != first
    page.write_text(page.read_text() + "my notes\n")
    mine = page.read_text()
    progress.keep(workbook, "00_welcome", "regions", "PASS")
    assert start_page.make(workbook).read_text() == mine


def test_labkit_progress_says_the_same_in_a_terminal(workbook):
    for name in exercises("00"):
        progress.keep(workbook, "00_welcome", name, "PASS")
    said = CliRunner().invoke(app, ["progress", "--workbook", str(workbook)])
    count = len(exercises("00"))
    assert said.exit_code == 0 and f"00_welcome      {count} of {count}  all solved" in said.stdout
    assert said.stdout.splitlines()[-1] == "Go on with 01_transfer."


def test_a_terminal_in_a_workbook_that_lies_elsewhere_means_that_one(workbook, monkeypatch):
    """`labkit start --workbook` may have made it anywhere; the start page says `labkit check 00`, no more."""
    progress.keep(workbook, "00_welcome", "dice", "PASS")
    (workbook / "hand-in").mkdir()
    for folder in (workbook, workbook / "hand-in"):
        monkeypatch.chdir(folder)
        said = CliRunner().invoke(app, ["progress"]).stdout
        assert f"00_welcome      1 of {len(exercises('00'))}" in said
    for words in (["check", "00"], ["submit", "00"], ["reset", "00", "dice"], ["update", "00"]):
        said = CliRunner().invoke(app, words)  # its notebook is empty: an error that names the file it took
        assert str(workbook) in f"{said.output}{said.exception}", words


def test_it_leads_to_the_newest_edition_of_a_lab(workbook):
    (workbook / "00_welcome (new edition).ipynb").touch()
    text = start_page.make(workbook).read_text()
    assert text.count("](00_welcome%20%28new%20edition%29.ipynb)") == 2  # "Begin with", and its row
    assert "](00_welcome.ipynb)" not in text and "](01_transfer.ipynb)" in text


def test_no_file_of_the_workbook_is_named_that_is_not_there(tmp_path: Path):
    (tmp_path / "00_welcome.ipynb").touch()
    assert "01_transfer.ipynb" not in start_page.make(tmp_path).read_text()
