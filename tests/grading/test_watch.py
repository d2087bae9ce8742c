"""How much a kernel took, counted from what was seen of its processes."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace

import psutil
import pytest

from labkit.grading import jail
from labkit.grading.jail import JailBroken, Limits, Zygote
from labkit.grading.watch import Process, ProcessorTime, Watch


def process(used: float, reaped: float = 0.0, started: int = 1, running: bool = True) -> Process:
    return Process(parent=2, started=started, running=running, used=used, reaped=reaped, held=0)


def test_time_of_living_processes_and_of_waited_for_children_is_added():
    assert ProcessorTime().add({3: process(1.0, reaped=2.0), 4: process(0.5)}, 0.02) == 3.5


def test_time_of_a_child_that_nobody_waited_for_stays():
    time = ProcessorTime()
    for used in (0.2, 0.4):
        time.add({3: process(0.1), 4: process(used)}, 0.02)
    assert time.add({3: process(0.1)}, 0.02) == pytest.approx(0.1 + 0.4 + 0.01)


def test_a_child_that_was_waited_for_does_not_count_twice():
    time = ProcessorTime()
    for used in (0.2, 0.4):
        time.add({3: process(0.1), 4: process(used, running=False)}, 0.02)
    assert time.add({3: process(0.1, reaped=0.4)}, 0.02) == pytest.approx(0.5)


def test_short_children_of_which_only_some_are_seen_stand_for_all():
    time, look, life = ProcessorTime(), 20, 5  # milliseconds; one child after the other, without a pause
    for now in range(0, 10_000, look - 1):  # so that each age is met
        total = time.add({now // life: process((now % life) / 1000, started=now // life)}, (look - 1) / 1000)
    assert total == pytest.approx(10, rel=0.2)


def test_a_number_that_was_given_again_is_another_process():
    time = ProcessorTime()
    time.add({4: process(1.0, started=1, running=False)}, 0.02)
    assert time.add({4: process(0.5, started=9)}, 0.02) == 1.5


def watch(limit: int) -> Watch:
    """One that watches nobody."""
    made = Watch.__new__(Watch)
    made.limits, made.held = SimpleNamespace(memory=limit), 0
    return made


def test_memory_that_grows_past_the_limit_by_the_next_look_is_ended_before():
    fast = watch(1000)
    assert [fast._fills(held) for held in (300, 600, 890, 910)] == [False] * 4, "it has all but stopped"
    assert fast._fills(960), "50 more and another 50"
    assert watch(1000)._fills(1001)


def test_memory_far_from_the_limit_may_grow_as_fast_as_it_likes_and_a_slow_one_has_all_of_it():
    assert not watch(1000)._fills(899), "from nothing, in one look"
    slow = watch(1000)
    assert not any(slow._fills(held) for held in range(0, 1000))
    assert slow._fills(1000), "one more at each look"


@pytest.fixture
def sleeping():
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def struck(sleeping, monkeypatch) -> Zygote:
    """A jail of two processes, one of which ends when the other is about to be killed."""
    gone = subprocess.Popen(["true"])
    left = [psutil.Process(gone.pid), psutil.Process(sleeping.pid)]
    gone.wait()
    monkeypatch.setattr(jail, "_descendants", lambda pid: left)
    zygote = Zygote.__new__(Zygote)
    zygote.process, zygote.family = gone, []
    return zygote


def test_who_is_gone_already_does_not_save_the_others(sleeping, monkeypatch):
    struck(sleeping, monkeypatch).strike()
    assert sleeping.wait(5) == -9


def test_a_kernel_that_cannot_be_watched_is_ended_and_that_is_our_fault(sleeping, monkeypatch):
    def failing(self, now):
        raise ValueError("no such line")

    monkeypatch.setattr(Watch, "_excess", failing)
    unwatched = Watch(struck(sleeping, monkeypatch), Limits())
    assert sleeping.wait(5) == -9
    unwatched.stop()
    assert isinstance(unwatched.fault, JailBroken) and "ValueError: no such line" in str(unwatched.fault)


def test_a_process_whose_file_is_empty_has_ended(monkeypatch):
    monkeypatch.setattr(Watch, "_file", lambda self, number, name: "")
    assert watch(1)._process(1) is None


def test_wall_time_counts_from_where_a_student_begins(monkeypatch):
    monkeypatch.setattr(Watch, "_processes", lambda self: {})
    monkeypatch.setattr(Watch, "_overfull", lambda self, found: False)
    zygote = Zygote.__new__(Zygote)
    starting = Watch(zygote, Limits(wall=1))
    starting.over.set()
    starting.join()
    assert starting._excess(starting.started + 5) is None, "the kernel itself may take longer to start"
    starting.wall = starting.limits.wall  # as `settle` does
    assert "within 1 seconds" in str(starting._excess(starting.started + 5))
