from __future__ import annotations

import json

import nbformat
import pytest

from labkit.grading import jail
from labkit.grading.release import release


@pytest.fixture(scope="session")
def lab_release(tmp_path_factory):
    """A release of lab 00, in which `dice` gives 3 points."""
    if why := jail.unusable():
        pytest.skip(f"no jail on this computer: {why}")
    folder = tmp_path_factory.mktemp("release")
    release(folder, ["00"])
    return folder


@pytest.fixture(scope="session")
def student_edition(lab_release) -> dict:
    path = lab_release / "student" / "00_welcome.ipynb"
    return json.loads(nbformat.writes(nbformat.read(path, as_version=4)))


@pytest.fixture(scope="session")
def hand_in(student_edition):
    """A notebook in which `dice` is answered by a text, and nothing else is."""

    def make(source: str) -> dict:
        notebook = json.loads(json.dumps(student_edition))
        next(cell for cell in notebook["cells"] if cell["id"] == "dice")["source"] = source
        return notebook

    return make
