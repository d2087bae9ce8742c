"""The ledger: whole lines, in order, whatever happens."""

from __future__ import annotations

import csv

from labkit.grading.ledger import Ledger, key, write_scores


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
