"""The jobs of a class on a Dask cluster: notebooks go out, results come back.

A job says which release and brings the bytes of a submission, so workers need no folder of hand-ins; they
read the release themselves, so its key never travels. Every Dask worker keeps a warm bench between jobs, as a
local one does. A lost worker loses nothing: Dask gives its jobs to another, and their results are the same.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import shutil
import socket
import tempfile
import threading
from asyncio import CancelledError
from collections.abc import Iterator
from concurrent.futures import CancelledError as FutureCancelled
from pathlib import Path

from labkit.grading import intake, jail
from labkit.grading.jail import Limits
from labkit.grading.release import Release, load
from labkit.grading.worker import NoJail, Worker

AHEAD = 2  # jobs sent per thread of the cluster: one that runs, one that waits for it
FEWEST = 8  # jobs sent to a cluster that has no workers yet
CONNECT_SECONDS = 30
IDLE_SECONDS = 60  # a bench without work is closed after it, also when its grader was killed
NUMBERS = range(500, 4_000)  # of benches on one computer; a local grader counts from 0
LOST = (
    "the Dask scheduler {scheduler} was lost: run the same command again with one that runs; "
    "what is graded already stays."
)


class Unfit(ValueError):
    """A worker of the cluster cannot grade, with a sentence that names it."""


@dataclasses.dataclass(frozen=True)
class Setup:
    """Against what a worker grades; `release` is a folder that it can read."""

    release: str
    lab: str
    id: str
    limits: Limits


def results(jobs: list, found: Release, limits: Limits, release: Path, scheduler: str) -> Iterator[tuple]:
    """(key, submission, result) of every job, as they are finished, a bounded number of them on the way.

    OSError when there is no scheduler or it is lost, Unfit or NoJail when a worker cannot grade.
    """
    from distributed import as_completed

    setup, todo = Setup(str(release), found.lab, found.id, limits), iter(jobs)
    with _client(scheduler) as client:
        sent: dict = {}
        done = as_completed()
        while True:
            try:
                room = AHEAD * sum(client.nthreads().values()) or FEWEST
            except OSError as error:
                raise OSError(LOST.format(scheduler=scheduler)) from error
            for job in itertools.islice(todo, max(0, room - len(sent))):
                future = client.submit(grade_there, setup, job[1], _content(job[1]), pure=False)
                sent[future] = job
                done.add(future)
            if not sent:
                return
            future = next(done)
            yield *sent.pop(future), _result(future, scheduler)


def _client(scheduler: str):
    from distributed import Client

    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # of a lost scheduler we speak
    try:
        return Client(scheduler, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise OSError(
            f"no Dask scheduler answers at {scheduler}: give its address as `dask scheduler` prints it, "
            "tcp://HOST:8786."
        ) from error


def _content(one: intake.Submission) -> bytes:
    """What was handed in; nothing of a file that is too large to be read anyway."""
    if one.size > intake.LARGEST:
        return b""
    with open(intake._open(one.path), "rb") as file:
        return file.read(intake.LARGEST + 1)


def _result(future, scheduler: str) -> dict:
    from distributed import KilledWorker
    from distributed.comm import CommClosedError

    try:
        return future.result()
    except (NoJail, Unfit):
        raise
    except KilledWorker:
        return {"status": "doubt", "reason": "the workers that graded it were lost, one after the other"}
    except (CancelledError, FutureCancelled, CommClosedError) as error:
        raise OSError(LOST.format(scheduler=scheduler)) from error
    except Exception as error:
        raise Unfit(
            f"a worker of {scheduler} failed ({type(error).__name__}: {error}): workers need the labkit that "
            "grades here, installed with the same packages."
        ) from error


# what follows happens on the workers


class _Seat:
    """One of our workers inside a Dask worker."""

    def __init__(self, setup: Setup, scratch: Path):
        if reason := jail.unusable():
            raise NoJail(jail.REFUSAL.format(why=reason))
        found = _release(setup)
        self.setup, self.timer = setup, None
        self.claim, number = _claim()
        outside = [scratch, Path(setup.release) / "grading" / "bundle.json"]
        self.worker = Worker(number, found, scratch / f"bench-{number}", outside, setup.limits)

    def close(self) -> None:
        self.worker.close()
        self.claim.close()
        shutil.rmtree(self.worker.folder, ignore_errors=True)


_idle: list[_Seat] = []
_lock = threading.Lock()


def grade_there(setup: Setup, one: intake.Submission, content: bytes) -> dict:
    """The result of a submission with this content, from a warm bench if this process has one."""
    from distributed import get_worker

    address, scratch = get_worker().address, Path(get_worker().local_directory)
    try:
        return _grade(setup, one, content, scratch)
    except NoJail as error:
        raise NoJail(f"The worker {address} cannot grade. {error}") from None
    except (ValueError, OSError) as error:
        raise Unfit(f"the worker {address} cannot grade: {error}") from None


def _grade(setup: Setup, one: intake.Submission, content: bytes, scratch: Path) -> dict:
    seat = _take(setup) or _Seat(setup, scratch)
    try:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            path = Path(folder) / "hand-in.ipynb"
            path.write_bytes(content)
            result = seat.worker.grade(dataclasses.replace(one, path=path))
    except BaseException:
        seat.close()
        raise
    _give_back(seat)
    return result


def _take(setup: Setup) -> _Seat | None:
    """An idle seat for this setup; those of other labs make room."""
    with _lock:
        mine = next((seat for seat in _idle if seat.setup == setup), None)
        taken = [mine] if mine else list(_idle)
        for seat in taken:
            seat.timer.cancel()
            _idle.remove(seat)
    for seat in taken:
        if seat is not mine:
            seat.close()
    return mine


def _give_back(seat: _Seat) -> None:
    with _lock:
        seat.timer = threading.Timer(IDLE_SECONDS, _close_idle, [seat])
        seat.timer.daemon = True
        seat.timer.start()
        _idle.append(seat)


def _close_idle(seat: _Seat) -> None:
    with _lock:
        if seat not in _idle:
            return
        _idle.remove(seat)
    seat.close()


def _release(setup: Setup) -> Release:
    """As the worker's own disk has it; ValueError when that is not what the grader has."""
    try:
        found = load(Path(setup.release), setup.lab)
    except ValueError as error:
        raise ValueError(
            f"{error} The cluster's workers read the release, its grading part too, where the grader does."
        ) from error
    if found.id != setup.id:
        raise ValueError(f"{setup.release} is another release there than here: copy it to the workers again.")
    return found


def _claim() -> tuple[socket.socket, int]:
    """A number that no other bench on this computer has, for as long as the socket is open."""
    for number in NUMBERS:
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0labkit-bench-{number}")  # without a file, so it goes with the process
        except OSError:
            claim.close()
        else:
            return claim, number
    raise ValueError(f"{len(NUMBERS)} benches work on this computer already.")
