"""Grading as a whole: labs, batches, kills, refusals."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time

import psutil
import pytest

from labkit.grading import grade as grading
from labkit.grading import jail, probes
from labkit.grading.ledger import Ledger
from labkit.lessons import exercises, labs
from labkit.paths import PACKAGE

KILLS = int(os.environ.get("LABKIT_KILLS", 1))  # 10, and 5 copies, before a release
COPIES = int(os.environ.get("LABKIT_COPIES", 1))
MAIN_MB = 300
RUN = """import sys; sys.path.insert(0, {root!r})
from pathlib import Path
from labkit.grading.grade import grade
from labkit.grading.jail import Limits
from labkit.grading.ledger import Ledger
grade(*map(Path, sys.argv[1:4]), lab="00", workers=WORKERS, limits=Limits(cpu=4, wall=30, memory=1 << 30))
"""
DICE = {
    "honest": None,
    "jaccard": "def dice(p, t):\n    return (p & t).sum() / max((p | t).sum(), 1)",
    "loops": "def dice(p, t):\n    while True:\n        pass",
    "dies": "import os\nos._exit(0)",
    "raises": "def dice(p, t):\n    raise ValueError('no idea')",
    "stub": "",
}


OFTEN = ("00", "04", "09")  # of the kinds of exercise that others have too
EACH = [lab if lab.startswith(OFTEN) else pytest.param(lab, marks=pytest.mark.slow) for lab in labs()]


@pytest.fixture(scope="module", params=EACH)
def graded(jailed, released, request, tmp_path_factory):
    """(lab, hand-ins, ledger's folder) with the instructor's and the student's edition graded."""
    hand_ins, out = tmp_path_factory.mktemp("in"), tmp_path_factory.mktemp("out")
    for which in ("instructor", "student"):
        shutil.copy(released / which / f"{request.param}.ipynb", hand_ins / f"{which}.ipynb")
    grading.grade(hand_ins, released, out, request.param, workers=2, progress=False)
    return request.param, hand_ins, out


def test_our_own_answers_get_all_points_and_stubs_get_none(graded):
    lab, _, out = graded
    ours, theirs = ledger(out)
    missed = {
        name: [one["reason"], *(mark["reason"] for mark in one["marks"] if not mark["holds"])]
        for name, one in ours["exercises"].items()
        if one["score"] != one["points"]
    }
    assert (ours["status"], ours["score"], missed) == ("graded", ours["points"], {})
    assert {one["status"] for one in theirs["exercises"].values()} == {"not attempted"}
    assert theirs["score"] == 0 < theirs["points"]
    assert set(ours["exercises"]) <= set(exercises(lab))


def test_what_is_graded_is_not_graded_again(graded, released):
    lab, hand_ins, out = graded
    before = contents(out)
    grading.grade(hand_ins, released, out, lab, progress=False)
    assert contents(out) == before


def test_regrading_says_why_and_keeps_the_old_lines(jailed, released, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "ann.ipynb").write_text("{")
    options = {"lab": "00", "workers": 1, "progress": False}
    with pytest.raises(ValueError, match="say why"):
        grading.regrade(tmp_path / "in", released, tmp_path / "out", " ", **options)
    (tmp_path / "out").mkdir()
    old = {
        "key": "old",
        "student": "ann",
        "lab": "00_welcome",
        "status": "graded",
        "score": 6.0,
        "points": 6.0,
    }
    Ledger(tmp_path / "out").append(old)
    grading.regrade(tmp_path / "in", released, tmp_path / "out", "the check was wrong", **options)
    kept, new = ledger(tmp_path / "out")
    assert kept == old
    assert (new["status"], new["why"]) == ("rejected", "the check was wrong")
    assert "ann,00_welcome,0,6,rejected" in (tmp_path / "out" / "scores.csv").read_text()


def test_a_batch_is_the_same_bytes_twice_and_after_any_kill(jailed, released, edition, tmp_path):
    """With one worker or two, after a full disk and the loss of a worker too. And the grader stays small,
    writes only into its folder, and leaves no process behind."""
    hand_ins = tmp_path / "in"
    hand_ins.mkdir()
    for number in range(COPIES):
        for name, source in DICE.items():
            (hand_ins / f"{name}{number}.ipynb").write_text(json.dumps(answered(edition, source)))
    (hand_ins / "broken.ipynb").write_text("{")
    before = {path: path.read_bytes() for path in released.rglob("*") if path.is_file()}

    first = run(hand_ins, released, tmp_path / "first", tmp_path / "home", workers=1)
    peak = 0
    start = time.monotonic()
    while first.poll() is None:
        with contextlib.suppress(psutil.Error):  # it ended between the two questions
            peak = max(peak, psutil.Process(first.pid).memory_info().rss)
        time.sleep(0.05)
    seconds = time.monotonic() - start
    assert first.returncode == 0, first.stderr.read()
    assert peak < MAIN_MB << 20, f"{peak >> 20} MB"
    assert not left(tmp_path)
    assert {path: path.read_bytes() for path in released.rglob("*") if path.is_file()} == before
    assert not list((tmp_path / "home").rglob("*"))
    expected = contents(tmp_path / "first")
    assert set(expected) == {".lock", "ledger.jsonl", "scores.csv"}

    full = run(hand_ins, released, tmp_path / "second", tmp_path / "home", workers=1)
    assert wait_for_workers(full)
    space = len(expected["ledger.jsonl"]) // 2
    psutil.Process(full.pid).rlimit(psutil.RLIMIT_FSIZE, (space, space))  # of the grader, not of its worker
    assert full.wait() == 1 and "File too large" in full.stderr.read()
    half = (tmp_path / "second" / "ledger.jsonl").read_bytes()
    assert half == expected["ledger.jsonl"][:space] and not half.endswith(b"\n")

    chance = random.Random(5)
    for number in range(KILLS):
        running = run(hand_ins, released, tmp_path / "second", tmp_path / "home", workers=1)
        time.sleep(chance.uniform(0.2, 0.8) * seconds if number else 0.5 * seconds)
        running.kill()
        running.wait()
        assert gone(tmp_path), "processes outlived the grader"
    last = run(hand_ins, released, tmp_path / "second", tmp_path / "home", workers=2)
    benches = wait_for_workers(last)
    time.sleep(seconds / 3)
    if benches and last.poll() is None:  # and one of its workers is lost
        psutil.Process(benches[0].pid).kill()
    assert last.wait() == 0, last.stderr.read()
    assert contents(tmp_path / "second") == expected

    print(f"{len(DICE) * COPIES + 1} notebooks in {seconds:.0f} s, {peak >> 20} MB, {KILLS} kills")


def test_the_command_exits_with_3_where_there_is_no_jail(released, edition, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "ann.ipynb").write_text(json.dumps(answered(edition, None)))
    paths = [str(path) for path in (tmp_path / "in", released, tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "labkit", "grade", *paths, "--lab", "00"],
        env={**os.environ, "PATH": str(tmp_path), "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3
    assert "apt install bubblewrap" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_without_a_jail_nothing_is_graded(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(grading.NoJail, match="apt install bubblewrap"):
        grading.grade(tmp_path, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert probes.report() == ["the program `bwrap` is not installed."]


def test_a_course_below_tmp_is_told_to_move(jailed, monkeypatch):
    monkeypatch.setattr(sys, "prefix", "/tmp/course/.venv")
    assert "set the course up in another folder" in jail.unusable()


def test_a_jail_that_cannot_be_built_or_that_leaks_grades_nothing(jailed, monkeypatch, tmp_path, released):
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho No permissions to create new namespace >&2\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        assert "No permissions" in jail.unusable()
    honest = jail.bwrap

    def leaking(*given):
        command = honest(*given)
        end = command.index("--remount-ro")
        return [*command[:end], "--ro-bind", "/var", "/var", *command[end:]]

    monkeypatch.setattr(jail, "bwrap", leaking)
    assert "a probe inside the jail saw /var" in probes.report()


def test_the_jail_of_this_computer_holds(jailed):
    assert probes.report() == []


def test_two_graders_do_not_work_in_one_folder(jailed, released, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "ann.ipynb").write_text("{")
    (tmp_path / "out").mkdir()
    with grading._alone(tmp_path / "out"), pytest.raises(ValueError, match="another grader"):
        grading.grade(tmp_path / "in", released, tmp_path / "out", "00", progress=False)


def answered(edition, source: str | None) -> dict:
    notebook = edition("student", "00_welcome")
    ours = edition("instructor", "00_welcome")
    for cell, own in (
        (c, o) for c in notebook["cells"] for o in ours["cells"] if c["id"] == o["id"] == "dice"
    ):
        cell["source"] = own["source"] if source is None else source
    return notebook


def run(hand_ins, released, out, home, workers):
    home.mkdir(exist_ok=True)
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            RUN.format(root=str(PACKAGE.parent)).replace("WORKERS", str(workers)),
            str(hand_ins),
            str(released),
            str(out),
        ],
        env={**os.environ, "HOME": str(home), "TMPDIR": str(home), "XDG_CACHE_HOME": str(home)},
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_workers(running) -> list[psutil.Process]:
    """The processes that grade for a running grader; none when it ended before it had any."""
    found: list[psutil.Process] = []
    while not found and running.poll() is None:
        children = psutil.Process(running.pid).children()
        found = [one for one in children if "labkit.grading.bench" in " ".join(one.cmdline())]
        time.sleep(0.02)
    return found


def left(folder) -> list[str]:
    """Processes that still belong to a grader working somewhere in `folder`."""
    found = []
    for process in psutil.process_iter(["cmdline", "pid"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(folder) in line and process.info["pid"] != os.getpid():
            found.append(line[:200])
    return found


def gone(folder, seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while left(folder) and time.monotonic() < end:
        time.sleep(0.05)
    return not left(folder)


def contents(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def ledger(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
