"""Checks notice small automatic changes of a right answer, not only the mistakes that somebody thought of.

A sample of each solution's mutants; `python tests/lessons/ast_mutants.py` tries all and lists the survivors.
"""

import pytest
from ast_mutants import mutants, survivors

from labkit.lessons import labs

# Mutants that are right answers: the deviation of A's random start is free.
EQUIVALENT = {"start": 3}


OFTEN = ("00", "04", "11")  # of each kind one; the others when all tests run


@pytest.mark.parametrize(
    "lab", [lab if lab[:2] in OFTEN else pytest.param(lab, marks=pytest.mark.slow) for lab in labs()]
)
def test_at_least_four_of_five_mutants_of_each_solution_fail(lab):
    for name, tried, alive in survivors(lab, sample=10):
        shown = "\n\n".join(alive)
        assert tried and len(alive) - EQUIVALENT.get(name, 0) <= 0.2 * tried, (
            f"{lab} {name} lets pass {len(alive)} of {tried}:\n{shown}"
        )


def test_a_mutant_differs_from_its_source_by_one_change():
    found = list(mutants("def f(x):\n    y = x - 1\n    return g(y, 2)"))
    assert "def f(x):\n    y = x + 1\n    return g(y, 2)" in found
    assert "def f(x):\n    y = x - 1\n    return g(2, y)" in found
    assert "def f(x):\n    pass\n    return g(y, 2)" in found
    assert len(found) == len(set(found)) == 7
