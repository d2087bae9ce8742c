"""The ledger: whole lines, in order, whatever happens."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest

from labkit.grading import grade, ledger
from labkit.grading.intake import Submission
from labkit.grading.ledger import Ledger, key, write_scores
from labkit.grading.submitter import Member, Submitter


def line(name, status="graded", score=1.0):
    return {"key": key(name), "student": name, "lab": "00", "status": status, "score": score, "points": 2.0}


def test_half_a_line_is_cut_off_and_whole_ones_stay(tmp_path):
    Ledger(tmp_path).append(line("a"))
    whole = (tmp_path / "ledger.jsonl").read_bytes()
    for cut in range(1, len(whole)):
        (tmp_path / "ledger.jsonl").write_bytes(whole + whole[:cut])
        assert [one["student"] for one in Ledger(tmp_path).lines] == ["a"]
        assert (tmp_path / "ledger.jsonl").read_bytes() == whole


def test_a_doubt_is_not_final_and_a_mark_is(tmp_path):
    book = Ledger(tmp_path)
    book.append(line("a", "doubt", None))
    assert book.final(key("a")) is None
    book.append(line("a"))
    assert Ledger(tmp_path).final(key("a"))["score"] == 1.0
    assert [one["status"] for one in book.scores()] == ["graded"]


def test_a_result_ahead_of_its_turn_survives_and_is_gone_once_written(tmp_path):
    Ledger(tmp_path).hold(line("b"))
    book = Ledger(tmp_path)
    assert book.ahead(key("b")) == line("b")
    book.append(line("b"))
    assert book.ahead(key("b")) is None


def test_no_name_becomes_a_formula_and_a_doubt_has_no_score(tmp_path):
    write_scores(tmp_path / "scores.csv", [line("=1+1"), line('a,"b"'), line("c", "doubt", None)])
    rows = list(csv.reader((tmp_path / "scores.csv").open()))
    assert [row[0] for row in rows] == ["student", "'=1+1", 'a,"b"', "c"]
    assert [row[2] for row in rows] == ["score", "1", "1", ""]


def handed_in(student, whose):
    return Submission(student, Path("x"), "x", "0", 0, submitter=whose)


def whose(name, platform="folder", kind="login", number=None):
    return Submitter(platform, kind, number or name, name)


@pytest.mark.parametrize(
    ("first", "second", "one_person"),
    [
        (whose("Jos\u00e9"), whose("Jos\u00e9"), True),
        (whose("Jos\u00e9"), whose("Jose"), False),
        (whose("JOSE"), whose("Jose"), False),
        (whose("jose", "canvas", "user", "12"), whose("jos\u00e9", "canvas", "user", "12"), True),
        (whose("jose", "canvas", "user", "12"), whose("jose", "canvas", "user", "13"), False),
        (whose("jose", "moodle", "user or group", "12"), whose("jose", "canvas", "user", "12"), False),
        (whose("anon_x", "canvas", "file", "1"), whose("anon_x", "canvas", "file", "2"), True),
    ],
)
def test_a_mark_is_not_replaced_by_that_of_somebody_else_of_the_same_safe_name(
    tmp_path, first, second, one_person
):
    Ledger(tmp_path).append({**line("Jose"), "submitter": asdict(first)})
    book = Ledger(tmp_path)
    book.expect([handed_in("Kim", whose("Kim"))])
    if one_person:
        book.expect([handed_in("Jose", second)])
        return
    for student in ("Jose", "jose"):
        with pytest.raises(ValueError) as caught:
            book.expect([handed_in(student, second), handed_in("Kim", whose("Kim"))])
        assert f"- Jose: that mark is of {first}; this hand-in is of {second}" in str(caught.value)
        assert "names of 1 of these" in str(caught.value) and "Rename the notebook" in str(caught.value)


def test_of_lines_of_an_older_edition_nobody_knows_whose_they_are(tmp_path):
    Ledger(tmp_path).append(line("Jose"))
    Ledger(tmp_path).expect([handed_in("Jose", whose("Jos\u00e9"))])


def test_the_scores_have_the_name_beside_the_safe_one(tmp_path):
    lines = [{**line("Jose"), "submitter": asdict(whose("=Jos\u00e9"))}, line("Kim")]
    write_scores(tmp_path / "scores.csv", lines)
    rows = list(csv.reader((tmp_path / "scores.csv").open(encoding="utf-8")))
    assert [(row[0], row[-1]) for row in rows] == [("student", "name"), ("Jose", "'=Jos\u00e9"), ("Kim", "")]


def test_a_line_is_written_in_the_order_it_was_made_in(tmp_path):
    Ledger(tmp_path).append({**line("a"), "exercises": {"regions": {}, "dice": {}}})
    assert list(json.loads((tmp_path / "ledger.jsonl").read_text())["exercises"]) == ["regions", "dice"]


def test_grading_writes_down_whose_it_is_and_stops_before_it_replaces_anothers_mark(tmp_path):
    release = SimpleNamespace(id="r", lab="00", package="p", exercises={"dice": {"points": 2.0}})
    about = {"score": 1.0}
    asked = []

    def where(jobs):
        asked.extend(one.student for _, one in jobs)
        yield from (
            (k, one, {"status": "graded", "reason": "", "exercises": {"dice": about}}) for k, one in jobs
        )

    grade._grade_all([handed_in("Jose", whose("Jos\u00e9"))], release, tmp_path, where, False, "")
    before = (tmp_path / "ledger.jsonl").read_bytes()
    assert json.loads(before)["submitter"] == {
        **{"platform": "folder", "kind": "login", "number": "Jos\u00e9", "name": "Jos\u00e9", "members": []}
    }
    with pytest.raises(ValueError, match="nothing was graded"):
        both = [handed_in("Kim", whose("Kim")), handed_in("Jose", whose("Jose"))]
        grade._grade_all(both, release, tmp_path, where, False, "")
    assert asked == ["Jose"] and (tmp_path / "ledger.jsonl").read_bytes() == before


def graded_by(tmp_path, status, again=False):
    """One run over one hand-in whose result has a status; how many hand-ins it looked at."""
    release = SimpleNamespace(id="r", lab="00", package="p", exercises={"dice": {"points": 2.0}})
    asked = []

    def where(jobs):
        asked.extend(jobs)
        yield from ((k, one, {"status": status, "reason": "", "exercises": {}}) for k, one in jobs)

    grade._grade_all([handed_in("Kim", whose("Kim"))], release, tmp_path, where, False, "", again)
    return len(asked)


def test_a_doubt_is_tried_in_three_runs_and_then_only_when_asked(tmp_path):
    assert [graded_by(tmp_path, "doubt") for _ in range(4)] == [1, 1, 1, 0]
    lines = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert [line["reason"] for line in lines[:2]] == ["", ""] and len(lines) == ledger.DOUBTS == 3
    assert lines[2]["reason"].startswith("No verdict in 3 runs") and "--again" in lines[2]["reason"]
    assert graded_by(tmp_path, "graded", again=True) == 1
    assert [graded_by(tmp_path, "graded", again=again) for again in (False, True)] == [0, 0]


def test_of_a_student_who_handed_in_again_on_gradescope_the_newest_counts_and_all_lines_stay(tmp_path):
    def handed(number, who, score, mail):
        members = (Member(who, (mail,)),)
        about = asdict(Submitter("gradescope", "submission", number, who, members))
        return {**line(f"{who}_{number}", score=score), "submitter": about}

    lines = [
        handed("10", "Zoe", 2.0, "z@x.y"),
        handed("9", "Zoe", 1.0, "Z@x.y"),
        handed("8", "Zoe", 0.5, "o@x.y"),
    ]
    for one in lines:
        Ledger(tmp_path).append(one)
    book = Ledger(tmp_path)
    assert [(one["student"], one["score"]) for one in book.scores()] == [("Zoe_10", 2.0), ("Zoe_8", 0.5)]
    assert len((tmp_path / "ledger.jsonl").read_text().splitlines()) == 3
