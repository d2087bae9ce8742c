"""A cell of a notebook as IPython reads it: its statements, and the names that each gives and needs.

Nothing is run here. Reading takes time in proportion to the cell's length, whatever it holds, and what cannot
be read is said in a sentence, never raised.
"""

from __future__ import annotations

import ast
import re
import symtable
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
MAGIC = re.compile(r"^\s*[%!?]|=\s*[%!]|\?\s*$", re.MULTILINE)
WORK = 200_000  # IPython reads the whole cell anew for every magic: lines x magics that are still read
RUN_THEIR_BODY = ("time", "capture", "prun")  # magics whose Python runs in the notebook's own namespace
NESTED = 5  # %%time above %%capture above ...
AT_ONCE = (
    "listcomp",
    "setcomp",
    "dictcomp",
    "genexpr",
)  # symtable's names of functions that run where they stand
IN_BRACES = re.compile(r"\{([^\W\d]\w*)")  # how a shell command (!ls {folder}) reads a name
IMPORTS = (ast.Import, ast.ImportFrom)
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
SCOPES = (*DEFINITIONS, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
PERHAPS = tuple(
    getattr(ast, kind)
    for kind in ("If", "For", "AsyncFor", "While", "Try", "TryStar", "Match")
    if hasattr(ast, kind)  # TryStar came with Python 3.11
)
ANY, FUTURE = "*", "__future__"  # what `from x import *` and `from __future__ import y` bind


@dataclass(frozen=True)
class Statement:
    """One statement at the top of a cell; all names are those of the notebook's namespace."""

    text: str  # as a kernel of IPython runs it
    line: int = 1  # of the cell, from 1
    binds: frozenset[str] = frozenset()
    certain: bool = True  # False: it may leave them unbound, as in `if`, `for`, `try`
    changes: frozenset[str] = frozenset()  # objects changed in place: x[0] = 1, x.y = 1, x += 1
    calls: frozenset[str] = frozenset()  # objects whose method it calls for nothing else: x.append(1)
    now: frozenset[str] = frozenset()  # names read when it runs
    later: frozenset[str] = frozenset()  # names read when a function that it defines is called
    lines: Mapping[str, int] = field(default_factory=dict)  # where each name is read first


@dataclass(frozen=True)
class Code:
    """The statements of a cell, or in a few words why it has none."""

    statements: tuple[Statement, ...] = ()
    error: str = ""

    @property
    def binds(self) -> frozenset[str]:
        return frozenset().union(*(one.binds for one in self.statements))


@lru_cache(maxsize=4096)
def read(source: str) -> Code:
    """The statements of a code cell; those under %%time and its like as if they stood alone."""
    source = source.replace("\r\n", "\n").replace("\r", "\n")
    skipped = 0
    try:
        for _ in range(NESTED):
            python, tree = _parsed(source)
            body = _cell_magic(tree)
            if body is None:
                return Code(tuple(_statements(python, tree, skipped)))
            source, skipped = body, skipped + 1
    except SyntaxError as error:
        return Code(error=f"line {(error.lineno or 1) + skipped}: {error.msg}")
    except UNREADABLE:
        return Code(error="it is nested too deep for Python")
    return Code(error=f"it has more than {NESTED} cell magics")


def _parsed(source: str) -> tuple[str, ast.Module]:
    """A cell as Python: as it is where it is that already, else what IPython makes of it."""
    from IPython.core.inputtransformer2 import TransformerManager

    try:
        return source, ast.parse(source)
    except SyntaxError as error:
        if len(MAGIC.findall(source)) * source.count("\n") > WORK and not source.startswith("%%"):
            raise SyntaxError("more IPython magics than can be read") from error
    try:
        python = TransformerManager().transform_cell(source)
    except RuntimeError as error:  # its own limit of transformations
        raise SyntaxError("more IPython magics than can be read") from error
    return python, ast.parse(python)


def _magic(node: ast.AST, kind: str) -> list[str] | None:
    """The texts given to get_ipython().KIND(...), which is how IPython writes a magic."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == kind):
        return None
    of = node.func.value
    if not (isinstance(of, ast.Call) and isinstance(of.func, ast.Name) and of.func.id == "get_ipython"):
        return None
    return [str(one.value) for one in node.args if isinstance(one, ast.Constant)]


def _cell_magic(tree: ast.Module) -> str | None:
    """The Python below a cell magic that runs it, None for every other cell."""
    if len(tree.body) == 1 and isinstance(tree.body[0], ast.Expr):
        given = _magic(tree.body[0].value, "run_cell_magic")
        if given and len(given) == 3 and given[0] in RUN_THEIR_BODY:
            return given[2]
    return None


def _statements(python: str, tree: ast.Module, skipped: int) -> Iterator[Statement]:
    lines = python.encode().split(b"\n")  # ast counts columns in bytes; split once, however many statements
    for node in tree.body:
        first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])
        rows = lines[first - 1 : node.end_lineno]
        rows[-1] = rows[-1][: node.end_col_offset]
        rows[0] = rows[0][node.col_offset if first == node.lineno else 0 :]
        text = b"\n".join(rows).decode()
        if isinstance(node, IMPORTS):
            yield from (_import(one, first + skipped) for one in _each_alias(node))
        else:
            yield _statement(node, text, skipped)


def _statement(node: ast.stmt, text: str, skipped: int) -> Statement:
    binds, changes, scoped, lines, inner = _names(node)
    now, later, maybe = _reads(text, lines) if scoped else (set(lines), set(), set())
    for code in inner:  # a magic that runs Python, as %time x = f(x)
        for one in read(code).statements:
            binds |= one.binds
            now, later = now | one.now, later | one.later
            lines = {**dict.fromkeys(one.lines, node.lineno), **lines}
    augmented = isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name)
    if augmented:
        changes, now = changes | {node.target.id}, now | {node.target.id}
        lines.setdefault(node.target.id, node.lineno)
    calls = set()
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        calls = {_root(node.value.func)} if isinstance(node.value.func, ast.Attribute) else set()
    return Statement(
        text,
        node.lineno + skipped,
        frozenset(binds | maybe),
        not (isinstance(node, PERHAPS) or augmented),
        frozenset(changes - {""}),
        frozenset(calls - {""}),
        frozenset(now),
        frozenset(later),
        {name: line + skipped for name, line in lines.items()},
    )


def _names(node: ast.stmt) -> tuple[set[str], set[str], bool, dict[str, int], list[str]]:
    """Names bound, objects changed in place, whether it has scopes, lines of names read, code in magics."""
    binds, changes, lines, inner = set(), set(), {}, []
    scoped = False
    todo: list[tuple[ast.AST, bool]] = [(node, True)]
    while todo:
        part, outside = todo.pop()
        if isinstance(part, ast.Name):
            if isinstance(part.ctx, ast.Load):
                lines[part.id] = min(part.lineno, lines.get(part.id, part.lineno))
            elif isinstance(part.ctx, ast.Store) and outside:
                binds.add(part.id)
        elif isinstance(part, (ast.Subscript, ast.Attribute)) and not isinstance(part.ctx, ast.Load):
            changes |= {_root(part)} if outside else set()
        elif isinstance(part, IMPORTS) and outside:
            binds |= _imported(part)
        elif isinstance(part, DEFINITIONS) and outside:
            binds.add(part.name)
        elif isinstance(part, (ast.MatchAs, ast.MatchStar)) and outside and part.name:
            binds.add(part.name)
        elif isinstance(part, ast.Call):
            for kind in ("run_line_magic", "system", "getoutput"):
                given = _magic(part, kind)
                if given and kind == "run_line_magic":
                    inner += given[1:] if given[0] in RUN_THEIR_BODY else []
                elif given:
                    inner += IN_BRACES.findall(given[0])
        if isinstance(part, SCOPES):
            scoped, outside = True, False
        if part._fields and not isinstance(part, (ast.Name, ast.Constant)):
            todo += [(child, outside) for child in ast.iter_child_nodes(part)]
    return binds, changes, scoped, lines, inner


def _reads(text: str, lines: Mapping[str, int]) -> tuple[set[str], set[str], set[str]]:
    """The notebook's names that a statement with scopes of its own reads at once, reads later, sets later."""
    try:
        todo = [(symtable.symtable(text, "cell", "exec"), False)]
    except UNREADABLE:  # as `await` outside of a function, which IPython allows
        return set(lines), set(), set()
    found: tuple[set[str], set[str]] = (set(), set())
    sets = set()
    while todo:
        table, deferred = todo.pop()
        top = table.get_type() == "module"
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (top or symbol.is_global()):
                found[deferred].add(symbol.get_name())
            if not top and symbol.is_declared_global() and symbol.is_assigned():
                sets.add(symbol.get_name())
        for child in table.get_children():
            runs = child.get_type() != "function" or child.get_name() in AT_ONCE
            todo.append((child, deferred or not runs))
    return found[False], found[True], sets


def _root(node: ast.AST) -> str:
    """The name at the start of x.y[0].z, empty when there is none."""
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _import(node: ast.Import | ast.ImportFrom, line: int) -> Statement:
    return Statement(ast.unparse(node), line, frozenset(_imported(node)))


def _imported(node: ast.Import | ast.ImportFrom) -> set[str]:
    if isinstance(node, ast.ImportFrom) and node.module == FUTURE:
        return {FUTURE}
    return {(alias.asname or alias.name).split(".")[0] for alias in node.names}


def _each_alias(node: ast.Import | ast.ImportFrom) -> list[ast.stmt]:
    if isinstance(node, ast.Import):
        return [ast.Import([alias]) for alias in node.names]
    return [ast.ImportFrom(node.module, [alias], node.level) for alias in node.names]
