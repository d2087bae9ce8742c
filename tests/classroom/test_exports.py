"""Marks reach Canvas, Moodle, Gradescope and spreadsheets, and nothing else in their files changes."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest

from labkit.classroom import canvas, gradescope, marks, moodle
from labkit.classroom.exports import export
from labkit.classroom.table import Table

GRADEBOOK = (
    "\ufeffStudent,ID,SIS User ID,SIS Login ID,Section,"
    "Lab 00 (4711),Lab 01 (4712),Assignments Current Score\r\n"
    ",,,,,Manual Posting,,\r\n"
    "    Points Possible,,,,,6.00,10.00,(read only)\r\n"
    '"Bell, Zo\u00eb",12,007,zbell,"A, evening",,3,50.00\r\n'
    '"O""Hara, Ann",13,0013,aohara,A,2.00,,\r\n'
    '"=1+1, Bo",14,14E3,bo,A,EX,,\r\n'
    '"Late, Kim",15,15,kim,A,1,,\r\n'
    '"Absent, Lou",16,16,lou,A,,,\r\n'
    '"Student, Test",99,,abc123,A,,,\r\n'
).encode()
WORKSHEET = (
    '\ufeffIdentifier,"Full name","Email address",Status,Grade,"Maximum Grade","Grade can be changed",'
    '"Last modified (submission)","Last modified (grade)","Feedback comments"\n'
    'Participant 12,"Zo\u00eb Bell",z@example.edu,"Submitted for grading",,6.00,Yes,"Tuesday, 24 May",-,\n'
    'Participant 13,"Ann O\'Hara",a@example.edu,"Submitted for grading",2.00,6.00,No,-,-,"old, kept"\n'
).encode()


def line(student, score=3.0, **more):
    exercise = {"score": score, "points": 6.0, "status": "graded", "reason": "", "flags": [], "marks": []}
    common = {
        "lab": "00_welcome",
        "points": 6.0,
        "status": "graded",
        "reason": "",
        "flags": [],
        "release": "r",
    }
    return {"student": student, "score": score, "exercises": {"dice": exercise}, **common, **more}


LINES = [line("bellzoe_12", 4.25), line("oharaann_13", 2.0), line("bo_14"), line("kim", None, status="doubt")]


def as_canvas_reads(data: bytes) -> dict[str, dict[str, str]]:
    """ID -> {assignment's number: score}, by the rules of Canvas' own importer.

    As documented in "How do I import grades in the Gradebook?": UTF-8, students' columns first, an assignment
    is known by the number in brackets, a row "Points Possible" before the students, read-only columns are
    passed over, empty cells change nothing.
    """
    rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    header = rows[0]
    assert header[0] == "Student" and header[1] == "ID"
    students = [row for row in rows[1:] if row[1]]
    assert any(row[0].strip() == "Points Possible" for row in rows[1:3])
    numbers = {c: re.search(r"\((\d+)\)$", name)[1] for c, name in enumerate(header) if name.endswith(")")}
    return {row[1]: {number: row[c] for c, number in numbers.items() if row[c]} for row in students}


def test_canvas_reads_the_new_scores_and_every_other_byte_is_the_same():
    merged, said = canvas.merge(GRADEBOOK, LINES, "Lab 00")
    before, after = as_canvas_reads(GRADEBOOK), as_canvas_reads(merged)
    assert after == before | {"12": {"4711": "4.25", "4712": "3"}}
    assert merged.decode() == GRADEBOOK.decode().replace('"A, evening",,3', '"A, evening",4.25,3')
    assert any("bellzoe_12" in one and "'' -> '4.25'" in one for one in said)
    assert [one for one in said if "'EX': is excused" in one] and [
        one for one in said if "not graded yet" in one
    ]
    assert len([one for one in said if "no hand-in" in one]) == 2 and not any(
        "oharaann" in one for one in said
    )


@pytest.mark.parametrize("assignment", ["Lab 00", "4711", "Lab 00 (4711)"])
def test_an_assignment_is_known_by_title_number_or_header(assignment):
    assert canvas.merge(GRADEBOOK, LINES, assignment)[0] == canvas.merge(GRADEBOOK, LINES, "Lab 00")[0]


def test_a_gradebook_that_does_not_fit_is_not_touched_and_says_what_does_not():
    lines = [*LINES, line("lou_16"), line("nobody_77"), line("lou")]
    with pytest.raises(ValueError, match=r"2 of 7 students(.|\n)*- nobody_77: not in(.|\n)*- lou: a second"):
        canvas.merge(GRADEBOOK, lines, "Lab 00")
    with pytest.raises(ValueError, match=r"0 assignments are called 'Lab 07'(.|\n)*Lab 01 \(4712\)"):
        canvas.merge(GRADEBOOK, LINES, "Lab 07")
    with pytest.raises(ValueError, match="counts 10.00 points in Canvas, the lab 6"):
        canvas.merge(GRADEBOOK, LINES, "Lab 01")
    with pytest.raises(ValueError, match="0 assignments"):
        canvas.merge(GRADEBOOK, LINES, "Assignments Current Score")
    for other in (b"", b"name,score\nann,1\n", WORKSHEET):
        with pytest.raises(ValueError, match="no gradebook of Canvas"):
            canvas.merge(other, LINES, "Lab 00")
    with pytest.raises(ValueError, match="no CSV file in UTF-8"):
        canvas.merge(GRADEBOOK.decode().encode("utf-16"), LINES, "Lab 00")


def test_moodle_gets_grades_and_comments_where_they_may_change():
    merged, said = moodle.merge(WORKSHEET, [line("Zoe Bell_12", 4.5), line("Ann_13", 6.0)])
    first, second = csv.DictReader(io.StringIO(merged.decode("utf-8-sig")))
    assert (first["Grade"], first["Feedback comments"]) == ("4.5", "dice: 4.5 of 6")
    assert merged.splitlines()[2] == WORKSHEET.splitlines()[2] and "cannot be changed" in said[1]
    assert first["Full name"] == "Zo\u00eb Bell" and merged.splitlines()[0] == WORKSHEET.splitlines()[0]
    with pytest.raises(ValueError, match="not in this worksheet(.|\n)*- Kim_15"):
        moodle.merge(WORKSHEET, [line("Kim_15")])
    with pytest.raises(ValueError, match="no grading worksheet of Moodle"):
        moodle.merge(GRADEBOOK, LINES)
    with pytest.raises(ValueError, match="counts '6.00' points in Moodle, the lab 5"):
        moodle.merge(WORKSHEET, [line("Zoe Bell_12", points=5.0)])


def test_gradescope_results_are_of_the_documented_schema(tmp_path):
    evil = line("x_1", 0.0, reason="\x1b[31m<script>")
    evil["exercises"]["dice"] |= {
        "marks": [
            {"name": "is right on one", "holds": False, "reason": "[a](http://x)\n\x1b[0m"},
            {"name": "is right on two", "holds": False, "reason": "the hidden answer"},
        ]
    }
    written = gradescope.write([*LINES, evil], tmp_path, {"dice": {"is right on one"}})
    assert len(written) == 4
    for path in written:
        found = json.loads(path.read_text())
        assert set(found) <= {
            *("score", "execution_time", "output", "output_format", "test_output_format", "test_name_format"),
            *("visibility", "stdout_visibility", "extra_data", "tests", "leaderboard"),
        }
        assert isinstance(found["score"], float) and found["visibility"] in ("visible", "after_published")
        assert found["output_format"] == "text" and "\x1b" not in found["output"]
        for test in found["tests"]:
            assert isinstance(test["score"], float) and 0 <= test["score"] <= test["max_score"]
            assert test["status"] in ("passed", "failed") and test["output_format"] == "text"
            assert test["visibility"] in ("hidden", "after_due_date", "after_published", "visible")
            assert test["output"].isprintable() and "hidden" not in test["output"]
    assert (
        "is right on one" in json.loads((tmp_path / "x_1" / "results.json").read_text())["tests"][0]["output"]
    )
    with pytest.raises(ValueError, match="no score yet"):
        gradescope.results(LINES[3], {}, {})


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_of_the_table_is_a_formula(start):
    name, reason = f"{start}1+1", f'{start}cmd|"/c calc"!A1'
    data = marks.as_csv([line(name, reason=reason)])
    header, row = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))
    assert row[0] == f"'{name}" and row[-1] == f"'{reason}" and header[2] == "dice"


def test_the_latest_line_counts_and_half_a_line_does_not(tmp_path):
    lines = [line("ann", 1.0), line("ann", 2.0), line("bob", 1.0, lab="02_transfer")]
    text = "".join(json.dumps(one) + "\n" for one in lines)
    (tmp_path / "ledger.jsonl").write_text(text + '{"student": "half')
    assert [one["score"] for one in marks.read(tmp_path, "00")] == [2.0]
    with pytest.raises(ValueError, match="say which, as --lab 00_welcome"):
        marks.read(tmp_path)
    with pytest.raises(ValueError, match="holds no marks of lab 07"):
        marks.read(tmp_path, "07")
    with pytest.raises(ValueError, match="holds no marks"):
        marks.read(tmp_path / "none")


def test_an_export_leaves_the_exported_file_alone(tmp_path):
    (tmp_path / "ledger.jsonl").write_text("".join(json.dumps(one) + "\n" for one in LINES))
    book = tmp_path / "gradebook.csv"
    book.write_bytes(GRADEBOOK)
    path, said = export(tmp_path, "canvas", book, "Lab 00")
    assert path == tmp_path / "canvas.csv" and said and book.read_bytes() == GRADEBOOK
    with pytest.raises(ValueError, match="stays as it was exported"):
        export(tmp_path, "canvas", book, "Lab 00", target=book)
    for wrong in ({"to": "excel"}, {"to": "canvas"}, {"to": "moodle"}, {"to": "canvas", "into": book}):
        with pytest.raises(ValueError):
            export(tmp_path, **wrong)
    assert export(tmp_path, "csv")[0].read_bytes() == marks.as_csv(marks.read(tmp_path))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"a",
        b"a,b\r\n1,2",
        b'"a\n""b",c\r\n,,\r\n',
        b'a;"x,y";c\n1;2;3\n',
        b'"open,a\nb',
        b"\xff,\xe9\n",
        b'a"b,"c"d,\n',
    ]
    + [GRADEBOOK, WORKSHEET],
)
def test_a_table_that_is_not_changed_is_the_same_bytes(data):
    assert Table(data).data() == data


def test_a_table_reads_cells_as_the_csv_module_does():
    for data in (GRADEBOOK, WORKSHEET):
        table, rows = Table(data), list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))
        assert [[table.cell(r, c) for c in range(len(row))] for r, row in enumerate(rows)] == [
            [cell.strip() for cell in row] for row in rows
        ]
