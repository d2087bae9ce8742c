from __future__ import annotations

import json
import os

import nbformat
import pytest

from labkit.grading import jail
from labkit.grading.release import release


@pytest.fixture(scope="session")
def jailed():
    """Skips where students' code cannot be jailed, as on macOS and Windows."""
    if why := jail.unusable():
        assert os.environ.get("LABKIT_REQUIRE_JAIL") != "1", why
        pytest.skip(f"no jail on this computer: {why}")


@pytest.fixture(scope="session")
def released(tmp_path_factory):
    """A release of all labs."""
    folder = tmp_path_factory.mktemp("release")
    release(folder)
    return folder


@pytest.fixture
def edition(released):
    """A notebook of the release, as a dictionary: edition("student", "00_welcome")."""

    def read(which: str, lab: str) -> dict:
        return json.loads(nbformat.writes(nbformat.read(released / which / f"{lab}.ipynb", as_version=4)))

    return read
