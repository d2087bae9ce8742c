"""A notebook's answers, checked outside Jupyter: what `labkit check 02` shows in a terminal."""

from __future__ import annotations

import ast
import contextlib
import io
import linecache
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labkit.lessons.lab import Lab, exercises

DEFINES = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)


def check_notebook(path: str | Path) -> Lab:
    """Run a notebook's answers and checks in order, as it was saved, and return its lab with their feedback.

    The cells marked as answer or check run whole. Of all others run imports, definitions and the lines that
    name `lab`, as `dice = lab.working("dice", dice)`; so no training does, and an answer that reads what
    only such a cell sets is told so. An answer's cell that fails becomes feedback like any other, every
    exercise has some. Nothing is printed. ValueError: no notebook, or one that is no lab's.
    """
    cells, name = _read(Path(path))
    space: dict[str, Any] = {"__name__": "__main__", "lab": Lab(name, exercises(name))}
    failed: dict[str, Callable] = {}
    for number, cell in enumerate(cells, start=1):
        mark = cell.metadata.get("labkit", {})
        whole = mark.get("role") in ("answer", "check")
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                _run(cell.source, f"<code cell {number}>", space, whole)
        except (Exception, SystemExit) as error:
            if mark.get("role") == "answer":
                failed[mark["exercise"]] = _raises(error)
    lab = space["lab"]
    for exercise in lab.exercises:
        if exercise in failed or exercise not in lab.feedback:
            with contextlib.suppress(AssertionError):  # LABKIT_STRICT=1
                lab.check(exercise, failed.get(exercise))
    return lab


def _read(path: Path) -> tuple[list, str]:
    import nbformat

    try:
        notebook = nbformat.read(path, as_version=4)
        return [cell for cell in notebook.cells if cell.cell_type == "code"], notebook.metadata.labkit.lab
    except FileNotFoundError:
        raise ValueError(f"There is no notebook {path}; save it, or name another.") from None
    except (nbformat.reader.NotJSONError, AttributeError) as error:
        raise ValueError(f"{path} is not the notebook of a lab; `labkit start` makes one.") from error


def _run(source: str, name: str, space: dict[str, Any], whole: bool) -> None:
    from IPython.core.inputtransformer2 import TransformerManager

    source = TransformerManager().transform_cell(source)
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)  # for tracebacks
    tree = ast.parse(source, name)
    if not whole:
        tree.body = [part for part in tree.body if isinstance(part, DEFINES) or _names_lab(part)]
    exec(compile(tree, name, "exec"), space)


def _names_lab(part: ast.stmt) -> bool:
    return any(isinstance(node, ast.Name) and node.id == "lab" for node in ast.walk(part))


def _raises(error: BaseException) -> Callable:
    if isinstance(error, SyntaxError):  # has no traceback to read the line from
        error = SyntaxError(f"{error.msg}, in line {error.lineno} of your cell: {(error.text or '').strip()}")

    def answer(*inputs):
        raise error

    return answer
