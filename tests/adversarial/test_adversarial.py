"""Hostile, broken and honest submissions, each with the only right outcome; one batch grades them all."""

from __future__ import annotations

import json
import os

import psutil
import pytest
from against_nbval import TRICKS, table
from corpus import CASES, LIMITS, hand_in
from documents import DOCUMENTS, HONEST

from labkit.grading.grade import grade
from labkit.paths import checkout_root

SHADOWS = ("conftest.py", "pytest.ini", "sitecustomize.py", "numpy.py", "json.py", "labkit/__init__.py")


@pytest.fixture(scope="module")
def batch(lab_release, edition, tmp_path_factory):
    """All of them graded together: student -> line of the ledger."""
    folder, out = tmp_path_factory.mktemp("hand-ins"), tmp_path_factory.mktemp("graded")
    for case in CASES:
        (folder / f"{case.name}.ipynb").write_text(hand_in(edition, case.source, case.check))
    honest = json.loads(hand_in(edition, HONEST))
    for document in DOCUMENTS:
        (folder / f"{document.name}.ipynb").write_bytes(document.write(honest))
    beside = folder / "38_shadowing"  # what a student may put beside a notebook, in a folder of the class
    (beside / "labkit").mkdir(parents=True)
    (beside / "lab.ipynb").write_text(hand_in(edition, HONEST))
    for name in SHADOWS:
        (beside / name).write_text("import os\nos._exit(0)\n")
    grade(folder, lab_release, out, workers=2, limits=LIMITS, progress=False)
    lines = [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]
    return {line["student"]: line for line in lines}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_answer_gets_what_it_deserves(batch, case):
    found = batch[case.name]["exercises"]["dice"]
    said = [found["reason"], *found["flags"], *(mark["reason"] for mark in found["marks"])]
    assert found["score"] == case.points, said
    assert case.status in ("any", found["status"]), said
    assert any(case.reason in one for one in said), said


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_a_file_gets_what_it_deserves(batch, document):
    found = batch[document.name]
    status, points, reason = document.expect
    dice = found["exercises"].get("dice", {"score": 0, "reason": "", "flags": [], "marks": []})
    said = [found["reason"], dice["reason"], *dice["flags"], *(mark["reason"] for mark in dice["marks"])]
    assert (found["status"], dice["score"]) == (status, points), said
    assert any(reason in one for one in said), said


def test_modules_beside_a_notebook_are_not_imported(batch):
    found = batch["38_shadowing"]
    assert (found["status"], found["exercises"]["dice"]["score"]) == ("graded", 3.0)


@pytest.mark.slow  # nbval alone takes minutes for them; what ours says of each is tested above
def test_the_documents_table_of_tricks_is_what_both_graders_say(batch):
    pytest.importorskip("nbval")
    expected = table(batch)
    assert expected.count("**passes**") + expected.count("expected to fail | 0") == len(TRICKS) == 9
    assert expected.count("| 0 points: ") == len(TRICKS)
    assert expected in (checkout_root() / "docs" / "grading.md").read_text()


def test_nothing_of_it_is_left_behind(batch):
    me = psutil.Process()
    assert not [p for p in me.children(recursive=True) if p.name() in ("bwrap", "sleep")]
    assert not [p for p in psutil.process_iter(["cmdline"]) if "98765" in (p.info["cmdline"] or [])]
    assert not os.path.exists("/tmp/labkit-was-here")


def test_no_secret_and_no_raw_sign_of_a_student_reaches_the_ledger(batch):
    text = json.dumps(batch["47_injection"], ensure_ascii=False)
    assert "HYPERLINK" in text
    assert not any(sign in text for sign in ("\x1b", "\u202e", "\\n"))
