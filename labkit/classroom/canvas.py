"""Marks set into the gradebook that Canvas exported: one column changes, every other byte stays.

The file's layout is that of canvas-lms, lib/gradebook_importer.rb: students' columns first (Student or
LastName, ID, SIS User ID, SIS Login ID, ..., Section), then assignments as "Title (12345)"; before the
students, a row "Points Possible" and perhaps one that says how grades are posted.
"""

from __future__ import annotations

from labkit.classroom import marks
from labkit.classroom.table import Table

KEYS = ("SIS Login ID", "SIS User ID", "Integration ID")
KEPT = {"EX": "is excused", "N/A": "has no such assignment"}
READ_ONLY = "(read only)"


def merge(data: bytes, lines: list[dict], assignment: str) -> tuple[bytes, list[str]]:
    """The gradebook with the scores of `lines`, and a sentence for every cell that changed or did not.

    `assignment` is a column's header, its title, or its number. A student is found by the number that Canvas'
    downloads carry (`ID`), else by login. ValueError, with what does not fit line by line, when the header is
    not Canvas', the column is not there or counts other points, or a student is not in the gradebook.
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
    _same_points(table, first, column, lines)
    places = _places(table, header, first, lines)
    said = []
    for line in lines:
        row = places[line["student"]]
        old = table.cell(row, column)
        who = f"{line['student']} ({table.cell(row, 0)})"
        if line["score"] is None:
            said.append(f"{who}: stays {old!r}: not graded yet")
        elif old.upper() in KEPT:
            said.append(f"{who}: stays {old!r}: {KEPT[old.upper()]}")
        elif _number(old) != round(line["score"], 2):
            said.append(f"{who}: {old!r} -> {marks.points(line['score'])!r}")
            table.put(row, column, marks.points(line["score"]))
    without = set(range(first, len(table.rows))) - set(places.values())
    said += [
        f"{table.cell(row, 0)}: no hand-in, stays {table.cell(row, column)!r}" for row in sorted(without)
    ]
    return table.data(), said


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


def _same_points(table: Table, first: int, column: int, lines: list[dict]) -> None:
    for row in range(1, first):
        if table.cell(row, 0).endswith("Points Possible"):
            possible, ours = _number(table.cell(row, column)), lines[0]["points"]
            if possible != round(ours, 2):
                raise ValueError(
                    f"{table.cell(0, column)} counts {table.cell(row, column) or 'no'} points in Canvas, the "
                    f"lab {marks.points(ours)}: change the points in Canvas, then export again."
                )


def _places(table: Table, header: list[str], first: int, lines: list[dict]) -> dict[str, int]:
    """student -> row; ValueError with a line for everybody who is not there, or there twice."""
    rows: dict[tuple[str, str], list[int]] = {}
    for column, name in enumerate(header):
        if name == "ID" or name in KEYS:
            for row in range(first, len(table.rows)):
                rows.setdefault((name, table.cell(row, column).casefold()), []).append(row)
    places: dict[str, int] = {}
    wrong = []
    for line in lines:
        by_id = rows.get(("ID", marks.number(line)), []) if marks.number(line) else []
        by_login = [row for key in KEYS for row in rows.get((key, line["student"].casefold()), [])]
        found = sorted(set(by_id or by_login))
        if len(found) != 1:
            wrong.append(
                f"- {line['student']}: {'not in the gradebook' if not found else 'there more than once'}"
            )
        elif found[0] in places.values():
            wrong.append(f"- {line['student']}: a second hand-in of {table.cell(found[0], 0)}")
        else:
            places[line["student"]] = found[0]
    if wrong:
        raise ValueError(
            f"{len(wrong)} of {len(lines)} students do not fit this gradebook; nothing was written.\n"
            + "\n".join(wrong)
        )
    return places


def _number(text: str) -> float | None:
    try:
        return round(float(text), 2)
    except ValueError:
        return None
