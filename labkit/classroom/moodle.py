"""Marks set into the grading worksheet that a Moodle assignment hands out: two columns change.

Columns as in Moodle's mod/assign/feedback/offline: Identifier ("Participant 1234567"), Full name and perhaps
others that say who it is, Group where teams hand in, Grade, Maximum Grade, Grade can be changed, Feedback
comments.
"""

from __future__ import annotations

import html

from labkit.classroom import marks, matching
from labkit.classroom.matching import Row
from labkit.classroom.table import Table, number

NEEDED = ("identifier", "grade", "maximum grade")
KEYS = ("email address", "username", "id number")


def merge(data: bytes, lines: list[dict]) -> tuple[bytes, list[str]]:
    """The worksheet with the scores of `lines` and a short comment; and a sentence for every change or none.

    A student is found by the participant's number in the name of the folder that Moodle made for the hand-in,
    if the name fits too; a team by its group's name, and all members get the mark; others by login, e-mail or
    name. ValueError when the header is not that of a worksheet, the points differ, or a student is not known
    beyond doubt.
    """
    table = Table(data)
    header = [name.lower() for name in table.header()]
    if missing := [name for name in NEEDED if name not in header]:
        raise ValueError(
            f"this is no grading worksheet of Moodle: it has no column {' and no '.join(missing)}. In the "
            "assignment, choose `Download grading worksheet`, in English, and give that file unchanged."
        )
    _, grade, most = (header.index(name) for name in NEEDED)
    may = header.index("grade can be changed") if "grade can be changed" in header else None
    comment = header.index("feedback comments") if "feedback comments" in header else None
    rows = _rows(table, header)
    found = matching.rows_of(lines, rows, "moodle", "worksheet")
    said = []
    for line, row in [(one, row) for one in lines for row in found[one["student"]]]:
        old = table.cell(row.place, grade)
        who = f"{matching.called(line)}, is {row.name}"
        if line["score"] is None:
            said.append(f"{who}: stays {old!r}: not graded yet")
            continue
        if may is not None and table.cell(row.place, may).lower() == "no":
            said.append(f"{who}: stays {old!r}: Moodle says that it cannot be changed")
            continue
        if number(table.cell(row.place, most)) != round(line["points"], 2):
            raise ValueError(
                f"the assignment counts {table.cell(row.place, most)!r} points in Moodle, the lab "
                f"{marks.points(line['points'])}: change the maximum grade in Moodle, then download again."
            )
        new = marks.points(line["score"])
        said.append(f"{who}: {old!r} -> {new!r}")
        table.put(row.place, grade, new)
        if comment is not None:
            table.put(row.place, comment, html.escape(summary(line)))
    taken = {row.place for theirs in found.values() for row in theirs}
    said += [f"{row.name}: no hand-in, stays as it is" for row in rows if row.place not in taken]
    return table.data(), said


def _rows(table: Table, header: list[str]) -> list[Row]:
    """The participants. In blind marking they are called as their number is: "Participant"."""
    identifier = header.index("identifier")
    names = [header.index(name) for name in ("full name",) if name in header]
    logins = [column for column, name in enumerate(header) if name in KEYS]
    group = header.index("group") if "group" in header else None
    found = []
    for place in range(1, len(table.rows)):
        word, _, count = table.cell(place, identifier).rpartition(" ")
        known = [table.cell(place, column) for column in names]
        theirs = tuple(filter(None, (table.cell(place, column) for column in logins)))
        teams = () if group is None else (table.cell(place, group), *table.cell(place, group).split(","))
        found.append(Row(place, count, (*filter(None, known), word), theirs, tuple(filter(None, teams))))
    return found


def summary(line: dict) -> str:
    """Points per exercise in one line, without a word of the student's own."""
    if not line["exercises"]:
        return line["reason"]
    return "; ".join(
        f"{name}: {marks.points(about['score'])} of {marks.points(about['points'])}"
        for name, about in line["exercises"].items()
    )
