"""How much a kernel took, counted from what was seen of its processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from labkit.grading.jail import Limits
from labkit.grading.watch import FILLS, Process, ProcessorTime, Watch


def process(used: float, reaped: float = 0.0, started: int = 1, running: bool = True) -> Process:
    return Process(
        parent=2, started=started, running=running, stopped=False, used=used, reaped=reaped, held=0
    )


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


class Jail:
    """Stands for a zygote whose kernel is some processes of this computer."""

    def __init__(self, *processes):
        self.proc, self.processes, self.sent = Path("/proc"), processes, []

    def students(self):
        return [one.pid for one in self.processes]

    def signal(self, number):
        self.sent.append(number)
        for one in self.processes:
            one.send_signal(number)


@pytest.fixture
def sleeper():
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"]) as process:
        yield process
        process.kill()


def test_processes_stand_still_while_they_are_counted_and_then_go_on(sleeper, monkeypatch):
    zygote = Jail(sleeper)
    watch = Watch(zygote, Limits())
    watch.base, states = 0, []
    exact = watch._exact
    monkeypatch.setattr(
        watch, "_exact", lambda found: states.append(watch._process(sleeper.pid)) or exact(found)
    )
    assert 0 < watch._stopped() < 1 << 30
    watch.stop()
    assert states[0].stopped and zygote.sent[-1] == signal.SIGCONT
    assert psutil.Process(sleeper.pid).status() != psutil.STATUS_STOPPED


def test_what_is_above_the_limit_does_not_go_on_before_it_is_ended(sleeper):
    zygote = Jail(sleeper)
    watch = Watch(zygote, Limits(memory=1 << 20))
    watch.base = 0
    watch.join(10)
    assert watch.fault.kind == "memory" and zygote.sent[-1] == signal.SIGKILL
    assert signal.SIGSTOP in zygote.sent and signal.SIGCONT not in zygote.sent


def test_processes_that_share_are_not_stopped_again_before_what_was_left_can_be_full(monkeypatch):
    watch = Watch(Jail(), Limits(memory=2 << 30))
    watch.stop()
    watch.base, counts = 0, []
    monkeypatch.setattr(watch, "_stopped", lambda: counts.append(1) or 1 << 30)
    many = {
        number: replace(process(0.0), held=1 << 30) for number in range(4)
    }  # 4 GB, if nothing were shared
    assert all(watch._memory(many) <= 2 << 30 for _ in range(5)) and len(counts) == 1
    watch.counted -= (1 << 30) / FILLS
    assert watch._memory(many) <= 2 << 30 and len(counts) == 2


def test_a_watch_that_fails_ends_the_kernel_and_says_so(sleeper, monkeypatch):
    zygote = Jail(sleeper)
    monkeypatch.setattr(Watch, "_excess", lambda *given: 1 / 0)
    watch = Watch(zygote, Limits())
    watch.join(10)
    assert isinstance(watch.error, ZeroDivisionError) and zygote.sent == [signal.SIGKILL]
