"""Whose row a mark goes to: the right one, all of a team's, or a refusal by name; never another's."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict

import pytest
from test_downloads import NOTEBOOK, zipped
from test_exports import line

from labkit.classroom import canvas, moodle
from labkit.classroom.downloads import collect
from labkit.grading import intake
from labkit.grading.submitter import Member, Submitter

BOOK = (
    "Student,ID,SIS User ID,SIS Login ID,Section,Lab 00 (4711)\r\n    Points Possible,,,,,6.00\r\n"
    '"Example, Ann",7001,7,ann@example.edu,A,\r\n'
    '"Absent, Lou",16,8,lou@example.edu,A,\r\n'
    '"Bell, Zo\u00eb",12,16,zbell,A,\r\n'
    '"Lee, Wei",21,s21,wlee,A,\r\n'
    '"Lee, Wei",22,s22,wlee2,A,\r\n'
    '"\u674e \u660e",23,s23,liming,A,\r\n'
    '"Garc\u00eda, Jos\u00e9",31,s31,jg,A,\r\n'
    '"Garcia, Jose",32,s32,jg2,A,\r\n'
    '"\u0930\u093e\u092e",33,s33,ram,A,\r\n'
    '"Fifteen, Stu",99,s99,stu_15,A,\r\n'
    '"Other, Lou",15,s15,other,A,\r\n'
).encode()
SHEET = (
    b'Identifier,"Full name","Email address",Group,Grade,"Maximum Grade","Feedback comments"\n'
    b'Participant 77,"Somebody Else",else@example.edu,"Red team",,6.00,\n'
    b'Participant 80,"Member One",one@example.edu,"Blue team, Extra",,6.00,\n'
    b'Participant 81,"Member Two",two@example.edu,"Blue team",,6.00,\n'
    b'Participant 82,"Red team",red@example.edu,,,6.00,\n'
    b'Participant 83,"Green team",green@example.edu,"Yellow team",,6.00,\n'
    b'Participant 84,"Ann O\'Hara",ann@example.edu,,,6.00,\n'
)
BLIND = b'Identifier,Grade,"Maximum Grade"\nParticipant 12,,6.00\nParticipant 13,,6.00\n'


def by(platform, kind, number, name, *members, student=None):
    """A line of the ledger that remembers whose it is."""
    whose = Submitter(platform, kind, number, name, members)
    return line(student or f"{name}_{number}", 5.0, submitter=asdict(whose))


def marked(merged: bytes, column: int) -> list[str]:
    """The first cell of every row that has our mark."""
    rows = list(csv.reader(io.StringIO(merged.decode(), newline="")))
    return [row[0] for row in rows if row[column] == "5"]


def user(number, name):
    return by("canvas", "user", number, name)


def gradescope(name, *logins, number="16"):
    return by("gradescope", "submission", number, name, Member(name, logins))


def folder(name):
    return by("folder", "login", name, name, student=name)


@pytest.mark.parametrize(
    ("hand_in", "gets_it"),
    [
        (user("12", "bellzo\u00eb"), "Bell, Zo\u00eb"),
        (user("22", "leewei"), "Lee, Wei"),
        (user("23", "\u674e\u660e"), "\u674e \u660e"),
        (user("31", "garc\u00edajos\u00e9"), "Garc\u00eda, Jos\u00e9"),
        (gradescope("Ann Example"), "Example, Ann"),
        (gradescope("Somebody", "lou@example.edu"), "Absent, Lou"),
        (gradescope("Nick Name", "LOU@example.edu", "16"), "Absent, Lou"),
        (gradescope("Zoe Bell", "16"), "Bell, Zo\u00eb"),
        (gradescope("Ann Example", "16"), "Example, Ann"),  # 16 is another's student number here
        (by("moodle", "user or group", "16", "Ann Example"), "Example, Ann"),
        (folder("stu_15"), "Fifteen, Stu"),
        (folder("wlee2"), "Lee, Wei"),
        (folder("Zo\u00eb Bell"), "Bell, Zo\u00eb"),
        (folder("Zoe\u0308 Bell_16"), "Bell, Zo\u00eb"),
        (line("Zoe Bell", 5.0), "Bell, Zo\u00eb"),
        (line("stu_15", 5.0), "Fifteen, Stu"),  # of an older edition, which remembered the safe name alone
        (line("leewei_21", 5.0), "Lee, Wei"),
        (line("Ann Example_16", 5.0), "Example, Ann"),
    ],
)
def test_a_mark_reaches_its_row_in_canvas_and_no_other(hand_in, gets_it):
    merged, said = canvas.merge(BOOK, [hand_in], "Lab 00")
    assert marked(merged, 5) == [gets_it]
    (sentence,) = [one for one in said if "->" in one]
    assert hand_in["student"] in sentence and f"is {gets_it}: '' -> '5'" in sentence


@pytest.mark.parametrize(("number", "row"), [("21", 5), ("22", 6)])
def test_of_two_of_one_name_the_number_says_which(number, row):
    merged, _ = canvas.merge(BOOK, [user(number, "leewei")], "Lab 00")
    changed = [
        n for n, (a, b) in enumerate(zip(BOOK.splitlines(), merged.splitlines(), strict=True)) if a != b
    ]
    assert changed == [row]


@pytest.mark.parametrize(
    ("hand_in", "said"),
    [
        (user("16", "redteam"), "number 16 is 'Absent, Lou' here, another name"),
        (user("404", "bellzoe"), "not in it"),
        (by("canvas", "file", "16", "anon_Lou", student="anon_Lou"), "end anonymous grading"),
        (by("canvas", "file", "16", "Lou Absent", student="anon"), "end anonymous grading"),
        (gradescope("Lou Nobody", "16"), "not in it: 'Lou Nobody'"),
        (gradescope("Nobody", "8"), "not in it: 'Nobody'"),
        (gradescope("Wei Lee"), "there more than once: 'Lee, Wei' in row 6, 'Lee, Wei' in row 7"),
        (gradescope("X", "lou@example.edu", "zbell"), "there more than once"),
        (by("moodle", "user or group", "16", "Blue team"), "not in it: 'Blue team'"),
        (folder("Jose Garcia"), "there more than once"),
        (folder("jos\u00e9 garc\u00eda"), "there more than once"),
        (folder("Zoe Bell"), "'Zoe Bell' is almost 'Bell, Zo\u00eb', and may be another"),
        (gradescope("Lou \u00c1bsent"), "'Lou \u00c1bsent' is almost 'Absent, Lou'"),
        (folder("\u0930\u0940\u092e"), "not in it"),  # two vowel signs of one consonant
        (folder("16_12"), "not in it"),
        (folder("Lou"), "not in it"),
        (folder("\U0001f642"), "not in it"),
        (line("Blue team_16"), "not in it"),
        (line("leewei_16"), "there more than once"),
        (line("_16"), "not in it"),
    ],
)
def test_what_is_not_beyond_doubt_is_refused_by_name_and_nothing_is_written(hand_in, said):
    with pytest.raises(ValueError) as caught:
        canvas.merge(BOOK, [user("12", "bellzoe"), hand_in], "Lab 00")
    head, *rows = str(caught.value).splitlines()
    assert head.startswith("1 of 2 students are not in this gradebook") and "nothing was written" in head
    (row,) = rows
    assert row.startswith(f"- {hand_in['student']}") and said in row


def test_every_member_of_a_gradescope_team_gets_the_mark_or_nobody_does():
    ann, zoe = Member("Ann Example", ("ann@example.edu", "1")), Member("Z. Bell", ("zbell",))
    team = by("gradescope", "submission", "16", "Ann and Z", ann, zoe)
    merged, said = canvas.merge(BOOK, [team], "Lab 00")
    assert marked(merged, 5) == ["Example, Ann", "Bell, Zo\u00eb"]
    assert sum("Ann and Z (Gradescope, submission 16)" in one for one in said) == 2
    for third, why in (
        (Member("Kim Nobody", ("kim@example.edu",)), "not in it: 'Kim Nobody'"),
        (Member(""), "not in it"),
        (Member("Example, Ann"), "of its 3 members two are one student"),
    ):
        with pytest.raises(ValueError, match=why):
            canvas.merge(BOOK, [by("gradescope", "submission", "16", "T", ann, zoe, third)], "Lab 00")


def test_two_hand_ins_of_one_student_are_never_silently_one():
    team = by("gradescope", "submission", "1", "T", Member("Ann Example"), Member("Zo\u00eb Bell"))
    with pytest.raises(ValueError, match="a second hand-in of Bell, Zo\u00eb, beside bellzoe_12"):
        canvas.merge(BOOK, [user("12", "bellzoe"), team], "Lab 00")
    twins = [by("moodle", "user or group", "84", "Ann OHara"), line("Ann OHara_84")]
    with pytest.raises(ValueError, match="a second hand-in of Ann O'Hara"):
        moodle.merge(SHEET, [twins[0], {**twins[1], "student": "Ann_84"}])
    with pytest.raises(ValueError, match="a second hand-in of Participant, beside Participant_12"):
        moodle.merge(BLIND, [line("Participant_12"), line("participant_12")])


def test_two_rows_of_one_student_are_refused_on_both_platforms():
    again = BOOK + b'"Bell, Zoe",12,16,zbell,B,\r\n'
    with pytest.raises(
        ValueError, match="there more than once: 'Bell, Zo\u00eb' in row 5, 'Bell, Zoe' in row 14"
    ):
        canvas.merge(again, [user("12", "bellzoe")], "Lab 00")
    for hand_in in (
        by("moodle", "user or group", "84", "Ann OHara"),
        by("moodle", "user or group", "500", "Blue team"),
    ):
        rows = SHEET.splitlines(keepends=True)
        with pytest.raises(ValueError, match="there more than once"):
            moodle.merge(SHEET + rows[3] + rows[6], [hand_in])


def test_two_people_whose_names_differ_in_case_are_refused():
    other = BOOK + b'"BELL, ZOE",55,s55,zbell2,A,\r\n'
    with pytest.raises(ValueError, match="there more than once"):
        canvas.merge(other, [folder("Zoe Bell")], "Lab 00")


def test_a_moodle_team_is_known_by_its_groups_name_and_all_members_get_the_mark():
    team = by("moodle", "user or group", "77", "Blue team")  # 77 is the group's; here it is somebody else's
    merged, said = moodle.merge(SHEET, [team])
    assert marked(merged, 4) == ["Participant 80", "Participant 81"]
    assert [one for one in said if "is Member One: '' -> '5'" in one and "Blue team" in one]
    assert "Somebody Else: no hand-in, stays as it is" in said


@pytest.mark.parametrize(
    ("hand_in", "said"),
    [
        (by("moodle", "user or group", "77", "Pink team"), "number 77 is 'Somebody Else' here"),
        (by("moodle", "user or group", "82", "Red team"), "a group is called 'Red team', and so is Red team"),
        (by("moodle", "user or group", "9", "Pink team"), "not in it"),
        (by("canvas", "user", "77", "bellzoe"), "not in it: 'bellzoe'"),
        (by("gradescope", "submission", "77", "A", Member("A", ("77",))), "not in it: 'A'"),
        (line("Blue team_77"), "not in it"),
    ],
)
def test_a_number_of_another_kind_is_nobodys_in_moodle(hand_in, said):
    with pytest.raises(ValueError, match=f"not in this worksheet(.|\n)*- {hand_in['student']}.*: {said}"):
        moodle.merge(SHEET, [hand_in])


@pytest.mark.parametrize(
    ("hand_in", "gets_it"),
    [
        (by("moodle", "user or group", "84", "Ann OHara"), "Participant 84"),
        (by("moodle", "user or group", "84", "Group B-Ann OHara"), "Participant 84"),
        (by("moodle", "user or group", "83", "Green team"), "Participant 83"),
        (by("canvas", "user", "77", "oharaann"), "Participant 84"),
        (by("gradescope", "submission", "77", "A", Member("A", ("two@example.edu",))), "Participant 81"),
        (folder("one@example.edu"), "Participant 80"),
    ],
)
def test_a_mark_reaches_its_row_in_moodle_and_no_other(hand_in, gets_it):
    assert marked(moodle.merge(SHEET, [hand_in])[0], 4) == [gets_it]


def test_in_blind_marking_the_participants_number_is_enough_and_a_groups_is_not():
    merged, _ = moodle.merge(BLIND, [by("moodle", "user or group", "13", "Participant")])
    assert marked(merged, 1) == ["Participant 13"]
    with pytest.raises(ValueError, match="number 13 is 'Participant' here, another name"):
        moodle.merge(BLIND, [by("moodle", "user or group", "13", "Blue team")])


METADATA = """---
submission_16:
  :submitters:
  - :name: Ann Example
    :sid: '7'
    :email: ann@example.edu
  - :name: "=Bo, \u674e; 'x' \\"y\\""
    :sid:
    :email: bo@example.edu
  - nobody
  :created_at: 2026-01-01 10:00:00
""".encode()


def test_whose_a_hand_in_is_goes_from_the_download_through_the_list_to_the_grader(tmp_path):
    downloads = {
        "canvas": {"jos\u00e9_LATE_12_345_lab.ipynb": NOTEBOOK},
        "anonymous": {"anon_aB3xY_345_00_lab.ipynb": NOTEBOOK, "LATE_anon_Kq9Zz_346_00_lab.ipynb": NOTEBOOK},
        "moodle": {"Blue team_77_assignsubmission_file_/lab.ipynb": NOTEBOOK},
        "gradescope": {"x/submission_metadata.yml": METADATA, "x/submission_16/lab.ipynb": NOTEBOOK},
        "folder": {"'=Jos\u00e9_15.ipynb": NOTEBOOK, "=b.ipynb": NOTEBOOK + b" "},
    }
    found = {}
    for name, files in downloads.items():
        collect(zipped(tmp_path / f"{name}.zip", files), tmp_path / name)
        found[name] = {one.student: one.submitter for one in intake.collect(tmp_path / name)}
    bo = Member("=Bo, \u674e; 'x' \"y\"", ("bo@example.edu",))
    team = (Member("Ann Example", ("ann@example.edu", "7")), bo, Member(""))
    assert found["canvas"] == {"jose_12": Submitter("canvas", "user", "12", "jos\u00e9")}
    assert found["anonymous"] == {
        "anon_aB3xY": Submitter("canvas", "file", "345", "anon_aB3xY"),
        "anon_Kq9Zz": Submitter("canvas", "file", "346", "anon_Kq9Zz"),
    }
    assert found["moodle"] == {"Blue team_77": Submitter("moodle", "user or group", "77", "Blue team")}
    (whose,) = found["gradescope"].values()
    assert whose == Submitter("gradescope", "submission", "16", f"Ann Example and {bo.name}", team)
    assert found["folder"]["__Jose_15"].name == "'=Jos\u00e9_15" and found["folder"]["_b"].name == "=b"


def test_a_login_comes_before_a_number_and_capitals_do_not_matter_in_it():
    book = BOOK.replace(b"stu_15", b"Lou_15")  # and 15 is the number of "Other, Lou"
    assert marked(canvas.merge(book, [line("lou_15", 5.0)], "Lab 00")[0], 5) == ["Fifteen, Stu"]
