"""What the processes of a kernel take, looked at by the clock, whatever the kernel says or does not say."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.grading import cgroup
from labkit.grading.jail import START_SECONDS, JailBroken

if TYPE_CHECKING:
    from labkit.grading.jail import Limits, Zygote

NEAR = 0.9  # of the limit of memory: from here on it is counted exactly, and growth is looked ahead
LOOK = 0.02  # seconds between two looks: two processors fill at most 5 % of 2 GB in between
TICKS, PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
FOLDERS = ("box", "tmp", "dev/shm")  # that a kernel may write into, in memory
HELD = ("RssAnon:", "RssShmem:", "VmSwap:", "VmPTE:")  # in /proc/PID/status; a shared page counts twice
SOCKET = int(
    Path("/proc/sys/net/core/wmem_default").read_text()
)  # bytes a socket buffers; seccomp.py holds it
EXACT = ("Pss_Anon:", "Pss_Shmem:", "SwapPss:")  # in smaps_rollup: as its share


class Fault(Exception):
    """What the student's code did to be stopped: time, memory, processes, output or death."""

    def __init__(self, kind: str, reason: str):
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True)
class Process:
    """One process at one look; `used` and `reaped` in seconds of processor time, `held` in bytes."""

    parent: int
    started: int
    running: bool
    used: float  # by itself
    reaped: float  # by the children it waited for
    held: int  # memory, with pages that it shares


class ProcessorTime:
    """Seconds that all processes of a kernel used, also children for which nobody waits.

    Linux adds a child's time to its parent's only when the parent waits for it; of one that is reaped by
    itself (SIGCHLD ignored) all is lost. So what was seen of a process stays counted when it is gone, and one
    that was running when last seen is taken to have gone on for half the time to the next look; for all of it
    if it was seen only once: of children shorter than that only some are seen, and stand for the others.
    """

    def __init__(self) -> None:
        self.seen: dict[tuple[int, int], tuple[Process, int]] = {}  # and how often
        self.gone = 0.0

    def add(self, found: dict[int, Process], since: float) -> float:
        """The seconds so far; `found`: processes by number, `since`: seconds since the last look."""
        now = {(number, one.started): one for number, one in found.items()}
        for key in self.seen.keys() - now.keys():
            one, looks = self.seen[key]
            self.gone += one.used + one.running * (since if looks == 1 else since / 2)
        self.seen = {key: (one, self.seen.get(key, (one, 0))[1] + 1) for key, one in now.items()}
        ours = self.gone + sum(one.used for one in now.values())
        return max(ours, sum(one.used + one.reaped for one in now.values()))


class Watch(threading.Thread):
    """Ends the kernel in a jail when it takes more than its limits or can't be watched; `fault` says why.

    A thread of the process that judges, because a kernel also works while nobody waits for it. `settle` is
    called when it is ready for a student: memory and wall time count from there. Memory is limited by Linux
    where we may make a control group, and counted where not.
    """

    def __init__(self, zygote: Zygote, limits: Limits):
        super().__init__(daemon=True)
        self.zygote, self.limits = zygote, limits
        self.fault: Fault | JailBroken | None = None
        self.over = threading.Event()
        self.time, self.last = ProcessorTime(), time.monotonic()
        self.started, self.wall = time.monotonic(), START_SECONDS
        self.base, self.init = 0, 0
        self.held = 0  # at the last look
        self.group: cgroup.Group | None = None
        self.start()

    def settle(self) -> None:
        found = self._processes()
        self.init = next((number for number in found if self._first(number)), 0)
        if group := cgroup.group(self.limits.memory):
            group.add(self.zygote.numbers())
            self.base = self._sockets()
            self.group = group
        else:
            self.base = self._exact(found) + self._beside()
        self.started, self.wall = time.monotonic(), self.limits.wall

    def last_look(self) -> Fault | JailBroken | None:
        """Why a kernel is gone, if it is for what it took; there may have been no look since."""
        self.over.set()
        self.join()
        self.fault = self.fault or self._excess(time.monotonic())
        return self.fault

    def stop(self) -> None:
        """Look no more; all processes of the kernel are gone."""
        self.over.set()
        self.join()
        if self.group:
            self.group.close()

    def run(self) -> None:
        pause = LOOK
        while not self.over.wait(pause):
            before = time.monotonic()
            try:
                self.fault = self._excess(before)
            except Exception as error:  # nobody watches any more: no kernel may go on
                self.fault = JailBroken(f"a kernel could not be watched ({type(error).__name__}: {error})")
            if self.fault:
                return self.zygote.strike()
            pause = max(LOOK, time.monotonic() - before)

    def _excess(self, now: float) -> Fault | None:
        limits, found = self.limits, self._processes()
        since, self.last = now - self.last, now
        if self.time.add(found, since) > limits.cpu:
            return Fault("time", f"it used more than {limits.cpu} seconds of processor time")
        if now - self.started > self.wall:
            return Fault("time", f"it did not end within {self.wall} seconds")
        if len(found) > limits.processes + 2:  # and process 1 and the kernel
            return Fault("processes", f"it started more than {limits.processes} processes")
        if self._overfull(found):
            return Fault("memory", f"it took more than {limits.memory >> 20} MB of memory")
        return None

    def _overfull(self, found: dict[int, Process]) -> bool:
        if self.group:  # Linux holds all but what lies in the buffers of sockets
            full = self.group.held() + self._sockets() - self.base > self.limits.memory
            return full or self.group.overfull()
        return bool(self.init) and self._fills(self._memory(found))

    def _fills(self, held: int) -> bool:
        """Whether the limit is passed, or is near and will be by the next look, if it goes on growing so."""
        grown, self.held = max(0, held - self.held), held
        return held > NEAR * self.limits.memory and held + grown > self.limits.memory

    def _memory(self, found: dict[int, Process]) -> int:
        """Bytes taken since `settle`; a bound that is cheap, and near the limit exactly."""
        beside = self._beside() - self.base
        most = sum(one.held for one in found.values()) + beside
        return most if most <= NEAR * self.limits.memory else self._exact(found) + beside

    def _processes(self) -> dict[int, Process]:
        found = {number: self._process(number) for number in self.zygote.students()}
        return {number: one for number, one in found.items() if one}

    def _process(self, number: int) -> Process | None:
        try:
            stat = self._file(number, "stat").rpartition(")")[2].split()  # a name may hold anything
            status = self._file(number, "status")
            parent, started, times = int(stat[1]), int(stat[19]), [int(each) / TICKS for each in stat[11:15]]
        except (OSError, IndexError):  # it ended meanwhile
            return None
        return Process(
            parent=parent,
            started=started,
            running=stat[0] == "R",
            used=sum(times[:2]),
            reaped=sum(times[2:]),
            held=_kilobytes(status, HELD),
        )

    def _first(self, number: int) -> bool:
        """Whether a process is number 1 of its own space."""
        lines = self._file(number, "status").splitlines()
        return next(line for line in lines if line.startswith("NSpid:")).split()[-1] == "1"

    def _exact(self, numbers) -> int:
        """Bytes of memory of some processes; of pages that several share, each its part."""
        total = 0
        for number in numbers:
            with contextlib.suppress(OSError):
                total += _kilobytes(self._file(number, "smaps_rollup"), EXACT)
                total += _kilobytes(self._file(number, "status"), ("VmPTE:",))
        return total

    def _beside(self) -> int:
        """Bytes in no process: in files, which lie in memory, and at most in the buffers of sockets."""
        total = 0
        with contextlib.suppress(OSError, ValueError, IndexError):  # it ended meanwhile
            for folder in FOLDERS:
                about = os.statvfs(self.zygote.proc / str(self.init) / "root" / folder)
                total += (about.f_blocks - about.f_bfree) * about.f_frsize
        return total + self._sockets()

    def _sockets(self) -> int:
        """Bytes that may lie in the buffers of sockets, at most."""
        with contextlib.suppress(OSError, ValueError, IndexError):  # it ended meanwhile
            return int(self._file(self.init, "net/sockstat").split()[2]) * SOCKET
        return 0

    def _file(self, number: int, name: str) -> str:
        return (self.zygote.proc / str(number) / name).read_text(errors="replace")


def _kilobytes(text: str, names: tuple[str, ...]) -> int:
    """The sum in bytes of some lines of a file of /proc: `RssAnon:     1234 kB`."""
    return sum(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith(names))
