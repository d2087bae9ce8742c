"""Marks set into the gradebook that Canvas exported: one column changes, every other byte stays.

The file's layout is that of canvas-lms, lib/gradebook_importer.rb: students' columns first (Student or
LastName, ID, SIS User ID, SIS Login ID, ..., Section), then assignments as "Title (12345)"; before the
students, a row "Points Possible" and perhaps one that says how grades are posted.
"""

from __future__ import annotations

from labkit.classroom import marks, matching
from labkit.classroom.matching import Row
from labkit.classroom.table import DECIMAL_COMMA, DECIMAL_POINT, Table, number

KEYS = ("SIS Login ID", "SIS User ID", "Integration ID")
KEPT = {"EX": "is excused", "N/A": "has no such assignment"}
READ_ONLY = "(read only)"


def merge(data: bytes, lines: list[dict], assignment: str) -> tuple[bytes, list[str]]:
    """The gradebook with the scores of `lines`, and a sentence for every cell that changed or did not.

    `assignment` is a column's header, its title, or its number. A student is found by the user's number that
    Canvas' downloads carry (`ID`), else by login or e-mail, else by name. Numbers are read and written with
    the gradebook's own decimal sign. ValueError, with what does not fit line by line, when the header is not
    Canvas', the column is not there or counts other points, or a student is not known beyond doubt.
    """
    table = Table(data)
    header = table.header()
    if "ID" not in header[:4] or not ({"Student", "LastName"} & set(header[:1])) or "Section" not in header:
        raise ValueError(
            "this is no gradebook of Canvas: expected columns Student, ID, ..., Section, but the first line "
            f"is {', '.join(header[:6])[:200]!r}. Export it from Canvas' Gradebook, and give it unchanged."
        )
    first = next(
        row for row in range(1, len(table.rows) + 1) if row == len(table.rows) or _known(table, header, row)
    )
    column = _column(table, header, first, assignment)
    comma = _decimal_comma(table, header)
    _same_points(table, first, column, lines, comma)
    rows = _rows(table, header, first)
    found = matching.rows_of(lines, rows, "canvas", "gradebook")
    said = []
    for line in lines:
        for row in found[line["student"]]:
            old = table.cell(row.place, column)
            who = f"{matching.called(line)}, is {row.name}"
            if line["score"] is None:
                said.append(f"{who}: stays {old!r}: not graded yet")
            elif old.upper() in KEPT:
                said.append(f"{who}: stays {old!r}: {KEPT[old.upper()]}")
            elif number(old, comma) != round(line["score"], 2):
                new = marks.points(line["score"]).replace(".", "," if comma else ".")
                said.append(f"{who}: {old!r} -> {new!r}")
                table.put(row.place, column, new)
    taken = {row.place for theirs in found.values() for row in theirs}
    without = [row for row in rows if row.place not in taken]
    said += [f"{row.name}: no hand-in, stays {table.cell(row.place, column)!r}" for row in without]
    return table.data(), said


def _decimal_comma(table: Table, header: list[str]) -> bool:
    """Whether scores are written with a decimal comma, as Canvas does for users of many languages."""
    columns = range(header.index("Section") + 1, len(header))
    cells = [table.cell(row, column) for row in range(1, len(table.rows)) for column in columns]
    return any(map(DECIMAL_COMMA.fullmatch, cells)) and not any(map(DECIMAL_POINT.fullmatch, cells))


def _known(table: Table, header: list[str], row: int) -> bool:
    return table.cell(row, header.index("ID")) != ""


def _column(table: Table, header: list[str], first: int, wanted: str) -> int:
    after = header.index("Section") + 1
    locked = {c for row in range(1, first) for c in range(len(header)) if READ_ONLY in table.cell(row, c)}
    columns = [c for c in range(after, len(header)) if c not in locked and READ_ONLY not in header[c]]
    titles = {c: header[c].rpartition(" (")[0] or header[c] for c in columns}
    found = [c for c in columns if wanted in (header[c], titles[c]) or header[c].endswith(f"({wanted})")]
    if len(found) != 1:
        listed = "\n".join(f"  {header[c]}" for c in columns)
        raise ValueError(f"{len(found)} assignments are called {wanted!r}; the gradebook has\n{listed}")
    return found[0]


def _same_points(table: Table, first: int, column: int, lines: list[dict], comma: bool) -> None:
    for row in range(1, first):
        if table.cell(row, 0).endswith("Points Possible"):
            possible, ours = number(table.cell(row, column), comma), lines[0]["points"]
            if possible != round(ours, 2):
                raise ValueError(
                    f"{table.cell(0, column)} counts {table.cell(row, column) or 'no'} points in Canvas, the "
                    f"lab {marks.points(ours)}: change the points in Canvas, then export again."
                )


def _rows(table: Table, header: list[str], first: int) -> list[Row]:
    """The students; Canvas writes them as "Last, First", or in two columns."""
    last = header.index("FirstName") if header[0] == "LastName" and "FirstName" in header else None
    logins = [column for column, name in enumerate(header) if name in KEYS]
    found = []
    for place in range(first, len(table.rows)):
        name = table.cell(place, 0) if last is None else f"{table.cell(place, 0)}, {table.cell(place, last)}"
        theirs = tuple(filter(None, (table.cell(place, column) for column in logins)))
        found.append(Row(place, table.cell(place, header.index("ID")), (name,), theirs))
    return found
