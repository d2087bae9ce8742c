"""Marks reach Canvas, Moodle, Gradescope and spreadsheets, and nothing else in their files changes."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest

from labkit.classroom import canvas, class_page, feedback, gradescope, marks, moodle
from labkit.classroom.exports import export
from labkit.classroom.table import Table, number
from labkit.grading.ledger import Ledger

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
    lines = [line("ann", 1.0), line("ann", 2.0), line("bob", 1.0, lab="01_transfer")]
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


GERMAN = (
    "\ufeffStudent;ID;SIS Login ID;Section;Lab 1, 2, 3, 4, 5 (4711);Lab 02 (4712);Current Score\r\n"
    ";;;;Manual Posting;;\r\n"
    "    Points Possible;;;;6,00;1.000,00;(read only)\r\n"
    "One, Student;12;one;A, B;2,50;1.234,5;1,25\r\n"
    '"Two; Student";13;two;A;;;\r\n'
    "Three, Student;14;three;A;6,00;;"  # no end of line
).encode()


def test_a_gradebook_with_decimal_commas_changes_in_one_cell_and_no_other_byte():
    lines = [line("studentone_12", 2.5), line("two", 4.25), line("three", 6.0)]
    assert Table(GERMAN).data() == GERMAN
    merged, said = canvas.merge(GERMAN, [lines[0], lines[2]], "4711")
    assert merged == GERMAN and not [one for one in said if "->" in one]
    merged, said = canvas.merge(GERMAN, lines, "Lab 1, 2, 3, 4, 5")
    assert merged == GERMAN.replace(b"13;two;A;;", b"13;two;A;4,25;")
    assert any("two, is Two; Student: '' -> '4,25'" in one for one in said)
    thousand = [line("two", 999.5, points=1000.0)]
    assert b"13;two;A;;999,5;" in canvas.merge(GERMAN, thousand, "Lab 02")[0]
    with pytest.raises(ValueError, match="counts 6,00 points in Canvas, the lab 5"):
        canvas.merge(GERMAN, [line("two", points=5.0)], "4711")


def test_a_decimal_comma_between_commas_is_quoted():
    book = b'Student,ID,Section,Lab 00 (4711)\n    Points Possible,,,"6,00"\nTwo,13,A,\nOne,12,A,"2,50"\n'
    merged, _ = canvas.merge(book, [line("two_13", 4.25), line("one_12", 2.5)], "4711")
    assert merged == book.replace(b"Two,13,A,", b'Two,13,A,"4,25"')


@pytest.mark.parametrize(
    ("text", "comma", "value"),
    [
        *[("6", False, 6), ("6.00", False, 6), ("6,00", False, 6), ("2,5", True, 2.5), ("-1.5", False, -1.5)],
        *[("1,234.50", False, 1234.5), ("1.234,50", False, 1234.5), ("1\u202f234,50", True, 1234.5)],
        *[("1,234", False, 1234), ("1.234", False, 1.23), ("1,234", True, 1.23), ("1.234", True, 1234)],
        *[("", False, None), ("EX", False, None), ("nan", False, None), ("1e3", False, None)],
        *[("1,2,3", False, None), ("\u0663", False, None), (".5", False, 0.5), ("6.", False, 6)],
    ],
)
def test_a_number_is_read_as_its_platform_writes_it(text, comma, value):
    assert number(text, comma) == value


def test_the_delimiter_is_the_sign_after_the_first_cell():
    for data, first in (
        (b"a;b,c,d,e\n", "b,c,d,e"),
        (b'"a;,""b"\tb;c;d\n', "b;c;d"),
        (b"a,b;c;d\n", "b;c;d"),
    ):
        assert Table(data).cell(0, 1) == first


def test_moodle_keeps_its_maximum_in_the_locale_and_a_doubt_changes_nothing():
    sheet = WORKSHEET.replace(b"6.00", b'"6,00"')
    merged, said = moodle.merge(sheet, [line("Zoe Bell_12", None, status="doubt")])
    assert merged == sheet and "not graded yet" in said[0]
    assert b',4.5,"6,00",' in moodle.merge(sheet, [line("Zoe Bell_12", 4.5)])[0]
    with pytest.raises(ValueError, match="counts 'six' points in Moodle, the lab 6"):
        moodle.merge(WORKSHEET.replace(b"6.00", b"six"), [line("Zoe Bell_12")])


def test_the_table_and_gradescopes_files_have_the_name_beside_the_safe_one(tmp_path):
    whose = {"platform": "canvas", "kind": "user", "number": "12", "name": "=Zo\u00eb", "members": []}
    lines = [line("Zoe_12", submitter=whose), line("Bo_7"), line("Kim", None)]
    rows = list(csv.reader(io.StringIO(marks.as_csv(lines).decode("utf-8-sig"), newline="")))
    assert rows[0][-3:] == ["name", "number", "remarks"]
    assert [row[-3:-1] for row in rows[1:]] == [["'=Zo\u00eb", "12"], ["", ""], ["", ""]]
    (tmp_path / "ledger.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    said = export(tmp_path, "gradescope")[1]
    assert [
        one for one in said if one.startswith("Zoe_12, handed in as =Zo\u00eb (Canvas, user 12): was not")
    ]
    assert "Bo_7: Bo_7/results.json" in said and "Kim: not graded yet" in said


def test_exercises_stay_in_the_labs_order(tmp_path):
    about = line("ann")["exercises"]["dice"]
    lines = [line("abe", exercises={}), line("ann", exercises={"regions": about, "dice": about})]
    book = Ledger(tmp_path)
    for one in lines:
        book.append({**one, "key": one["student"]})
    read = marks.read(tmp_path)
    assert marks.exercises(read) == ["regions", "dice"]
    assert marks.as_csv(read).decode("utf-8-sig").startswith("student,lab,regions,dice,score")
    assert moodle.summary(read[1]).startswith("regions: 3 of 6; dice")
    assert list(json.loads(gradescope.write(read, tmp_path, {})[1].read_text())["tests"][0])[0] == "name"
    for content in (feedback.student_page(read[1], {}, {}), class_page.class_page(read, {})):
        assert 0 < content.index("<h2>regions") < content.index("<h2>dice")


def test_a_name_in_two_columns_is_one_name():
    book = b"LastName,FirstName,ID,Section,Lab 00 (4711)\n    Points Possible,,,,6.00\n"
    book += b"Lee,Wei,11,A,\nLee,Ann,12,A,\n"
    for student in ("Wei Lee", "leewei", "leewei_11"):
        merged, said = canvas.merge(book, [line(student, 4.5)], "4711")
        assert merged == book.replace(b"Wei,11,A,", b"Wei,11,A,4.5") and "is Lee, Wei: '' -> '4.5'" in said[0]


def test_one_comma_among_decimal_points_does_not_turn_them():
    book = b"Student;ID;Section;Notes;Lab 00 (4711)\n    Points Possible;;;;6.00\nTwo;13;A;1,5;\n"
    assert canvas.merge(book, [line("two_13", 4.25)], "4711")[0] == book.replace(b"1,5;", b"1,5;4.25")


def test_who_handed_in_again_on_gradescope_has_one_mark_and_is_told_which_counts(tmp_path):
    def line(number, score):
        who = {"platform": "gradescope", "kind": "submission", "number": number, "name": "Zoe"}
        who["members"] = [{"name": "Zoe", "logins": ["z@x.y"]}]
        about = {"key": number, "student": f"Zoe_{number}", "submitter": who, "lab": "00_welcome"}
        return {**about, "status": "graded", "score": score, "flags": [], "exercises": {}}

    text = "".join(json.dumps(line(*one)) + "\n" for one in (("10", 2.0), ("9", 1.0)))
    (tmp_path / "ledger.jsonl").write_text(text)
    (only,) = marks.read(tmp_path)
    assert (only["student"], only["score"]) == ("Zoe_10", 2.0)
    assert only["flags"] == ["handed in 2 times; submission 10 counts, as the newest"]
    assert (tmp_path / "ledger.jsonl").read_text() == text


@pytest.mark.parametrize(("runs", "do"), [(1, "run this again"), (3, "add --again to try once more")])
def test_a_hand_in_without_a_verdict_is_named_with_what_to_do(tmp_path, runs, do):
    doubt = {"key": "k", "student": "kim", "score": None, "submitter": None}
    lines = [*[doubt] * runs, {**doubt, "key": "l", "student": "lee", "score": 1.0}]
    (tmp_path / "ledger.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    said = f"kim: not graded, the fault is not theirs ({runs} of 3 runs); {do}"
    assert marks.without_score(tmp_path) == [said]
