"""Fixtures: a checkout with one tiny lab, made for a test."""

from __future__ import annotations

import pytest

from labkit.release import build, editions, workbook

TINY = '''\
# %% [markdown]
# # Two times two

# %% labkit={"exercise": "double", "role": "answer", "points": 2}
def double(x):
    """Twice x."""
    ### BEGIN SOLUTION
    twice = x + x
    assert twice - x == x
    return twice
    ### END SOLUTION

# %% labkit={"exercise": "double", "role": "check"}
from labkit.lessons import Challenge, Exercise, Lab
lab = Lab("01_tiny", {"double": Exercise(
    reference=lambda x: 2 * x,
    challenges=(Challenge("one", lambda: (1,)), Challenge("two", lambda: (2,))),
)})
lab.check("double", double)

# %%
four = lab.working("double", double)(2)
assert four == 4
print("four is", four)

# %% labkit={"exercise": "double", "role": "hidden"}
assert double(5) == 10

# %%
double(3)
'''


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """The folder of a checkout that holds notebooks/01_tiny.py and nothing else."""
    root = tmp_path / "checkout"
    (root / "notebooks").mkdir(parents=True)
    (root / "notebooks" / "01_tiny.py").write_text(TINY)
    monkeypatch.setattr(build, "checkout_root", lambda: root)
    monkeypatch.setattr(workbook, "checkout_root", lambda: root)
    return root


@pytest.fixture
def tiny(checkout):
    """The source of the tiny lab."""
    return checkout / "notebooks" / "01_tiny.py"


@pytest.fixture(scope="session")
def executed(tmp_path_factory):
    """The tiny lab's built notebook as text, executed once for all tests that only read it."""
    source = tmp_path_factory.mktemp("executed") / "01_tiny.py"
    source.write_text(TINY)
    notebook = build.execute(editions.instructor(source), cwd=source.parent, strict=True)
    return workbook.write_notebook(source.with_suffix(".ipynb"), notebook).read_text()


@pytest.fixture
def built(tiny, executed):
    """The tiny lab's notebook beside its source."""
    path = tiny.with_suffix(".ipynb")
    path.write_text(executed)
    return path


@pytest.fixture
def edit(tiny):
    """Replace a text in the source, which must occur there, and return the source."""

    def replace(old: str, new: str):
        text = tiny.read_text()
        assert old in text
        tiny.write_text(text.replace(old, new))
        return tiny

    return replace
