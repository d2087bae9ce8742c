"""The marks of a run as a file of their own: a table, or the file that a platform takes back."""

from __future__ import annotations

from pathlib import Path

from labkit import files
from labkit.classroom import canvas, feedback, gradescope, marks, matching, moodle
from labkit.grading import submitter

TO = ("csv", "canvas", "moodle", "gradescope")


def export(
    out: Path,
    to: str,
    into: Path | None = None,
    assignment: str | None = None,
    lab: str | None = None,
    target: Path | None = None,
) -> tuple[Path, list[str]]:
    """Write the marks of the run in `out` for one of TO; returns the file or folder, and what is to be said.

    `into` is what Canvas or Moodle exported. It is read only: the result is another file, `target` or one in
    `out`. ValueError, with nothing written, for what does not fit.
    """
    if to not in TO:
        raise ValueError(f"there is no export {to!r}; there are {', '.join(TO)}.")
    lines = marks.read(out, lab)
    target = Path(target or Path(out) / ("gradescope" if to == "gradescope" else f"{to}.csv"))
    if to == "gradescope":
        written = gradescope.write(lines, target, feedback.shown(lines[0]["lab"]))
        return target, [f"{len(written)} results.json", *map(_for_gradescope, lines)]
    said: list[str] = []
    if to == "csv":
        data = marks.as_csv(lines)
    elif into is None:
        raise ValueError(f"--to {to} needs --into FILE, the file that was exported there.")
    elif target.exists() and target.resolve() == Path(into).resolve():
        raise ValueError(f"{into} stays as it was exported: give another --out.")
    elif to == "moodle":
        data, said = moodle.merge(Path(into).read_bytes(), lines)
    elif not assignment:
        raise ValueError('--to canvas needs --assignment, the title of the column, as --assignment "Lab 02".')
    else:
        data, said = canvas.merge(Path(into).read_bytes(), lines, assignment)
    files.write_atomically(target, lambda part: part.write_bytes(data))
    return target, said


def _for_gradescope(line: dict) -> str:
    who, platform = matching.called(line), submitter.of(line).platform
    if line["score"] is None:
        return f"{who}: not graded yet"
    if platform not in ("", "gradescope"):
        return f"{who}: was not handed in on Gradescope, which has no submission that this is of"
    return f"{who}: {line['student']}/results.json"
