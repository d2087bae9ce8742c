"""Grade a folder of notebooks: many jails at once, one ledger, the same bytes however often it is killed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from labkit import paths
from labkit.grading import intake, jail, ledger
from labkit.grading.jail import Limits
from labkit.grading.release import Release, load

MEMORY_PER_BENCH = 3 << 30
DEFAULT = Limits()
LEAN = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}  # autograd then starts no threads
TRIES = 2  # a doubt about our own machinery is looked at once more before it is written down


class NoJail(RuntimeError):
    """Students' code cannot be jailed here, so nothing was graded; the command exits with 3."""


def grade(
    submissions: Path,
    release: Path,
    out: Path,
    lab: str | None = None,
    workers: int | None = None,
    limits: Limits = DEFAULT,
    progress: bool = True,
) -> Path:
    """Grade the notebooks in `submissions` against a release, into `out`, and return out/scores.csv.

    What `out` holds already is not graded again; doubts are. NoJail when students' code cannot be contained
    on this computer, ValueError for a folder that is no release or has no notebooks.
    """
    return _run(submissions, release, out, lab, workers, limits, progress, why="")


def regrade(submissions: Path, release: Path, out: Path, why: str, lab: str | None = None, **options) -> Path:
    """Grade all again, for a reason that is written down with every new line; old lines stay."""
    if not why.strip():
        raise ValueError("say why: the reason is kept in the ledger beside the new marks.")
    options = {"workers": None, "limits": DEFAULT, "progress": True, **options}
    return _run(submissions, release, out, lab, why=why.strip(), **options)


def _run(submissions, release, out, lab, workers, limits, progress, why) -> Path:
    from tqdm import tqdm

    if reason := jail.unusable():
        raise NoJail(jail.REFUSAL.format(why=reason))
    found, handed_in, out = load(Path(release), lab), intake.collect(Path(submissions)), Path(out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    with _alone(out):
        for part in out.glob(".*.part"):  # of a run that was killed
            part.unlink()
        book = ledger.Ledger(out)
        keys = [ledger.key(found.id, found.lab, one.student, one.sha256, why) for one in handed_in]
        todo = [(k, one) for k, one in zip(keys, handed_in, strict=True) if not book.final(k)]
        results: dict[str, dict] = {k: line for k, _ in todo if (line := book.ahead(k))}
        jobs = [(k, one) for k, one in todo if k not in results]
        with tqdm(total=len(todo), initial=len(results), unit="notebook", disable=not progress) as bar:
            turn = iter([k for k, _ in todo])
            due = _append_due(book, results, turn, next(turn, None))
            with contextlib.closing(_results(jobs, found, out, workers or cores(), limits)) as done:
                for key, one, result in done:  # closed, and its workers ended, even when the disk is full
                    results[key] = _line(key, one, found, result, why)
                    book.hold(results[key])
                    bar.update()
                    due = _append_due(book, results, turn, due)
        ledger.write_scores(out / "scores.csv", book.scores())
        shutil.rmtree(out / ".work", ignore_errors=True)
    return out / "scores.csv"


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
    bench = None
    try:
        while True:
            key, one = todo.get_nowait()
            for _ in range(TRIES):
                bench = bench or _Bench(number, found, out, limits)
                result = bench.ask(one)
                if result["status"] != "doubt":
                    break
                bench = bench.close()
            done.put((key, one, result))
    except queue.Empty:
        pass
    except BaseException as error:
        done.put(error)
    finally:
        if bench:
            bench.close()


class _Bench:
    """A bench.py in a process of its own, and the two pipes to it."""

    def __init__(self, number: int, found: Release, out: Path, limits: Limits):
        folder = out / ".work" / f"bench-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        root = str(paths.PACKAGE.parent)
        code = f"import sys; sys.path.insert(0, {root!r}); from labkit.grading.bench import main; main()"
        with open(folder / "log.txt", "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-c", code, str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
                env={**_environment(), **LEAN},
            )
        self.log = folder / "log.txt"
        setup = {
            "number": number,
            "lab": found.lab,
            "student": found.student,
            "exercises": found.exercises,
            "release": found.id,
            "key": found.key,
            "preload": jail.PRELOAD,
            "limits": dataclasses.asdict(limits),
            "outside": [str(out / "ledger.jsonl"), str(out), str(paths.PACKAGE / "grading" / "grade.py")],
        }
        answer = self._exchange(setup)
        self.ready = "ready" in answer
        if escapes := answer.get("escapes"):
            self.close()
            raise NoJail(jail.REFUSAL.format(why=f"a probe inside the jail {'; '.join(escapes)}."))

    def ask(self, one: intake.Submission) -> dict:
        if not self.ready:
            return {"status": "doubt", "reason": f"no jail could be set up: {self._last_words()}"}
        job = {**dataclasses.asdict(one), "path": str(one.path.resolve())}
        return self._exchange(job) or {"status": "doubt", "reason": f"a bench ended: {self._last_words()}"}

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def _exchange(self, message: dict) -> dict:
        try:
            print(json.dumps(message), file=self.process.stdin, flush=True)
            return json.loads(self.process.stdout.readline())
        except (OSError, ValueError):
            return {}

    def _last_words(self) -> str:
        return self.log.read_text(errors="replace").strip()[-300:] if self.log.exists() else ""


def _environment() -> dict[str, str]:
    """Ours, without what would change how pytest works."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}


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
