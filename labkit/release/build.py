"""Notebooks executed without a browser: `build` for the instructor's editions, `run` for one lab."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from nbformat import NotebookNode
from tqdm import tqdm

from labkit.paths import checkout_root, lab_named
from labkit.release import editions, promises
from labkit.release.workbook import seal, untouched, write_notebook

CELL_SECONDS = 600
WIDGET = "application/vnd.jupyter.widget-view+json"
ADDRESS = re.compile(r"(?<= at )0x[0-9a-fA-F]+")
PROGRESS_BAR = re.compile(r"\d+%\||\d+it \[|\[\d\d:\d\d")
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class CellFailed(ValueError):
    """A cell of an executed notebook failed; the message names notebook, cell and exception."""


def build(names: Sequence[str] = ()) -> list[Path]:
    """Make and execute notebooks/NN_name.ipynb, with solutions and outputs, for some labs ("02") or for all.

    Checks are strict: an exercise that our own solution does not pass fails the build. A notebook is replaced
    only when its new edition ran to its end; CellFailed says which cell did not, and ValueError what is wrong
    with a source. What the run took is written into the lab's table, as promises.py says.
    """
    built = []
    for source in sources(names):
        if found := editions.leaks(source):
            raise ValueError(found[0])
        cost = promises.Cost()
        executed = execute(editions.instructor(source), cwd=source.parent, strict=True, cost=cost)
        if promises.renew(source, cost):
            executed = promises.with_outputs(editions.instructor(source), executed)
        built.append(write_notebook(source.with_suffix(".ipynb"), executed))
    return built


def run(name: str, out: Path | None = None) -> Path:
    """Execute one lab ("02") as the course ships it, solutions included, and return where its notebook lies.

    By default that is workbook/results/01_transfer.ipynb. The student's own copy of the lab is neither read
    nor written, and a result that somebody edited is kept: the new one gets the next free number. When a cell
    fails, the notebook up to there is written too and CellFailed names the cell.
    """
    source = source_of(name)
    out = Path(out) if out else checkout_root() / "workbook" / "results" / f"{source.stem}.ipynb"
    out = _free(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    notebook = editions.instructor(source)
    try:
        execute(notebook, cwd=out.parent, strict=True)
    except CellFailed as error:
        raise CellFailed(
            f"{error}\nThe notebook up to this cell: {write_notebook(out, seal(notebook))}"
        ) from None
    return write_notebook(out, seal(notebook))


def sources(names: Sequence[str] = ()) -> list[Path]:
    """The sources of some labs ("02") or of all, in the order named; ValueError lists the labs."""
    return [source_of(name) for name in names] or sorted((checkout_root() / "notebooks").glob("*.py"))


def source_of(name: str) -> Path:
    """The source of a lab by number ("02"), name ("01_transfer") or file; ValueError lists the labs."""
    found = {source.stem: source for source in sources()}
    return found[lab_named(name, list(found))]


def execute(
    notebook: NotebookNode,
    cwd: Path,
    strict: bool = False,
    keep_going: bool = False,
    cost: promises.Cost | None = None,
) -> NotebookNode:
    """Run every cell, in place, in a fresh kernel of the running Python, with a progress bar.

    `strict` makes a check that is not passed an error. CellFailed is raised at the first cell that fails,
    unless `keep_going`: then the errors are outputs, as they would be in JupyterLab. `cost` learns what the
    kernel took.
    """
    import nbclient

    lab = notebook.metadata.labkit.lab
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    started: list[NotebookNode] = []

    def executed() -> None:
        bar.update()
        if cost:
            cost.look(client.km.provisioner.pid)

    with tqdm(total=len(code), desc=lab, unit="cell") as bar:
        client = nbclient.NotebookClient(
            notebook,
            kernel_manager_class=_this_python(),  # made by nbclient, or it would leave the kernel running
            timeout=CELL_SECONDS,
            allow_errors=keep_going,
            coalesce_streams=True,
            record_timing=False,
            store_widget_state=False,
            resources={"metadata": {"path": str(cwd)}},
            on_cell_start=lambda cell, cell_index: started.append(cell),
            on_cell_executed=lambda **_: executed(),
        )
        try:
            client.execute(env={**os.environ, "LABKIT_STRICT": "1" if strict else "", "LABKIT_HEADLESS": "1"})
        except nbclient.exceptions.CellTimeoutError:
            raise CellFailed(
                f"{_place(lab, started[-1], code)} did not end within {CELL_SECONDS} s."
            ) from None
        except nbclient.exceptions.DeadKernelError:
            place = _place(lab, started[-1], code) if started else lab
            raise CellFailed(f"{place}: the kernel died (out of memory?).") from None
        except nbclient.exceptions.CellExecutionError as error:
            raise CellFailed(f"{_place(lab, started[-1], code)} failed.\n{_short(error)}") from None
        finally:
            _settle(notebook)
    return notebook


def _free(out: Path) -> Path:
    """`out`, or the first numbered name beside it that holds no work of anybody."""
    number, path = 2, out
    while path.exists() and not untouched(path):
        path = out.with_name(f"{out.stem} ({number}).ipynb")
        number += 1
    return path


def _this_python() -> type:
    """A manager of kernels that starts the running interpreter, whatever kernels else are installed."""
    from ipykernel.kernelspec import make_ipkernel_cmd
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

    class ThisPython(KernelSpecManager):
        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            quiet = ["--IPKernelApp.log_level=ERROR"]
            return KernelSpec(
                argv=make_ipkernel_cmd(extra_arguments=quiet), display_name=kernel_name, language="python"
            )

    class Manager(AsyncKernelManager):
        def __init__(self, **how):
            super().__init__(kernel_spec_manager=ThisPython(), **how)

    return Manager


def _place(lab: str, cell: NotebookNode, code: list[NotebookNode]) -> str:
    number = 1 + next(i for i, other in enumerate(code) if other is cell)
    return (
        f"{lab}: code cell {number} of {len(code)} ({cell.id}), which starts `{cell.source.splitlines()[0]}`,"
    )


def _short(error) -> str:
    """Exception and message, with the failing line of the cell when IPython's traceback shows it."""
    text = ANSI.sub("", error.traceback or "")
    arrow = next((line.strip() for line in text.splitlines() if line.lstrip().startswith("-->")), "")
    return "\n".join(filter(None, [arrow, f"{error.ename}: {ANSI.sub('', error.evalue)}"]))


def _settle(notebook: NotebookNode) -> None:
    """Drop what differs between two runs of one notebook, so that a rebuilt one shows only real changes."""
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in map(_settled, cell.outputs) if output]


def _settled(output: NotebookNode) -> NotebookNode | None:
    if output.output_type == "stream":
        lines = output.text.splitlines(keepends=True)
        if output.name == "stderr":
            lines = [line for line in lines if not PROGRESS_BAR.search(line)]
        output.text = ADDRESS.sub("...", "".join(lines))
        return output if output.text.strip() else None
    if output.output_type in ("display_data", "execute_result"):
        if output.data.pop(WIDGET, None) and set(output.data) <= {"text/plain"}:
            return None  # a widget is nothing without its kernel; its static picture is another output
        if "text/plain" in output.data:
            output.data["text/plain"] = ADDRESS.sub("...", output.data["text/plain"])
    return output
