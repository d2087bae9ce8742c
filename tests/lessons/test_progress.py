"""What is solved is kept in the workbook and nothing else is; no kernel or disk that fails loses it."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from labkit.lessons import progress, start


@pytest.fixture
def workbook(tmp_path, monkeypatch):
    progress.begin(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def right(lab, name):
    return lab.exercises[name].reference


def test_a_new_kernel_knows_what_was_solved_and_the_answers_are_kept_nowhere(workbook):
    lab = start("00")
    first, second, *_ = lab.exercises
    assert lab.check(first, right(lab, first)) and not lab.check(second, lambda *inputs: 0)
    again = start("00")
    said = {line.text: line.label for line in again.progress().lines}
    assert said[first] == "PASS" and said[second] == "NOT YET" and "1 of" in again.progress().title
    kept = json.loads((workbook / ".labkit" / "progress.json").read_text())
    assert kept == {"00_welcome": {first: "PASS", second: "NOT YET"}}


def test_the_last_check_counts_and_what_was_lent_or_never_tried_is_not_solved(workbook):
    lab = start("00")
    first = next(iter(lab.exercises))
    lab.check(first, right(lab, first))
    lab.check(first, lambda *inputs: 0)
    lent = lab.working(first, lambda *inputs: 0)
    lab.check(first, lent)
    lab.check(first, None)
    assert progress.read(workbook) == {"00_welcome": {first: "NOT YET"}}
    assert progress.solved(progress.read(workbook), "00_welcome") == set()


def test_where_there_is_no_workbook_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lab = start("00")
    name = next(iter(lab.exercises))
    lab.check(name, right(lab, name))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "[]", '{"00_welcome": 3}', "\0\1"])
def test_a_file_that_was_spoilt_is_begun_anew_and_stops_nothing(workbook, text):
    (workbook / ".labkit" / "progress.json").write_text(text)
    assert progress.read(workbook) == {}
    progress.keep(workbook, "00_welcome", "dice", "PASS")
    assert progress.solved(progress.read(workbook), "00_welcome") == {"dice"}


def test_a_disk_that_cannot_be_written_stops_no_check(workbook, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(progress, "write_atomically", full)
    progress.keep(workbook, "00_welcome", "dice", "PASS")
    assert progress.read(workbook) == {}


def test_two_labs_open_at_once_lose_none_of_each_others(workbook):
    jobs = [(f"0{lab}", f"exercise {i}") for lab in range(4) for i in range(6)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda job: progress.keep(workbook, *job, "PASS"), jobs))
    kept = progress.read(workbook)
    assert {(lab, name) for lab, names in kept.items() for name in names} == set(jobs)
