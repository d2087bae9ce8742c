"""Marks set into the grading worksheet that a Moodle assignment hands out: two columns change.

Columns as in Moodle's mod/assign/feedback/offline: Identifier ("Participant 1234567"), Grade, Maximum Grade,
Grade can be changed, Feedback comments.
"""

from __future__ import annotations

import html

from labkit.classroom import marks
from labkit.classroom.table import Table

NEEDED = ("identifier", "grade", "maximum grade")


def merge(data: bytes, lines: list[dict]) -> tuple[bytes, list[str]]:
    """The worksheet with the scores of `lines` and a short comment; and a sentence for every change or none.

    A student is found by the number in the name of the folder that Moodle made for the hand-in. ValueError
    when the header is not that of a worksheet, the points differ, or a student is not in it.
    """
    table = Table(data)
    header = [name.lower() for name in table.header()]
    if missing := [name for name in NEEDED if name not in header]:
        raise ValueError(
            f"this is no grading worksheet of Moodle: it has no column {' and no '.join(missing)}. In the "
            "assignment, choose `Download grading worksheet`, in English, and give that file unchanged."
        )
    identifier, grade, most = (header.index(name) for name in NEEDED)
    may = header.index("grade can be changed") if "grade can be changed" in header else None
    comment = header.index("feedback comments") if "feedback comments" in header else None
    rows = {table.cell(row, identifier).rpartition(" ")[2]: row for row in range(1, len(table.rows))}
    if wrong := [line["student"] for line in lines if marks.number(line) not in rows]:
        raise ValueError(
            f"{len(wrong)} of {len(lines)} students are not in this worksheet; nothing was written.\n"
            + "\n".join(f"- {student}" for student in wrong)
        )
    said = []
    for line in lines:
        row = rows[marks.number(line)]
        old = table.cell(row, grade)
        if line["score"] is None:
            said.append(f"{line['student']}: stays {old!r}: not graded yet")
            continue
        if may is not None and table.cell(row, may).lower() == "no":
            said.append(f"{line['student']}: stays {old!r}: Moodle says that it cannot be changed")
            continue
        if float(table.cell(row, most).replace(",", ".") or "nan") != line["points"]:
            raise ValueError(
                f"the assignment counts {table.cell(row, most)!r} points in Moodle, the lab "
                f"{marks.points(line['points'])}: change the maximum grade in Moodle, then download again."
            )
        new = marks.points(line["score"])
        said.append(f"{line['student']}: {old!r} -> {new!r}")
        table.put(row, grade, new)
        if comment is not None:
            table.put(row, comment, html.escape(summary(line)))
    return table.data(), said


def summary(line: dict) -> str:
    """Points per exercise in one line, without a word of the student's own."""
    if not line["exercises"]:
        return line["reason"]
    return "; ".join(
        f"{name}: {marks.points(about['score'])} of {marks.points(about['points'])}"
        for name, about in line["exercises"].items()
    )
