"""Small automatic changes of our own solutions, and which of them a check lets pass.

    python tests/lessons/ast_mutants.py            every mutant of every exercise, survivors listed
    python tests/lessons/ast_mutants.py 04         of one lab

A mutant changes one node of the solution's syntax tree: an operator, a constant, a comparison, a slice's end,
an argument's order, a statement left out.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import io
import random
import signal
import sys
from collections.abc import Iterator

from labkit.lessons import exercises, labs
from labkit.lessons.exercise import check
from labkit.lessons.feedback import PASS
from labkit.lessons.notebook import read
from labkit.release import editions
from labkit.release.build import source_of

OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult,
}
DEFINES = ("import ", "from ", "def ", "class ", "@")
COMPARISONS = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.GtE,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.GtE: ast.Lt,
}


def changes(node: ast.AST) -> Iterator:
    """Functions that change this one node in place, each in another way."""
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield lambda n: setattr(n, "op", OPERATORS[type(n.op)]())
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Sub, ast.Div, ast.MatMult)):
        yield lambda n: (setattr(n, "left", n.right), setattr(n, "right", copy.deepcopy(node.left)))
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        yield lambda n: n.ops.__setitem__(0, COMPARISONS[type(n.ops[0])]())
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield lambda n: setattr(n, "value", not n.value if isinstance(n.value, bool) else n.value + 1)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield lambda n: setattr(n, "op", ast.UAdd())
    if isinstance(node, ast.Call) and len(node.args) >= 2:
        yield lambda n: n.args.__setitem__(slice(0, 2), n.args[1::-1])
    if isinstance(node, ast.FunctionDef):
        for i, part in enumerate(node.body):
            expression = isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)
            if len(node.body) > 1 and not expression:
                yield lambda n, i=i: n.body.__setitem__(i, ast.Pass())


def mutants(source: str) -> Iterator[str]:
    """The source with one change each."""
    tree = ast.parse(source)
    for position, node in enumerate(ast.walk(tree)):
        for number in range(len(list(changes(node)))):
            changed = copy.deepcopy(tree)
            target = list(ast.walk(changed))[position]
            list(changes(target))[number](target)
            yield ast.unparse(ast.fix_missing_locations(changed))


def solutions(lab: str) -> Iterator[tuple[str, str, dict]]:
    """Exercise, the course's own solution, and the names that the notebook has defined before it."""
    space: dict = {"__name__": "__main__"}
    for cell in editions.instructor(source_of(lab)).cells:
        if cell.cell_type != "code":
            continue
        answer = editions.role(cell) == "answer"
        if answer:
            yield cell.metadata.labkit.exercise, cell.source, dict(space)
        with contextlib.suppress(Exception), contextlib.redirect_stdout(io.StringIO()):
            for one in read(cell.source).statements:  # definitions and what names `lab`: no training
                if answer or "lab" in one.now or one.text.startswith(DEFINES):
                    exec(compile(one.text, "<cell>", "exec"), space)


def survivors(lab: str, sample: int | None = None) -> Iterator[tuple[str, int, list[str]]]:
    """Exercise, how many mutants were tried, and those that pass its check."""
    for name, source, space in solutions(lab):
        tried = [one for one in dict.fromkeys(mutants(source)) if one != ast.unparse(ast.parse(source))]
        if sample and len(tried) > sample:
            tried = random.Random(0).sample(tried, sample)
        yield name, len(tried), [one for one in tried if passes(name, exercises(lab)[name], one, space)]


def passes(name: str, exercise, source: str, space: dict) -> bool:
    space = dict(space)
    try:
        with contextlib.redirect_stdout(io.StringIO()), for_a_while():
            exec(compile(source, "<mutant>", "exec"), space)
            return check(name, exercise, space[name]).status == PASS
    except (Exception, Endless):
        return False


class Endless(BaseException):
    """Raised in a mutant that does not end; the check would take an Exception for an answer's error."""


@contextlib.contextmanager
def for_a_while(seconds: int = 20) -> Iterator[None]:
    """End what is within after so much processor time: a loop may have lost its end."""

    def stop(*_):
        raise Endless

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def main() -> None:
    for lab in sys.argv[1:] or labs():
        for name, tried, alive in survivors(lab):
            print(f"{lab} {name}: {tried - len(alive)} of {tried} fail", flush=True)
            for one in alive:
                print("    passes:\n" + "\n".join(f"        {line}" for line in one.splitlines()))


if __name__ == "__main__":
    main()
