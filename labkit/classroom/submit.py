"""The student's side: one file to hand in, looked at by the grader's own intake before it leaves."""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from labkit.grading import intake, transplant
from labkit.grading.intake import LARGEST, Rejected
from labkit.lessons import labs


@dataclass(frozen=True)
class Pack:
    """The file to hand in, and for each exercise what the grader will find in it."""

    file: Path
    found: dict[str, str]  # exercise -> "an answer", or why there is none
    remarks: tuple[str, ...]


def pack(notebook: Path, edition: NotebookNode, out: Path) -> Pack:
    """Write a copy of `notebook` without outputs into `out`, if the grader will accept it.

    `edition` is the student's edition of the lab as the course released it. The copy is called as the
    notebook; when that name is taken, NAME-2, NAME-3, ...: an earlier one is never touched. ValueError says
    why the grader would reject the notebook; then nothing is written.
    """
    notebook, out = Path(notebook), Path(out)
    data, cells = read(notebook)
    out.mkdir(parents=True, exist_ok=True)
    part = out / f".{notebook.name}.{os.getpid()}.part"
    try:
        part.write_bytes(data)
        file = _place(part, out / notebook.name)
    finally:
        part.unlink(missing_ok=True)
    given = transplant.answers(cells, edition)
    remarks = [f"{name}: {flag}" for name, answer in given.items() for flag in answer.flags if answer.source]
    return Pack(file, {name: _said(answer, edition) for name, answer in given.items()}, tuple(remarks))


def read(notebook: Path) -> tuple[bytes, list[dict]]:
    """A notebook's bytes without outputs, and its cells; ValueError says why the grader would reject it."""
    if not notebook.is_file():
        raise ValueError(f"There is no notebook {notebook}: save it, or say which file it is.")
    if notebook.stat().st_size > 10 * LARGEST:
        raise ValueError(f"{notebook} is larger than {10 * LARGEST >> 20} MB: clear its outputs and save it.")
    data = _without_outputs(notebook.read_bytes())
    try:
        return data, intake.cells(data)
    except Rejected as error:
        raise ValueError(f"{notebook} would be rejected: {error}.") from None


def lab_of(notebook: Path) -> str:
    """The lab whose cells a notebook has, whatever it is called; ValueError when that is none, or two."""
    cells = read(notebook)[1]
    counts = {lab: transplant.fits(cells, edition(lab)) for lab in labs()}
    found = [lab for lab, count in counts.items() if count and count == max(counts.values())]
    if not found:
        raise ValueError(f"{notebook} has none of a lab's cells; `labkit start` makes your workbook.")
    if len(found) > 1:
        raise ValueError(
            f"{notebook} has the cells of {' and of '.join(found)}: keep those of one lab in it."
        )
    return found[0]


def edition(lab: str) -> NotebookNode:
    """The student's edition of a lab ("04"), with the cell ids that the grader looks for."""
    from labkit.release import editions
    from labkit.release.build import source_of

    written = nbformat.writes(editions.student(source_of(lab)))
    return nbformat.reads(written, as_version=4)


def _said(answer: transplant.Answer, edition: NotebookNode) -> str:
    if answer.source is None:
        return "the answer cell was not found: it would get no points"
    if not transplant.attempted(answer, edition):
        return "its cell is empty or still the stub: it would get no points"
    return "an answer"


def _without_outputs(data: bytes) -> bytes:
    """Outputs are most of a notebook's size, and the grader makes its own. No notebook: left as it is."""
    try:
        notebook = json.loads(data.decode("utf-8-sig"))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cell["outputs"], cell["execution_count"] = [], None
        return (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return data


def _place(part: Path, path: Path) -> Path:
    """Give a finished file its name, or the next free one; a link, unlike a rename, never replaces a file."""
    for number in itertools.count(1):
        name = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        try:
            os.link(part, name)
        except FileExistsError:
            continue
        except OSError:  # a disk without links
            if name.exists():
                continue
            os.replace(part, name)
        return name
    raise AssertionError("names never run out")
