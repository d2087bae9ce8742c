"""One source, two editions: the instructor's notebook with solutions, the student's with stubs instead.

A source is a Python file in jupytext's percent format. Cell metadata marks what belongs to an exercise:

    # %% labkit={"exercise": "dice", "role": "answer", "points": 2}
    def dice(prediction, truth):
        ### BEGIN SOLUTION
        return 2 * (prediction & truth).sum() / (prediction.sum() + truth.sum())
        ### END SOLUTION

    # %% labkit={"exercise": "dice", "role": "check"}
    lab.check("dice", dice)

Roles: `answer` (holds one or more solution regions, each becomes `raise NotImplementedError("dice")`),
`check` (read-only for students), `hidden` (instructors only).
"""

from __future__ import annotations

import ast
import copy
import hashlib
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROLES = ("answer", "check", "hidden")
MARKER = re.compile(r"(?P<indent>\s*)### (?P<which>BEGIN|END) SOLUTION\s*")
FIRST_LINE = re.compile(r"^([ \t]*)### BEGIN SOLUTION[ \t]*\n\s*^([ \t]*)\S", re.MULTILINE)
NEARLY_MARKER = re.compile(r"#.*\b(BEGIN|END)[\s_-]*SOLUTION\b", re.IGNORECASE)
GIVEAWAY = (
    15  # so many words and signs of a solution in a row are a leak; a shorter one leaks only as a whole
)
TOO_COMMON = 6  # a solution with fewer than this cannot be told from ordinary code


def instructor(source_py: Path) -> NotebookNode:
    """The notebook with solutions, not yet executed; ValueError names the wrong cell of the source."""
    source_py = Path(source_py)
    return copy.deepcopy(_read(source_py.read_text(encoding="utf-8"), source_py.name))


@lru_cache(maxsize=64)
def _read(text: str, name: str) -> NotebookNode:
    """The notebook of a source's text, for `instructor`: all labs are read again and again."""
    import jupytext

    cells = [_plain_cell(cell) for cell in jupytext.reads(text, fmt="py:percent").cells]
    for number, (cell, id) in enumerate(zip(cells, _ids(cells, name), strict=True), start=1):
        cell["id"] = id
        _validate(cell, f"{name}, cell {number} ({id})")
    return _notebook(cells, Path(name).stem, "instructor")


def student(source_py: Path) -> NotebookNode:
    """The notebook with stubs: no solutions, hidden cells or outputs, and checks that cannot be edited."""
    full = instructor(source_py)
    cells = []
    for cell in full.cells:
        if role(cell) == "hidden":
            continue
        cell = copy.deepcopy(cell)
        if role(cell) == "answer":
            cell.source = _stub(cell)
            cell.metadata["deletable"] = False
            cell.metadata.labkit.pop("hides", None)  # it tells where the answer lies
        if role(cell) == "check":
            cell.metadata["deletable"] = cell.metadata["editable"] = False
        cells.append(cell)
    return _notebook(cells, Path(source_py).stem, "student")


def role(cell: NotebookNode) -> str:
    """What the cell is in its exercise: answer, check or hidden; empty for every other cell."""
    return cell.metadata.get("labkit", {}).get("role", "")


def leaks(source_py: Path) -> list[str]:
    """Sentences naming the places where the student's edition shows a solution; empty when there are none."""
    shown = [(cell.id, _tokens(cell.source)) for cell in student(source_py).cells]
    found, there = [], {}  # size of a run -> for each cell its runs of that size
    for cell in instructor(source_py).cells:
        for region in _solutions(cell):
            tokens = _tokens(re.sub(r"(^|\s)#.*", "", region, flags=re.MULTILINE))
            if (size := min(GIVEAWAY, len(tokens))) < TOO_COMMON:
                continue
            if size not in there:
                there[size] = [(id, set(_runs(given, size))) for id, given in shown]
            for id, known in there[size]:
                if run := next((run for run in _runs(tokens, size) if run in known), None):
                    found.append(
                        f"{Path(source_py).name}: cell {id} of the student's edition shows the solution "
                        f"of {cell.metadata.labkit.exercise}: {run}"
                    )
    return found


def _runs(tokens: list[str], size: int) -> Iterator[str]:
    """Every `size` tokens in a row."""
    return (" ".join(tokens[i : i + size]) for i in range(len(tokens) - size + 1))


def _notebook(cells: list[NotebookNode], lab: str, edition: str) -> NotebookNode:
    metadata = {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "labkit": {"lab": lab, "edition": edition},
    }
    return nbformat.from_dict({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


def _plain_cell(cell: NotebookNode) -> NotebookNode:
    """The cell without what jupytext notes for itself and without outputs."""
    make = {
        "code": nbformat.v4.new_code_cell,
        "markdown": nbformat.v4.new_markdown_cell,
        "raw": nbformat.v4.new_raw_cell,
    }[cell.cell_type]
    metadata = {key: value for key, value in cell.metadata.items() if not key.startswith("lines_to_")}
    return make(cell.source, metadata=metadata)


def _ids(cells: list[NotebookNode], file: str) -> list[str]:
    """Ids that stay when other cells come and go: the exercise's name, or a hash of the cell's text."""
    ids: list[str] = []
    for cell in cells:
        mark = cell.metadata.get("labkit", {})
        if mark.get("exercise") and mark.get("role"):
            id = mark["exercise"] if mark["role"] == "answer" else f"{mark['exercise']}-{mark['role']}"
            if id in ids:
                raise ValueError(
                    f"{file} has two cells for the {mark['role']} of exercise {mark['exercise']}: "
                    "join them, or give one another exercise name."
                )
        else:
            digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:8]
            twins = sum(known.split("-")[0] == digest for known in ids)
            id = f"{digest}-{twins + 1}" if twins else digest
        ids.append(id)
    return ids


def _validate(cell: NotebookNode, place: str) -> None:
    mark = cell.metadata.get("labkit", {})
    if mark and mark.get("role") not in ROLES:
        raise ValueError(f"{place}: labkit metadata {dict(mark)} needs a role, one of {', '.join(ROLES)}.")
    if mark and mark["role"] != "hidden" and not mark.get("exercise"):
        raise ValueError(f"{place}: a cell with role {mark['role']} needs the name of its exercise.")
    if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", cell.id):
        raise ValueError(
            f"{place}: exercise names have 1 to 56 letters, digits, - and _ only, as they become cell ids."
        )
    regions = _solutions(cell, place)
    if regions and role(cell) != "answer":
        raise ValueError(f"{place}: a solution region outside a cell with role answer would reach students.")
    if role(cell) == "answer":
        if cell.cell_type == "code" and not regions:
            raise ValueError(f"{place}: an answer cell needs ### BEGIN SOLUTION ... ### END SOLUTION.")
        for marker, first in FIRST_LINE.findall(cell.source):
            if marker != first:
                raise ValueError(f"{place}: give the markers the indentation of the code they enclose.")
        _compiles(_stub(cell), place)


def _solutions(cell: NotebookNode, place: str = "") -> list[str]:
    """The text of each solution region; ValueError when markers are unbalanced or misspelt."""
    regions: list[str] = []
    inside: list[str] | None = None
    for line in cell.source.splitlines():
        marker = MARKER.fullmatch(line)
        if marker is None and NEARLY_MARKER.search(line):
            raise ValueError(
                f"{place}: write the marker as `### BEGIN SOLUTION` or `### END SOLUTION`, "
                f"alone on its line, not `{line.strip()}`."
            )
        if marker and (marker["which"] == "BEGIN") != (inside is None):
            raise ValueError(
                f"{place}: `### {marker['which']} SOLUTION` without its partner before it; "
                "regions open and close in turn and do not nest."
            )
        if marker and inside is None:
            inside = []
        elif marker and inside is not None:
            regions.append("\n".join(inside))
            inside = None
        elif inside is not None:
            inside.append(line)
    if inside is not None:
        raise ValueError(f"{place}: `### BEGIN SOLUTION` is never closed by `### END SOLUTION`.")
    return regions


def _stub(cell: NotebookNode) -> str:
    """The cell's text with each solution region replaced by a NotImplementedError that names the exercise."""
    lines, inside = [], False
    for line in cell.source.splitlines():
        marker = MARKER.fullmatch(line)
        if marker and marker["which"] == "BEGIN":
            lines.append(f'{marker["indent"]}raise NotImplementedError("{cell.metadata.labkit.exercise}")')
        if marker:
            inside = marker["which"] == "BEGIN"
        elif not inside:
            lines.append(line)
    return "\n".join(lines)


def _compiles(source: str, place: str) -> None:
    from IPython.core.inputtransformer2 import TransformerManager

    try:
        ast.parse(TransformerManager().transform_cell(source))
    except SyntaxError as error:
        raise ValueError(
            f"{place}: the student's stub is not valid Python: line {error.lineno}, {error.msg}."
        ) from error


def _tokens(text: str) -> list[str]:
    """Words and signs one by one, the same way in code and in prose."""
    return re.findall(r"\w+|[^\w\s]", text)
