"""A notebook's answers, checked outside Jupyter: what `labkit check 02` shows in a terminal.

Every exercise runs as it would be graded, from the same transplanted notebook, with IPython and a namespace
of its own; but here, in this process, and with the lab's own check, which says what is wrong.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from labkit.classroom import submit
from labkit.grading import transplant
from labkit.lessons.lab import Lab, exercises


@dataclass
class Checked(Lab):
    """A lab with the feedback to every exercise, and sentences on what the grader would find odd."""

    remarks: list[str] = field(default_factory=list)


def check_notebook(path: str | Path) -> Checked:
    """Run a saved notebook's answers as the grader would, and the lab's check of each; nothing is printed.

    What an answer does not need is not run, so no training is. An exercise that uses the answer to another
    one gets the student's, right or wrong. ValueError: no notebook, or one that no lab's cells are in.
    """
    name = submit.lab_of(path := Path(path))
    return check_cells(submit.read(path)[1], submit.edition(name), name)


def check_cells(cells: list[dict], edition: NotebookNode, name: str) -> Checked:
    """The same for cells as the grader's intake reads them, and the student's edition of their lab."""
    lab = Checked(name, exercises(name))
    given = transplant.answers(cells, edition)
    lab.remarks += [f"{name}: {flag}" for name, answer in given.items() for flag in answer.flags]
    for name in lab.exercises:
        answer = given.get(name)
        with _shell() as shell, contextlib.suppress(AssertionError):  # LABKIT_STRICT=1
            value = None
            if answer is not None and transplant.attempted(answer, edition):
                error = _run(transplant.notebook(answer, given, edition), shell)
                value = _value(transplant.expression(edition, name), shell, error)
                lab.remarks += [f"{name}: a cell that it needs raised {_said(error)}"] * bool(error)
            lab.check(name, value)
    return lab


def _run(notebook: NotebookNode, shell: Any) -> BaseException | None:
    """Run all cells, as the grader does, and return the first error; Ctrl-C ends the check, not a cell."""
    first = None
    for cell in notebook.cells:
        result = shell.run_cell(cell.source, store_history=False)
        error = result.error_before_exec or result.error_in_exec
        if isinstance(error, KeyboardInterrupt):
            raise error
        first = first or error
    return first


def _value(expression: str, shell: Any, error: BaseException | None) -> Any:
    """What the exercise's check is given; where there is nothing, a function that raises what went wrong."""
    try:
        return eval(expression, shell.user_ns)
    except Exception as missing:
        raised = error or missing

    def answer(*inputs):
        raise raised

    if isinstance(raised, SyntaxError):  # has no traceback to read the line from
        raised = SyntaxError(_said(raised))
    return answer


def _said(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"{error.msg}, in line {error.lineno} of your cell: {(error.text or '').strip()}"
    return f"{type(error).__name__}: {error}".split("\n")[0]


@contextlib.contextmanager
def _shell() -> Iterator[Any]:
    """IPython as in a notebook's kernel, with nothing in its namespace; what it prints is dropped."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    class Shell(InteractiveShell):
        def enable_gui(self, gui=None):
            """`%matplotlib inline` asks for it: there is none."""

        def showtraceback(self, *given, **named):
            """Errors are for the feedback."""

        showsyntaxerror = showtraceback

    alone = not InteractiveShell.initialized()  # then get_ipython() finds this one
    config = Config({"HistoryManager": {"enabled": False}})
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        shell = (Shell.instance if alone else Shell)(config=config, ipython_dir=folder)
        try:
            with shell.builtin_trap:
                yield shell
        finally:
            shell.restore_sys_module_state()
            atexit.unregister(shell.atexit_operations)  # it would keep each shell until the process ends
            if alone:
                Shell.clear_instance()
