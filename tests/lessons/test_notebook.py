"""A cell is read as IPython reads it, in time that grows with its length alone, and nothing is raised."""

from __future__ import annotations

import time

import pytest

from labkit.lessons.notebook import read


def one(source):
    (statement,) = read(source).statements
    return statement


def test_a_statement_knows_what_it_gives_and_needs_and_when():
    found = one("@wrap(K)\ndef f(a=D) -> T:\n    return [g(i) + a for i in R]")
    assert found.text.startswith("@wrap(K)\ndef f")
    assert (found.binds, found.now, found.later) == ({"f"}, {"wrap", "K", "D", "T"}, {"g", "R"})
    assert found.lines["g"] == 3
    found = one("x, (y, *z) = [q(i) for i in r], w")
    assert (found.binds, found.now) == ({"x", "y", "z"}, {"q", "r", "w"})
    assert one("class A(B):\n    c = d\n    def e(self):\n        return h").now == {"B", "d"}
    assert one("x.y[0] = 1").changes == one("x += 1").changes == one("del x[0]").changes == {"x"}
    assert one("x.append(y)").calls == {"x"}
    assert one("if a:\n    import b.c\nelse:\n    b = 1").binds == {"b"}


@pytest.mark.parametrize(
    ("cell", "binds"),
    [
        ("%matplotlib inline\nx = 1", {"x"}),
        ("x = 1\n!pip install -q y", {"x"}),
        ("%%time\nx = 1", {"x"}),
        ("%%time\n%%capture\n%load_ext y\nx = 1", {"x"}),
        ("x = !ls {folder}", {"x"}),
        ("%time x = f(1)", {"x"}),
        ("x = 1\nx?", {"x"}),
        (">>> x = 1\n>>> x", {"x"}),
        ("    x = 1", {"x"}),
        ("%%bash\nx=1", set()),
        ("x = await y()", {"x"}),
        ("x = 1\r\ny = 2\r", {"x", "y"}),
    ],
)
def test_magics_and_shell_commands_are_read_as_ipython_reads_them(cell, binds):
    assert read(cell).error == "" and read(cell).binds == binds


def test_a_line_is_that_of_the_cell_also_below_magics():
    assert read("%%time\n\ndef f():\n    return missing").statements[0].lines["missing"] == 4


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("def f(:", "line 1: invalid syntax"),
        ("%%time\nx = 1\ny = = 2", "line 3: invalid syntax"),
        ("x = " + "1+" * 5000 + "1", "nested too deep"),
        ("(" * 5000, "too many nested parentheses"),
        ("\0", "null bytes"),
        ("%%time\n" * 5000, "cell magics"),
        ("!ls\n" * 1000 + "x = 1\n" * 1000, "more IPython magics"),
    ],
)
def test_what_cannot_be_read_is_said_at_once(cell, says):
    start = time.process_time()
    assert says in read(cell).error and read(cell).statements == ()
    assert time.process_time() - start < 2


def test_a_long_sum_that_python_can_read_is_read():
    assert one("x = " + "1+" * 900 + "a").now == {"a"}


def test_reading_takes_time_in_proportion_to_the_length():
    """20,000 statements once took hours: the text was split anew for each of them."""
    start = time.process_time()
    assert len(read("a=1\n" * 20_000).statements) == 20_000
    assert time.process_time() - start < 4, "2 s on an idle computer"
