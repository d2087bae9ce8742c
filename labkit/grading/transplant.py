"""The student's answers, set into our notebook; then, for each exercise, the part of it that it needs.

Everything but the answer cells is ours: checks, metadata, kernel, order. Of our own cells only the
statements that an answer depends on are kept (imports, constants, functions), so grading one exercise does
not train a network for another.
"""

from __future__ import annotations

import ast
import re
import symtable
from collections.abc import Iterable
from dataclasses import dataclass, field

import nbformat
from nbformat import NotebookNode

from labkit.release import editions

WORD = re.compile(r"[^\W\d]\w*")
IMPORTS = (ast.Import, ast.ImportFrom)
BINDING = (*IMPORTS, ast.Assign, ast.AnnAssign, ast.FunctionDef, ast.ClassDef)


@dataclass
class Answer:
    """What a student gave for one exercise: the cell, helper cells around it, and what was odd about them."""

    exercise: str
    source: str | None = None  # None: no such cell
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)


def answers(cells: list[dict], release: NotebookNode) -> dict[str, Answer]:
    """The answer to each exercise of `release` (a student's edition) in the cells of a submission.

    A cell is found by its id; else, as when an editor dropped the ids, by our metadata; else by the function
    it defines. Of several, the last one that is neither empty nor the stub counts.
    """
    ours = {cell.id: cell for cell in release.cells}
    stubs = {cell.metadata.labkit.exercise: cell for cell in release.cells if editions.role(cell) == "answer"}
    code = [cell for cell in cells if cell["type"] == "code"]
    found = {}
    for exercise, stub in stubs.items():
        answer = found[exercise] = Answer(exercise)
        candidates, how = _candidates(code, stub)
        if not candidates:
            answer.flags.append("answer cell not found")
            continue
        if how:
            answer.flags.append(f"answer cell found by {how}")
        if len(candidates) > 1:
            answer.flags.append(f"{len(candidates)} answer cells; the last one with an answer counts")
        worked = [cell for cell in candidates if cell["source"].strip() not in ("", stub.source.strip())]
        chosen = (worked or candidates)[-1]
        answer.source = chosen["source"]
        known = set(ours) | {id(cell) for other in candidates for cell in [other]}
        position = next(i for i, cell in enumerate(code) if cell is chosen)
        answer.before = _helpers(reversed(code[:position]), ours, known)[::-1]
        answer.after = _helpers(code[position + 1 :], ours, known)
    for id_, cell in ours.items():
        if editions.role(cell) == "check":
            theirs = [c for c in cells if c["id"] == id_]
            exercise = cell.metadata.labkit.exercise
            if exercise in found and theirs and theirs[0]["source"].strip() != cell.source.strip():
                found[exercise].flags.append("the check cell was edited; ours was used")
    return found


def attempted(answer: Answer, release: NotebookNode) -> bool:
    """Whether the answer is more than an untouched stub or nothing."""
    stub = next(c.source for c in release.cells if c.id == answer.exercise)
    return answer.source is not None and answer.source.strip() not in ("", stub.strip())


def notebook(answer: Answer, given: dict[str, Answer], release: NotebookNode) -> NotebookNode:
    """What runs to grade one exercise: what the answer needs, the student's cells as they are, the check."""
    own = [*answer.before, answer.source or "", *answer.after]
    prelude = _needed("\n".join(own), _statements(given, release, answer.exercise))
    cells = [("prelude", "\n\n".join(prelude))] * bool(prelude)
    cells += [("helper", source) for source in answer.before]
    cells += [("answer", answer.source or "")]
    cells += [("helper", source) for source in answer.after]
    cells += [("check", "pass")]
    made = nbformat.v4.new_notebook()
    for number, (role, source) in enumerate(cells):
        metadata = {"labkit": {"role": role, "exercise": answer.exercise}}
        cell = nbformat.v4.new_code_cell(source, metadata=metadata)
        cell["id"] = f"{role}-{number}"
        made.cells.append(cell)
    return made


def expression(release: NotebookNode, exercise: str) -> str:
    """What the check cell passes to lab.check for an exercise: usually the function's name."""
    for cell in release.cells:
        if editions.role(cell) == "check" and cell.metadata.labkit.exercise == exercise:
            for node in ast.walk(ast.parse(cell.source)):
                if (
                    isinstance(node, ast.Call)
                    and getattr(node.func, "attr", "") == "check"
                    and len(node.args) == 2
                ):
                    return ast.unparse(node.args[1])
    raise ValueError(f"{exercise} has no check cell with `lab.check({exercise!r}, ...)` in this release.")


def _candidates(code: list[dict], stub: NotebookNode) -> tuple[list[dict], str]:
    exercise = stub.metadata.labkit.exercise
    if by_id := [cell for cell in code if cell["id"] == stub.id]:
        return by_id, ""
    if by_mark := [c for c in code if c["exercise"] == exercise and c["role"] == "answer"]:
        return by_mark, "its metadata"
    names = set(_defined(stub.source))
    return [c for c in code if names and names <= set(_defined(c["source"]))], "the name it defines"


def _helpers(cells: Iterable[dict], ours: dict, known: set) -> list[str]:
    """Cells that the student added next to an answer, up to the next one of ours."""
    added = []
    for cell in cells:
        if cell["id"] in ours or id(cell) in known or any(_same(cell, one) for one in ours.values()):
            break
        added.append(cell["source"])
    return added


def _same(cell: dict, one: NotebookNode) -> bool:
    return one.cell_type == "code" and cell["source"].strip() == one.source.strip()


def _statements(given: dict[str, Answer], release: NotebookNode, until: str) -> list[tuple[set[str], str]]:
    """(names, source) of the binding statements above an exercise: ours, and the student's answers."""
    found: list[tuple[set[str], str]] = []
    for cell in release.cells:
        if cell.id == until:
            break
        if cell.cell_type != "code" or editions.role(cell) == "check":
            continue
        source = given[cell.id].source or "" if editions.role(cell) == "answer" else cell.source
        for statement in _parsed(source).body:
            if isinstance(statement, IMPORTS):
                found += [(_bound(one), ast.unparse(one)) for one in _each_alias(statement)]
            elif isinstance(statement, BINDING) and "lab.working" not in ast.unparse(statement):
                found.append((_bound(statement), ast.get_source_segment(source, statement) or ""))
    return found


def _needed(source: str, statements: list[tuple[set[str], str]]) -> list[str]:
    """The statements that `source` depends on, in their order; a name bound twice means the last time."""
    wanted, chosen = _used(source), set()
    for number in reversed(range(len(statements))):
        names, text = statements[number]
        if names & wanted:
            chosen.add(number)
            wanted = (wanted - names) | _used(text)
    return [statements[number][1] for number in sorted(chosen)]


def _used(source: str) -> set[str]:
    """The global names that some code reads; every word of it when it is no plain Python."""
    try:
        tables = [symtable.symtable(source, "cell", "exec")]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set(WORD.findall(source))
    used = set()
    while tables:
        table = tables.pop()
        top = table.get_type() == "module"
        used |= {s.get_name() for s in table.get_symbols() if s.is_referenced() and (top or s.is_global())}
        tables += table.get_children()
    return used


def _bound(statement: ast.stmt) -> set[str]:
    if isinstance(statement, IMPORTS):
        return {(alias.asname or alias.name).split(".")[0] for alias in statement.names}
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return {statement.name}
    return {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def _each_alias(statement: ast.Import | ast.ImportFrom) -> list[ast.stmt]:
    if isinstance(statement, ast.Import):
        return [ast.Import([alias]) for alias in statement.names]
    return [ast.ImportFrom(statement.module, [alias], statement.level) for alias in statement.names]


def _defined(source: str) -> list[str]:
    return [s.name for s in _parsed(source).body if isinstance(s, (ast.FunctionDef, ast.ClassDef))]


def _parsed(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module([], [])
