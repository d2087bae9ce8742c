"""A worker grades submissions on a bench, a process with a warm jail; here or on a cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from labkit import paths
from labkit.grading import intake, jail
from labkit.grading.jail import Limits
from labkit.grading.release import Release

LEAN = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}  # autograd then starts no threads
TRIES = 2  # a doubt about our own machinery is looked at once more before it is written down
LEAST_ROOM = 16 << 20  # bytes: with less on its disk, a bench may fail where nobody sees the reason
FULL = (
    f"the disk of {{folder}} has less than {LEAST_ROOM >> 20} MB left: make room and run the same command "
    "again; what is graded already stays."
)


class NoJail(RuntimeError):
    """Students' code cannot be jailed here, so nothing was graded; the command exits with 3."""


class Worker:
    """Grades with a bench in `folder`, made when there is something to grade, and anew when it has ended.

    `number` is its own among the workers of a computer; `outside` are paths that no student may see.
    """

    def __init__(self, number: int, found: Release, folder: Path, outside: Sequence[Path], limits: Limits):
        self.number, self.found, self.folder = number, found, folder
        self.outside, self.limits, self.bench = outside, limits, None

    def grade(self, one: intake.Submission) -> dict:
        """Its result. NoJail when the jail leaks, OSError when the disk is full: then no result is sure."""
        for _ in range(TRIES):
            self.bench = self.bench or _Bench(self.number, self.found, self.folder, self.outside, self.limits)
            result = self.bench.ask(one)
            if shutil.disk_usage(self.folder).free < LEAST_ROOM:
                raise OSError(FULL.format(folder=self.folder.parent))
            if result["status"] != "doubt":
                break
            if not self.bench.works():
                self.close()
        return result

    def close(self) -> None:
        if self.bench:
            self.bench.close()
            self.bench = None


class _Bench:
    """A bench_process.py in a process of its own, and the two pipes to it."""

    def __init__(self, number: int, found: Release, folder: Path, outside: Sequence[Path], limits: Limits):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        root = str(paths.PACKAGE.parent)
        code = (
            f"import sys; sys.path.insert(0, {root!r}); from labkit.grading.bench_process import main; main()"
        )
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
            "outside": [*map(str, outside), str(paths.PACKAGE / "grading" / "grade.py")],
        }
        answer = self._exchange(setup)
        self.ready = "ready" in answer
        if escapes := answer.get("escapes"):
            self.close()
            raise NoJail(jail.REFUSAL.format(why=f"a probe inside the jail {'; '.join(escapes)}."))

    def works(self) -> bool:
        return self.ready and self.process.poll() is None

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
