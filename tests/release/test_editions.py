from __future__ import annotations

import nbformat
import pytest

from labkit.release.editions import instructor, leaks, role, student


def test_the_instructor_edition_keeps_every_cell_and_every_solution(tiny):
    notebook = instructor(tiny)
    nbformat.validate(notebook)
    assert [role(cell) for cell in notebook.cells] == ["", "answer", "check", "", "hidden", ""]
    assert "return twice" in notebook.cells[1].source
    assert notebook.cells[1].metadata.labkit.points == 2


def test_the_student_edition_is_the_same_lab_with_a_stub_where_the_solution_was(tiny):
    notebook = student(tiny)
    nbformat.validate(notebook)
    assert [role(cell) for cell in notebook.cells] == ["", "answer", "check", "", ""]
    assert notebook.cells[1].source == (
        'def double(x):\n    """Twice x."""\n    raise NotImplementedError("double")'
    )
    assert all(
        cell.outputs == [] and cell.execution_count is None
        for cell in notebook.cells
        if cell.cell_type == "code"
    )
    assert notebook.cells[2].metadata.editable is False
    assert "twice = x" not in nbformat.writes(notebook)


def test_every_region_becomes_a_stub_and_the_scaffold_between_them_stays(edit):
    source = edit(
        "    ### END SOLUTION",
        "    ### END SOLUTION\n\nclass Other:\n    def f(self):\n"
        "        ### BEGIN SOLUTION\n        pass\n        ### END SOLUTION\n    def g(self): return 1",
    )
    stub = student(source).cells[1].source
    assert stub.endswith(
        'class Other:\n    def f(self):\n        raise NotImplementedError("double")\n'
        "    def g(self): return 1"
    )


def test_ids_name_exercises_and_survive_a_cell_that_is_put_before_them(tiny, edit):
    before = [cell.id for cell in instructor(tiny).cells]
    assert before[1:3] == ["double", "double-check"] and before == [
        cell.id for cell in instructor(tiny).cells
    ]
    after = [cell.id for cell in instructor(edit("# %% [markdown]", "# %%\n1 + 1\n\n# %% [markdown]")).cells]
    assert after[1:] == before
    assert {cell.id for cell in student(tiny).cells} < set(after)


def test_equal_cells_get_different_ids(edit):
    ids = [cell.id for cell in instructor(edit("double(3)", "1\n\n# %%\n1\n\n# %%\n1")).cells]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    "old, new, says",
    [
        ("    ### END SOLUTION\n", "", "never closed"),
        ("    ### BEGIN SOLUTION\n", "", "without its partner"),
        ("    ### BEGIN SOLUTION\n", "    ### BEGIN SOLUTION\n    ### BEGIN SOLUTION\n", "do not nest"),
        ("### BEGIN SOLUTION", "# BEGIN SOLUTION", "write the marker as"),
        ("### BEGIN SOLUTION", "### begin solution", "write the marker as"),
        ("    ### BEGIN SOLUTION", "### BEGIN SOLUTION", "indentation"),
        ("def double(x):", "def double(x:", "not valid Python"),
        ('"role": "answer", ', "", "needs a role"),
        ('"role": "answer"', '"role": "anwser"', "needs a role"),
        ('{"exercise": "double", "role": "answer", "points": 2}', '{"role": "answer"}', "needs the name"),
        (
            '"exercise": "double", "role": "answer"',
            '"exercise": "my double", "role": "answer"',
            "letters, digits",
        ),
        ('{"exercise": "double", "role": "check"}', '{"exercise": "double", "role": "answer"}', "two cells"),
        ("four = lab", "### BEGIN SOLUTION\n### END SOLUTION\nfour = lab", "would reach students"),
        (
            "    ### BEGIN SOLUTION\n    twice = x + x\n    assert twice - x == x\n    return twice\n"
            "    ### END SOLUTION\n",
            "    return 2 * x\n",
            "an answer cell needs",
        ),
    ],
)
def test_a_source_that_is_wrong_says_what_and_where(edit, old, new, says):
    with pytest.raises(ValueError, match=says) as error:
        student(edit(old, new))
    assert "01_tiny.py" in str(error.value)


def test_a_solution_shown_in_prose_or_code_of_the_student_edition_is_a_leak(tiny, edit):
    assert leaks(tiny) == []
    edit(
        "# # Two times two",
        "# # Two times two\n#\n# Write `twice = x + x; assert twice - x == x` and `return twice`.",
    )
    assert leaks(tiny) == []  # only pieces of it, in other words
    edit("double(3)", "def spoiler(x):\n    twice = x + x\n    assert twice - x == x\n    return twice")
    assert len(leaks(tiny)) == 1 and "double" in leaks(tiny)[0]
