"""A lab says which others hold memory, that its last kernel was killed, and that a newer edition is there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from labkit import doctor
from labkit.lessons import kernels, progress, start

OPENS = """import os, sys
from pathlib import Path
from labkit.lessons import kernels
print(kernels.register(Path.cwd(), sys.argv[1]), flush=True)
input()
"""


@pytest.fixture
def workbook(tmp_path, monkeypatch):
    progress.begin(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def opened():
    """Starts a process that has a lab open, and ends it with the test."""
    running = []

    def one(lab):
        process = subprocess.Popen(
            [sys.executable, "-c", OPENS, lab], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        running.append(process)
        process.said = process.stdout.readline().strip()
        return process

    yield one
    for process in running:
        process.kill()
        process.communicate()


def test_open_labs_are_known_until_they_end(workbook, opened):
    first = opened("01_transfer")
    assert first.said == "([], False)"
    assert kernels.register(workbook, "00_welcome") == (["01_transfer"], False)
    first.communicate("\n")
    assert kernels.register(workbook, "00_welcome") == ([], False)


def test_a_kernel_that_was_killed_is_said_once_to_its_own_lab(workbook, opened, capsys):
    for lab in ("00_welcome", "01_transfer"):
        process = opened(lab)
        process.send_signal(signal.SIGKILL)
        process.wait()
    start("01")
    assert "was killed" in capsys.readouterr().out
    assert kernels.register(workbook, "01_transfer") == ([], False)


def test_a_number_that_another_process_has_now_is_no_open_lab(workbook):
    kernels.register(workbook, "00_welcome")
    note = workbook / ".labkit" / "kernels" / f"{os.getppid()}-03_prompts"
    note.write_text("12.00")
    assert kernels.register(workbook, "00_welcome") == ([], False) and not note.exists()


def test_outside_of_a_workbook_nothing_is_left(tmp_path):
    assert kernels.register(tmp_path, "00_welcome") == ([], False) and not list(tmp_path.iterdir())


def test_where_memory_is_short_the_open_labs_are_named(workbook, opened, monkeypatch, capsys):
    opened("05_rank")
    short = doctor.Finding("memory", "warn", "1.9 GB free", "close other programs")
    monkeypatch.setattr(doctor, "memory", lambda: short)
    start("00")
    assert "1.9 GB free (these labs are open too and hold memory: 05_rank" in capsys.readouterr().out


def test_a_newer_edition_beside_the_open_one_is_named(workbook, monkeypatch, capsys):
    for name in ("00_welcome.ipynb", "00_welcome (new edition).ipynb"):
        (workbook / name).write_text("{}")
    for opened, said in (("00_welcome.ipynb", True), ("00_welcome (new edition).ipynb", False), ("", False)):
        monkeypatch.setenv("JPY_SESSION_NAME", f"some/where/{opened}")
        start("00")
        assert ("A newer edition of this lab lies beside it" in capsys.readouterr().out) == said
