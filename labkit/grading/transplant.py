"""The student's answers, set into our notebook; then, for each exercise, the part of it that it needs.

`labkit check`, `labkit submit` and `labkit grade` all read a notebook here, so they see the same. Checks,
metadata, kernel and order are ours. Beside the answer's own cell, which runs as it is, only the statements
that it depends on are kept, of our cells and of all the student's: imports, constants, functions, and what
changes them. So grading one exercise trains no network for another, and no experiment is run.
"""

from __future__ import annotations

import ast
import builtins
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

import nbformat
from nbformat import NotebookNode

from labkit.grading import intake
from labkit.lessons.notebook import ANY, FUTURE, Statement, read
from labkit.release import editions

# what every cell finds: Python's own names and IPython's
GIVEN = {
    *dir(builtins),
    "__name__",
    "__file__",
    "get_ipython",
    "display",
    "In",
    "Out",
    "_",
    "__",
    "___",
    "_ih",
}
NAME = "the name it defines"
SHOWN = 60  # signs of a student's text in a sentence
NAMED = 10  # names in a sentence


@dataclass
class Answer:
    """What a student gave for one exercise: the cell, all their other cells, and what was odd about them."""

    exercise: str
    source: str | None = None  # None: no such cell
    own: tuple[Own, ...] = ()  # the same for all exercises
    flags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Own:
    """A cell, or part of one, that is the student's and no answer."""

    source: str
    after: int  # it stands below this cell of the release; -1: above all
    code: bool = True
    ours: str = ""  # the text that the release has for it: what that binds stays ours


@dataclass(frozen=True)
class Piece:
    """A statement that may be needed, from our cells or the student's."""

    statement: Statement
    role: str  # "prelude": from our cells or from another answer; "helper": from the student's other cells
    theirs: bool
    cell: int  # the same for pieces of one cell


def answers(cells: list[dict], release: NotebookNode) -> dict[str, Answer]:
    """The answer to each exercise of `release` (a student's edition) in the cells of a submission.

    A cell is found by its id, by our metadata, or by giving what the exercise's check asks for. Of several
    the last one counts that has an answer and stands above the check, as when the notebook is run from its
    top. The flags name what an answer needs and no cell gives.
    """
    stubs = {cell.metadata.labkit.exercise: cell for cell in release.cells if editions.role(cell) == "answer"}
    found, chosen = {}, {}
    for exercise, stub in stubs.items():
        answer = found[exercise] = Answer(exercise)
        asked = _asked(release, exercise)
        candidates = _candidates(cells, stub, asked, release)
        if not candidates:
            answer.flags.append("answer cell not found")
            continue
        number = _chosen(cells, candidates, stub, asked)
        answer.source = cells[number]["source"]
        chosen[number] = exercise
        if candidates[number]:
            answer.flags.append(f"answer cell found by {candidates[number]}")
        if len(candidates) > 1:
            answer.flags.append(f"{len(candidates)} answer cells; the last one with an answer counts")
    own = tuple(_own(cells, chosen, release))
    for answer in found.values():
        answer.own = own
    for answer in found.values():
        if attempted(answer, release):
            answer.flags += remarks(answer, found, release)
    for cell in release.cells:
        if editions.role(cell) == "check" and cell.metadata.labkit.exercise in found:
            theirs = [c for c in cells if c["id"] == cell.id]
            if theirs and theirs[0]["source"].strip() != cell.source.strip():
                found[cell.metadata.labkit.exercise].flags.append("the check cell was edited; ours was used")
    return found


def fits(cells: list[dict], release: NotebookNode) -> int:
    """How many exercises of `release` have a cell here, by our metadata or by their checks' own words."""
    wanted = {cell.metadata.labkit.exercise for cell in release.cells if editions.role(cell) == "answer"}
    return len(wanted & intake.exercises(cells))


def attempted(answer: Answer, release: NotebookNode) -> bool:
    """Whether the answer is more than an untouched stub or nothing."""
    stub = next(c.source for c in release.cells if c.id == answer.exercise)
    return answer.source is not None and answer.source.strip() not in ("", stub.strip())


def notebook(answer: Answer, given: dict[str, Answer], release: NotebookNode) -> NotebookNode:
    """What runs to grade one exercise: what the answer needs, its cell as it is, the check.

    Roles of its cells: `prelude` (statements of ours and of other answers), `helper` (of the student's other
    cells), `answer`, `check`; `theirs` in the metadata: whether it is the student's or builds on what is.
    """
    above, below, _ = _plan(answer, given, release)
    own = ("answer", True, answer.source or "")
    cells = [*_grouped(above), own, *_grouped(below), ("check", False, "pass")]
    made = nbformat.v4.new_notebook()
    for number, (role, theirs, source) in enumerate(cells):
        metadata = {"labkit": {"role": role, "exercise": answer.exercise, "theirs": theirs}}
        cell = nbformat.v4.new_code_cell(source, metadata=metadata)
        cell["id"] = f"{role}-{number}"
        made.cells.append(cell)
    return made


def remarks(answer: Answer, given: dict[str, Answer], release: NotebookNode) -> list[str]:
    """Sentences for the student: an answer that cannot be read, and each name it needs that no cell gives."""
    if error := read(answer.source or "").error:
        return [f"the answer's cell cannot be read as Python: {error}"]
    unknown = _plan(answer, given, release)[2]
    more = [f"and {len(unknown) - NAMED} more names"] if len(unknown) > NAMED else []
    return [
        f"`{_shown(name)}` is needed in {where}, but {_whereabouts(name, answer)}"
        for name, where in list(unknown.items())[:NAMED]
    ] + more


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


def _asked(release: NotebookNode, exercise: str) -> set[str]:
    """The names that an exercise's check reads and none of our own cells gives."""
    (statement,) = read(expression(release, exercise)).statements
    ours = [one.binds for cell in release.cells if _plain(cell) for one in _statements(cell.source)]
    return {*statement.now, *statement.later}.difference(GIVEN, *ours)


def _candidates(
    cells: list[dict], stub: NotebookNode, asked: set[str], release: NotebookNode
) -> dict[int, str]:
    """The number of every cell that may hold an answer, and how it was found: "" by its id."""
    exercise = stub.metadata.labkit.exercise
    ours = {cell.source.strip() for cell in release.cells}
    found = {}
    for number, cell in enumerate(cells):
        if cell["type"] != "code":
            continue
        if cell["id"] == stub.id:
            found[number] = ""
        elif cell["exercise"] == exercise and cell["role"] == "answer":
            found[number] = "its metadata"
        elif asked and cell["source"].strip() not in ours and asked <= read(cell["source"]).binds:
            found[number] = NAME
    return found


def _chosen(cells: list[dict], candidates: dict[int, str], stub: NotebookNode, asked: set[str]) -> int:
    """The candidate that counts: with an answer, giving what is asked, above the check; then the last."""
    exercise = stub.metadata.labkit.exercise
    checks = (n for n, cell in enumerate(cells) if exercise in intake.CHECK.findall(cell["source"]))
    check = next(checks, len(cells))

    def merit(number: int) -> tuple:
        source = cells[number]["source"]
        worked = source.strip() not in ("", stub.source.strip())
        gives = worked and bool(asked) and asked <= read(source).binds
        return worked, gives, number < check or candidates[number] != NAME, number

    return max(candidates, key=merit)


def _own(cells: list[dict], chosen: dict[int, str], release: NotebookNode) -> Iterator[Own]:
    """What is the student's beside the chosen cells: cells added, answers not chosen, edits of our cells."""
    places = {cell.id: place for place, cell in enumerate(release.cells)}
    marked = {tuple(_mark(cell)): place for place, cell in enumerate(release.cells) if editions.role(cell)}
    texts = {cell.source.strip(): place for place, cell in enumerate(release.cells)}
    after = -1
    for number, cell in enumerate(cells):
        if number in chosen:
            after = places[chosen[number]]
            continue
        place = places.get(cell["id"], marked.get((cell["exercise"], cell["role"])))
        place = texts.get(cell["source"].strip()) if place is None else place
        after = after if place is None else place
        code = cell["type"] == "code"
        if place is None:
            yield Own(cell["source"], after, code)
        elif cell["source"].strip() not in texts:
            ours = release.cells[place]
            yield Own(cell["source"], after, code, ours.source if _plain(ours) else "")


def _pieces(answer: Answer, given: dict[str, Answer], release: NotebookNode) -> tuple[list[Piece], int]:
    """All that an answer may build on, in the order of our notebook, and how many of these stand above it.

    What an exercise asks for is what its chosen answer gives, whatever other cells make of the name.
    """
    place = next(n for n, cell in enumerate(release.cells) if cell.id == answer.exercise)
    taken: set[str] = set()
    above: list[Piece] = []
    below: list[Piece] = []
    for other in given.values():
        if attempted(other, release):
            taken |= _asked(release, other.exercise) & read(other.source or "").binds
    for n in range(-1, len(release.cells)):
        pieces = below if n >= place else above
        cell = release.cells[n]
        if n >= 0 and _plain(cell) and n < place:
            pieces += [Piece(one, "prelude", False, n) for one in _statements(cell.source)]
        if n >= 0 and editions.role(cell) == "answer" and cell.id != answer.exercise:
            other = given[cell.id]
            if attempted(other, release) and other.source != answer.source:
                pieces += [Piece(one, "prelude", True, n) for one in _statements(other.source or "")]
        for number, own in enumerate(answer.own):
            if own.after == n and own.code:
                ours = _statements(own.ours)
                texts, names = {one.text for one in ours}, taken.union(*(one.binds for one in ours))
                pieces += [
                    Piece(one, "helper", True, len(release.cells) + number)
                    for one in _statements(own.source)
                    if one.text not in texts and not (one.binds and one.binds <= names)
                ]
    return above + below, len(above)


def _plan(
    answer: Answer, given: dict[str, Answer], release: NotebookNode
) -> tuple[list[Piece], list[Piece], dict[str, str]]:
    """What runs above an answer and below it, and the names that are nowhere, with where they are needed.

    A statement reads what the last one above it bound; a function, what was bound last above the answer.
    What is bound only elsewhere is taken from there: above the answer, else from the student's cells below.
    """
    code = read(answer.source or "")
    pieces, count = _pieces(answer, given, release)
    touched = _touched(pieces)
    chosen: set[int] = set()
    seen: set[tuple[str, int]] = set()
    unknown: dict[str, str] = {}
    todo: list[tuple[str, int, str]] = []  # a name, the piece above which it is needed, where that is said

    def follow(name: str, start: int, stop: int) -> bool:
        """Choose what made the name last, from piece `start` up to `stop`; whether anything binds it."""
        places = touched.get(name, [])
        found = False
        for k in range(bisect_left(places, start) - 1, -1, -1):
            number = places[k]
            if number < stop:
                break
            if (name, number) in seen:  # from here on it was followed before, so no piece is looked at twice
                return True
            seen.add((name, number))
            choose(number)
            found |= name in pieces[number].statement.binds
            if found and pieces[number].statement.certain:
                break
        return found

    def choose(number: int) -> None:
        if number not in chosen:
            chosen.add(number)
            one = pieces[number].statement
            where = f"the cell with `{_shown(one.text)}`"
            todo.extend((name, number, where) for name in one.now)
            todo.extend((name, count, where) for name in one.later - code.binds)

    bound: set[str] = set()
    for one in code.statements:
        for name in [*(one.now - bound), *(one.later - code.binds)]:
            todo.append((name, count, f"line {one.lines.get(name, one.line)} of the answer's cell"))
        bound |= one.binds
    for number in touched.get(FUTURE, []):
        choose(number)
    while todo:
        name, start, where = todo.pop()
        found = follow(name, start, 0) or follow(name, count, start) or follow(name, len(pieces), count)
        if not found and name not in GIVEN and name not in code.binds:
            unknown.setdefault(name, where)
    if unknown and (stars := touched.get(ANY)):  # `from x import *` may have it; nobody knows before it runs
        chosen.update(stars)
        unknown = {}
    late, below = set(code.binds), set()  # what builds on the answer runs below it
    for number in sorted(chosen):
        if number >= count and pieces[number].statement.now & late:
            below.add(number)
            late |= pieces[number].statement.binds
    return [pieces[n] for n in sorted(chosen - below)], [pieces[n] for n in sorted(below)], unknown


def _touched(pieces: list[Piece]) -> dict[str, list[int]]:
    """The pieces that bind a name or change what it names, by name, in their order."""
    objects = set()  # what a method call may change: no module of ours, and nothing of our notebook
    for piece in pieces:
        if piece.theirs and not piece.statement.text.startswith(("import ", "from ")):
            objects |= piece.statement.binds
    touched = defaultdict(list)
    for number, piece in enumerate(pieces):
        one = piece.statement
        for name in one.binds | one.changes | (one.calls & objects if piece.theirs else frozenset()):
            touched[name].append(number)
    return touched


def _grouped(pieces: list[Piece]) -> list[tuple[str, bool, str]]:
    """(role, theirs, source) of the cells that hold some pieces.

    Ours stand together, the student's by the cell they come from: one that fails spoils no other, and what of
    ours builds on theirs is told from what is ours alone.
    """
    cells: list[tuple[tuple, list[str]]] = []
    building: set[str] = set()  # names that are the student's
    for piece in pieces:
        one = piece.statement
        theirs = piece.theirs or bool((one.now | one.later) & building)
        building |= one.binds | one.changes if theirs else set()
        key = (piece.role, theirs, piece.cell if theirs else -1)
        if not cells or cells[-1][0] != key:
            cells.append((key, []))
        cells[-1][1].append(one.text)
    return [(role, theirs, "\n\n".join(texts)) for (role, theirs, _), texts in cells]


@lru_cache(maxsize=4096)
def _statements(source: str) -> tuple[Statement, ...]:
    """The statements of a cell; what the lab lends for an answer (`lab.working`) is the answer itself."""
    found = []
    for one in read(source).statements:
        if "lab.working" in one.text:
            try:
                one = _unlent(one)
            except RecursionError:  # a student's, deeper than Python can write it again
                continue
        if one is not None:
            found.append(one)
    return tuple(found)


def _unlent(statement: Statement) -> Statement | None:
    class Lent(ast.NodeTransformer):
        def visit_Call(self, node):
            self.generic_visit(node)
            of = node.func
            lent = isinstance(of, ast.Attribute) and of.attr == "working" and isinstance(of.value, ast.Name)
            return node.args[1] if lent and of.value.id == "lab" and len(node.args) == 2 else node

    tree = Lent().visit(ast.parse(statement.text))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets) == ast.unparse(node.value):
            return None  # x = lab.working("x", x)
    return replace(read(ast.unparse(tree)).statements[0], line=statement.line)


def _plain(cell: NotebookNode) -> bool:
    """Whether it is code of ours that belongs to no exercise."""
    return cell.cell_type == "code" and not editions.role(cell)


def _mark(cell: NotebookNode) -> tuple[str, str]:
    return cell.metadata.labkit.exercise, cell.metadata.labkit.role


def _whereabouts(name: str, answer: Answer) -> str:
    """What can be said of a name that no cell gives: it may stand where Python does not find it."""
    gives = re.compile(
        rf"^\s*(def|class|import|from\b.*\bimport)\s+{re.escape(name)}\b|^\s*{re.escape(name)}\s*=", re.M
    )
    for own in answer.own:
        error = read(own.source).error if own.code else "it is no code cell"
        if error and gives.search(own.source):
            return f"the cell that begins with `{_shown(own.source)}` cannot be read: {error}"
    return "no cell of the notebook gives it"


def _shown(text: str) -> str:
    """The first line of a student's text, for a sentence: short, without signs that move or hide others."""
    line = text.strip().split("\n", 1)[0]
    return "".join(sign if sign.isprintable() else "?" for sign in line)[:SHOWN]
