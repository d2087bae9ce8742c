"""Grade a folder of notebooks: many jails at once, one ledger, the same bytes however often it is killed."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import shutil
import threading
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

from labkit.grading import intake, jail, ledger
from labkit.grading.jail import Limits
from labkit.grading.release import Release, load
from labkit.grading.worker import FULL, NoJail, Worker

GIVEN_UP = "{} No verdict in {runs} runs: it is graded once more only by `labkit grade --again`."
MEMORY_PER_BENCH = 3 << 30
DEFAULT = Limits()


def grade(
    submissions: Path,
    release: Path,
    out: Path,
    lab: str | None = None,
    workers: int | None = None,
    limits: Limits = DEFAULT,
    progress: bool = True,
    scheduler: str | None = None,
    again: bool = False,
) -> Path:
    """Grade the notebooks in `submissions` against a release, into `out`, and return out/scores.csv.

    With the address of a Dask cluster's scheduler, the notebooks are run by its workers and not here. What
    `out` holds already is not graded again; doubts are, in ledger.DOUBTS runs, with `again` in any. NoJail
    when students' code cannot be contained where it is to run, ValueError for a folder that is no release or
    has no notebooks, OSError for a full disk or a cluster that is lost.
    """
    return _run(submissions, release, out, lab, workers, limits, progress, scheduler, why="", again=again)


def regrade(submissions: Path, release: Path, out: Path, why: str, lab: str | None = None, **options) -> Path:
    """Grade all again, for a reason that is written down with every new line; old lines stay."""
    if not why.strip():
        raise ValueError("say why: the reason is kept in the ledger beside the new marks.")
    options = {"workers": None, "limits": DEFAULT, "progress": True, "scheduler": None, **options}
    return _run(submissions, release, out, lab, why=why.strip(), **options)


def _run(submissions, release, out, lab, workers, limits, progress, scheduler, why, again=False) -> Path:
    if scheduler and workers:
        raise ValueError("give workers or a scheduler, not both: a cluster knows its own workers.")
    if not scheduler and (reason := jail.unusable()):
        raise NoJail(jail.REFUSAL.format(why=reason))
    found, handed_in, out = load(Path(release), lab), intake.collect(Path(submissions)), Path(out).resolve()
    if scheduler:
        from labkit.grading.cluster import results

        where = partial(results, release=Path(release).resolve(), scheduler=scheduler)
    else:
        where = partial(_results, out=out, workers=workers or cores())
    try:
        out.mkdir(parents=True, exist_ok=True)
        with _alone(out):
            _grade_all(
                handed_in, found, out, partial(where, found=found, limits=limits), progress, why, again
            )
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(FULL.format(folder=out)) from error
        raise
    return out / "scores.csv"


def _grade_all(
    handed_in: list, found: Release, out: Path, where, progress: bool, why: str, again: bool = False
) -> None:
    """`where(jobs)` yields (key, submission, result) in any order; the ledger is in that of the hand-ins."""
    from tqdm import tqdm

    for part in out.glob(".*.part"):  # of a run that was killed
        part.unlink()
    book = ledger.Ledger(out)
    book.expect(handed_in)
    keys = [ledger.key(found.id, found.lab, one.student, one.sha256, why) for one in handed_in]
    todo = [(k, one) for k, one in zip(keys, handed_in, strict=True) if not book.final(k, again)]
    results: dict[str, dict] = {k: line for k, _ in todo if (line := book.ahead(k))}
    jobs = [(k, one) for k, one in todo if k not in results]
    with tqdm(total=len(todo), initial=len(results), unit="notebook", disable=not progress) as bar:
        turn = iter([k for k, _ in todo])
        due = _append_due(book, results, turn, next(turn, None))
        with contextlib.closing(where(jobs)) as done:
            for key, one, result in done:  # closed, and its workers ended, even when the disk is full
                if result["status"] == "doubt" and (doubts := book.doubts(key) + 1) >= ledger.DOUBTS:
                    result = {**result, "reason": GIVEN_UP.format(result["reason"], runs=doubts).strip()}
                results[key] = _line(key, one, found, result, why)
                book.hold(results[key])
                bar.update()
                due = _append_due(book, results, turn, due)
    ledger.write_scores(out / "scores.csv", book.scores())
    shutil.rmtree(out / ".work", ignore_errors=True)


def cores() -> int:
    """How many jails fit into this computer's processors and free memory."""
    import psutil

    return max(1, min(len(os.sched_getaffinity(0)), psutil.virtual_memory().available // MEMORY_PER_BENCH))


def _append_due(book: ledger.Ledger, results: dict, turn: Iterator[str], due: str | None) -> str | None:
    """Write down what has its turn, and return whose turn it is next."""
    while due in results:
        book.append(results.pop(due))
        due = next(turn, None)
    return due


def _line(key: str, one: intake.Submission, found: Release, result: dict, why: str) -> dict:
    points = sum(about["points"] for about in found.exercises.values())
    exercises = result.get("exercises", {})
    score = None if result["status"] == "doubt" else round(sum(e["score"] for e in exercises.values()), 2)
    return {
        "key": key,
        "student": one.student,
        "submitter": asdict(one.submitter),
        "file": one.file,
        "sha256": one.sha256,
        "lab": found.lab,
        "release": found.id,
        "package": found.package,
        "status": result["status"],
        "reason": result["reason"],
        "score": score,
        "points": points,
        "flags": list(one.flags),
        "exercises": exercises,
        **({"why": why} if why else {}),
    }


def _results(jobs: list, found: Release, out: Path, workers: int, limits: Limits) -> Iterator[tuple]:
    """(key, submission, result) of every job, as they are finished."""
    todo: queue.Queue = queue.Queue()
    done: queue.Queue = queue.Queue()
    for job in jobs:
        todo.put(job)
    threads = [
        threading.Thread(target=_work, args=(number, todo, done, found, out, limits), daemon=True)
        for number in range(min(workers, len(jobs)))
    ]
    for thread in threads:
        thread.start()
    try:
        for _ in jobs:
            got = done.get()
            if isinstance(got, BaseException):
                raise got
            yield got
    finally:
        with contextlib.suppress(queue.Empty):
            while True:
                todo.get_nowait()
        for thread in threads:
            thread.join()


def _work(
    number: int, todo: queue.Queue, done: queue.Queue, found: Release, out: Path, limits: Limits
) -> None:
    folder = out / ".work" / f"bench-{number}"
    worker = Worker(number, found, folder, [out / "ledger.jsonl", out], limits)
    try:
        while True:
            key, one = todo.get_nowait()
            done.put((key, one, worker.grade(one)))
    except queue.Empty:
        pass
    except BaseException as error:
        done.put(error)
    finally:
        worker.close()


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Only one grader works in a folder at a time."""
    import fcntl

    with open(out / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"another grader works in {out}: wait for it, or give another folder.") from None
        yield
