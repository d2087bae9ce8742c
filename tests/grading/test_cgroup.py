"""The limit of memory, held by Linux's control groups where there are some and counted where not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from labkit.grading import cgroup
from labkit.grading.jail import Limits, Zygote, course
from labkit.grading.probes import MEMORY_OF_MANY, _inside, _said
from labkit.grading.watch import Fault

FILL = "import sys; sys.stdin.readline(); held = [b'x' * (1 << 20) for _ in range({0})]; sys.stdin.readline()"


def filling(megabytes: int) -> subprocess.Popen:
    """A process that fills so much memory when it is told to, and holds it."""
    return subprocess.Popen([sys.executable, "-c", FILL.format(megabytes)], stdin=subprocess.PIPE)


@pytest.fixture
def group():
    if not (made := cgroup.group(100 << 20)):
        pytest.skip("this user can make no control group here")
    yield made
    made.close()
    assert not made.folder.exists()


def told(*processes: subprocess.Popen) -> list[int]:
    """How they ended, after all of them were told to begin."""
    for process in processes:
        process.stdin.write(b"\n")
        process.stdin.flush()
    return [process.wait(30) for process in processes if not process.stdin.close()]


def test_what_fits_into_the_limit_stays(group):
    one = filling(50)
    group.add([one.pid])
    assert told(one) == [0] and not group.overfull()


def test_two_processes_that_fill_it_together_do_not_pass_it(group):
    two = filling(70), filling(70)
    group.add([process.pid for process in two])
    assert -9 in told(*two) and group.overfull()


def test_two_groups_have_two_places_and_the_dead_are_no_error(group):
    other, gone = cgroup.group(100 << 20), filling(1)
    told(gone)
    other.add([gone.pid])
    assert other.folder != group.folder and not other.overfull()
    other.close()


@pytest.mark.parametrize("held_by", ["Linux, if it can", "counting"])
def test_processes_of_a_kernel_that_fill_memory_together_are_ended(jailed, tmp_path, monkeypatch, held_by):
    if held_by == "counting":
        monkeypatch.setattr(cgroup, "group", lambda memory: None)
    (tmp_path / "courses").mkdir()
    course(tmp_path / "courses", [])
    with _inside(tmp_path) as folder:
        zygote = Zygote(folder, folder / "courses", preload=("ipykernel.kernelapp",)).ready()
        try:
            with pytest.raises(Fault, match="more than 1024 MB of memory"):
                _said(zygote, folder / "courses", Limits(memory=1 << 30, wall=20), MEMORY_OF_MANY)
        finally:
            zygote.close()
