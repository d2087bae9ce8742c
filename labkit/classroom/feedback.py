"""One page per student: points, what was wrong, and the misconception where it has a name."""

from __future__ import annotations

from pathlib import Path

from labkit import files
from labkit.classroom import marks, pages

VERDICTS = {
    "not attempted": "Not attempted.",
    "missing": "The answer cell was not found.",
    "fault": "It was stopped while it was graded.",
    "doubt": "Not graded yet: the fault is ours, not yours.",
}
HIDDEN = "a check that is not in your notebook"


def student_page(line: dict, named: dict[tuple[str, str], str], shown: dict[str, set[str]]) -> str:
    """The page for one line of the ledger. `shown`: exercise -> the checks that students may see."""
    total = "not graded yet" if line["score"] is None else f"{marks.points(line['score'])} of"
    body = [f"<p><strong>{pages.text(total)} {marks.points(line['points'])} points</strong></p>"]
    body += [f"<p>{pages.text(line['reason'])}</p>"] if line["reason"] else []
    body += [f"<p>Note: {pages.text(flag)}</p>" for flag in line["flags"]]
    for name, about in line["exercises"].items():
        body.append(_exercise(name, about, named.get((line["student"], name), ""), shown.get(name, set())))
    return pages.page(f"{line['lab']}: {line['student']}", body)


def write(lines: list[dict], named: dict, shown: dict, folder: Path) -> list[Path]:
    """folder/STUDENT.html for every line."""
    written = []
    for line in lines:
        path = folder / f"{line['student']}.html"
        content = student_page(line, named, shown)
        files.write_atomically(
            path, lambda part, content=content: part.write_text(content, encoding="utf-8", newline="\n")
        )
        written.append(path)
    return written


def shown(lab: str) -> dict[str, set[str]]:
    """exercise -> the names of the checks that a student's own notebook makes."""
    from labkit.lessons import exercises

    return {
        name: {*(f"is right on {c.description}" for c in one.challenges), *one.properties}
        for name, one in exercises(lab).items()
    }


def _exercise(name: str, about: dict, mistake: str, shown: set[str]) -> str:
    score = "no" if about["score"] is None else marks.points(about["score"])
    right = about["score"] == about["points"]
    verdict = VERDICTS.get(about["status"], "Right." if right else "Not right yet.")
    parts = [
        f"<h2>{pages.text(name)}: {score} of {marks.points(about['points'])} points</h2>",
        f"<p>{pages.text(verdict)} {pages.text(about['reason'])}</p>",
    ]
    if mistake:
        parts.append(f'<p class="mistake">Looks like: {pages.text(mistake)}</p>')
    rows: list[list[object]] = []
    before = ""
    for mark in about["marks"]:
        known = mark["name"] in shown
        what = f"It {mark['name']}" if known else f"It passes {HIDDEN}"
        reason = mark["reason"] if known else ""
        rows.append(
            [what, "yes" if mark["holds"] else "NO", "as above" if reason and reason == before else reason]
        )
        before = reason
    if rows:
        parts.append(pages.table(["What was looked at", "Holds", "Because"], rows, f"Checks of {name}"))
    parts += [f"<p>Note: {pages.text(flag)}</p>" for flag in about["flags"]]
    return "<section>\n" + "\n".join(parts) + "\n</section>"
