"""The printed tables hold what was counted."""

import pytest

from labkit.methods.paper import ROWS
from labkit.studies.parameter_tables import FORMULAS, formula_table, med_tuning_table


def cells(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


@pytest.mark.parametrize("body, ours", [("vit", "17,853,188"), ("swin", "7,489,098")])
def test_the_papers_table_stands_beside_ours(body, ours):
    rows = cells(med_tuning_table(body))
    assert [row[0] for row in rows] == [row.name for row in ROWS]
    assert rows[-1][2] == ours
    for _, paper, tuned, _, _ in rows:
        assert abs(float(paper) - int(tuned.replace(",", "")) / 1e6) < 0.0011


def test_the_lectures_formulas_stand_beside_the_counts():
    rows = cells(formula_table())
    counted = [int(row[3].replace(",", "")) for row in rows]
    assert counted == [2_379_264, 57_088, 1_387_904, 1_189_632, 46_092, 9_857_024, 294_912, 102_912]
    for row, formula, n in zip(rows, FORMULAS, counted, strict=True):
        assert (int(row[2].replace(",", "")) == n) == (formula.why == "none")
