"""A student's answers, brought over into a newer edition of their lab; and an answer taken back to its stub.

Nothing of a student's is lost by either: what is taken out of its place stays beside it as a comment.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import re
import uuid

from nbformat import NotebookNode

from labkit.release import editions

KEPT = "# Your earlier answer, kept here as a comment (Ctrl+/ takes the # away from the lines you select):"


def carried(old: NotebookNode, edition: NotebookNode) -> tuple[NotebookNode, list[str]]:
    """`edition`, a newer student's edition, with the answers and own cells of `old`; and whose answers.

    A stub of `edition` gets the answer to the same exercise; where the exercise now asks for other inputs,
    the stub stays and the answer is kept below it as a comment. Cells that the student added or edited come
    after the cell that they followed. Outputs stay behind. Neither notebook is changed.
    """
    made, names = copy.deepcopy(edition), []
    for cell in made.cells:
        source = answer_in(old, cell) if editions.role(cell) == "answer" else None
        if source is not None:
            cell.source = source if _asks(source) == _asks(cell.source) else kept(cell.source, source)
            names.append(cell.metadata.labkit.exercise)
    _add_own(made, old)
    return made, names


def fill(newer: NotebookNode, older: NotebookNode, edition: NotebookNode) -> list[str]:
    """Put answers of `older` where `newer` still has the stub of `edition`, in place; whose they were."""
    names = []
    for stub in edition.cells:
        cell = _by_id(newer, stub.id)
        if editions.role(stub) == "answer" and cell is not None and answer_in(newer, stub) is None:
            source = answer_in(older, stub)
            if source is not None and _asks(source) == _asks(stub.source):
                cell.source = source
                names.append(stub.metadata.labkit.exercise)
    return names


def answer_in(notebook: NotebookNode, stub: NotebookNode) -> str | None:
    """What stands in a stub's place, None where that is nothing, or still raises NotImplementedError."""
    cell = _by_id(notebook, stub.id)
    exercise = stub.metadata.labkit.exercise
    if cell is None or not cell.source.strip() or cell.source.strip() == stub.source.strip():
        return None
    undone = re.search(rf"^\s*raise NotImplementedError\([\"']{exercise}[\"']\)", cell.source, re.MULTILINE)
    return None if undone else cell.source


def kept(stub: str, answer: str) -> str:
    """A stub with an answer below it, each line of which is a comment."""
    lines = [f"# {line}".rstrip() for line in answer.strip("\n").splitlines()]
    return "\n".join([stub.rstrip("\n"), "", KEPT, *lines])


def _by_id(notebook: NotebookNode, id: str) -> NotebookNode | None:
    return next((cell for cell in notebook.cells if cell.get("id") == id), None)


def _asks(source: str) -> list[tuple[str, list[str]]]:
    """The functions and classes that a cell defines at its top, with the names of their inputs."""
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return []
    found = []
    for one in body:
        if isinstance(one, ast.FunctionDef):
            found.append((one.name, [arg.arg for arg in one.args.args]))
        elif isinstance(one, ast.ClassDef):
            found.append((one.name, []))
    return found


def _add_own(made: NotebookNode, old: NotebookNode) -> None:
    """Put each cell of `old` that is the student's after the cell that it followed there."""
    if any("id" not in cell for cell in old.cells):  # of a format in which ours cannot be told from theirs
        return
    last = None  # a cell of `made`
    for cell in old.cells:
        known = _by_id(made, cell.id)
        if known is not None and (editions.role(known) or known.source.strip() == cell.source.strip()):
            last = known
        elif _theirs(cell):
            own = copy.deepcopy(cell)
            own["id"] = uuid.uuid4().hex[:8]
            if own.cell_type == "code":
                own.outputs, own.execution_count = [], None
            place = 0 if last is None else 1 + next(i for i, one in enumerate(made.cells) if one is last)
            made.cells.insert(place, own)
            last = own


def _theirs(cell: NotebookNode) -> bool:
    """Whether a cell is not as some edition of ours had it; an answer to an exercise that is gone is too."""
    if not cell.source.strip() or editions.role(cell) == "check":
        return False
    if editions.role(cell) == "answer":
        return "raise NotImplementedError" not in cell.source
    digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:8]
    return cell.id.split("-")[0] != digest
