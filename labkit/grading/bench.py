"""A worker of the grader: it has imported everything once, owns one jail, and forks for every submission.

Reads a JSON line per submission on stdin and answers with one on stdout. What a student's file does to the
process that reads it ends with that process; a bench that loses its grader ends with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import hashlib
import hmac
import json
import os
import resource
import select
import shutil
import signal
import time
from pathlib import Path

from labkit.grading import evidence, intake, jail, probes, transplant
from labkit.grading.bench_process import die_with_parent, start_zygote
from labkit.grading.jail import JailBroken, Limits, Zygote
from labkit.release import editions

UNREADABLE = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


class Bench:
    def __init__(self, folder: Path, setup: dict, zygote: Zygote):
        self.folder, self.setup, self.limits = folder, setup, Limits(**setup["limits"])
        self.courses, self.zygote = folder / "courses", zygote

        import nbformat
        import nbval.plugin  # noqa: F401 - imported once, before the forks
        import pytest  # noqa: F401
        import torch

        from labkit.grading import plugin
        from labkit.lessons import exercises

        torch.set_num_threads(1)
        self.release = nbformat.reads(setup["student"], as_version=4)
        self.exercises = {
            name: with_hidden(exercise, setup["exercises"].get(name, {}).get("hidden", ""))
            for name, exercise in exercises(setup["lab"]).items()
        }
        self.ours = set().union(
            *(plugin.statements(cell.source) for cell in self.release.cells if _ours(cell))
        )
        order = [cell.id for cell in self.release.cells if editions.role(cell) == "answer"]
        self.plans = {name: self._plan(name, setup["exercises"][name]) for name in order}
        gc.freeze()  # forks share what is here for as long as nobody counts it again
        gc.enable()  # bench_process.py disabled it
        self.escapes = probes.escapes(self.zygote.ready(), self.courses, self.limits, setup["outside"])

    def grade(self, job: dict) -> dict:
        """The result for one submission, never an exception: what we cannot explain is a doubt."""
        if self.zygote is None:
            try:
                self.zygote = start_zygote(self.folder, self.setup).ready()
            except JailBroken as error:
                return {"status": "doubt", "reason": clean_doubt(error)}
        self.zygote.count += 1 + len(self.plans)  # the child counts its own kernels; no number twice
        seconds = evidence.JUDGING_SECONDS * (1 + len(self.plans))
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(ours)
            die_with_parent()
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
            try:
                result = self._grade(job)
            except BaseException as error:
                result = {"status": "doubt", "reason": clean_doubt(error)}
            with contextlib.suppress(BaseException):
                _write_all(theirs, json.dumps(result).encode())
            os._exit(0)
        os.close(theirs)
        text = _read_all(ours, time.monotonic() + (self.limits.wall + 60) * (1 + len(self.plans)))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        try:
            result = json.loads(text)
        except ValueError:
            result = {"status": "doubt", "reason": "the process that grades it ended early"}
            if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
                reason = f"reading and judging it took more than {seconds} seconds of processor time"
                result = {"status": "rejected", "reason": reason, "exercises": {}}
        self._clear()
        return result

    def _clear(self) -> None:
        """No process and no file of one submission is left for the next; a jail that does not answer goes."""
        try:
            self.zygote.kill()
        except JailBroken:
            self.zygote.close()
            self.zygote = None
        for path in (*self.folder.glob("sockets/*"), *self.folder.glob("kernel-*.json"), self.folder / "run"):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def _grade(self, job: dict) -> dict:
        import nbformat
        import pytest

        from labkit.grading.plugin import Plugin

        submission = intake.Submission(**{**job, "path": Path(job["path"]), "flags": tuple(job["flags"])})
        try:
            given = transplant.answers(intake.read(submission), self.release)
        except (intake.Rejected, *UNREADABLE) as error:
            reason = str(error) if isinstance(error, intake.Rejected) else _unreadable(error)
            return {"status": "rejected", "reason": reason, "exercises": {}}
        results: dict[str, dict] = {}
        plans: dict[str, dict] = {}
        run = self.folder / "run"
        run.mkdir()
        for name, plan in self.plans.items():
            if not transplant.attempted(given[name], self.release):
                missing = given[name].source is None
                reason = "the answer cell was not found" if missing else "its cell is empty or still the stub"
                results[name] = {"status": "missing" if missing else "not attempted", "reason": reason}
                continue
            try:
                notebook = transplant.notebook(given[name], given, self.release)
            except UNREADABLE as error:
                results[name] = {"status": "graded", "reason": _unreadable(error)}
                continue
            nbformat.write(notebook, run / f"{name}.ipynb")
            plans[f"{name}.ipynb"] = {**plan, "seeds": seeds(self.setup, name, submission.student)}
        (run / "pytest.ini").write_text("[pytest]\n")
        grader = Plugin(self.zygote, plans, self.exercises, self.limits, self.ours)
        if plans:
            options = [
                "-q",
                "-p",
                "no:cacheprovider",
                "-p",
                "no:unraisableexception",
                "-p",
                "no:warnings",
                "-p",
                "nbval.plugin",
                "--noconftest",
                "--tb=no",
                "--nbval-lax",
            ]
            options += ["-c", str(run / "pytest.ini"), "--rootdir", str(run)]
            pytest.main([*options, *(str(run / name) for name in plans)], plugins=[grader])
        results |= grader.results
        exercises = {}
        for name, plan in self.plans.items():
            found = results.get(name, {"status": "doubt", "reason": "it was not reached"})
            score = None if found["status"] == "doubt" else found.get("score", 0.0)
            exercises[name] = {
                "marks": [],
                **found,
                "score": score,
                "points": plan["points"],
                "flags": [*given[name].flags, *found.get("flags", ())],
            }
        doubt = any(one["status"] == "doubt" for one in exercises.values())
        return {"status": "doubt" if doubt else "graded", "reason": "", "exercises": exercises}

    def _plan(self, name: str, about: dict) -> dict:
        return {
            "exercise": name,
            "points": about["points"],
            "expression": transplant.expression(self.release, name),
            "varies": evidence.varies(self.exercises[name]),
            "course": jail.course(self.courses, about["hides"]),
            "hide": jail.masks(about["forbids"]),
        }


def _ours(cell) -> bool:
    """Whether a cell of the student's edition runs as we wrote it; a stub may come to be called."""
    return cell.cell_type == "code" and not editions.role(cell)


def with_hidden(exercise, source: str):
    """The exercise with the challenges of its hidden cell, a list named `challenges`, added."""
    if not source:
        return exercise
    import numpy as np
    import torch

    from labkit.lessons import Challenge

    space = {"Challenge": Challenge, "np": np, "torch": torch, "__name__": "hidden"}
    exec(source, space)
    return dataclasses.replace(exercise, challenges=(*exercise.challenges, *space["challenges"]))


def _unreadable(error: BaseException) -> str:
    return (
        f"the text of its cells could not be understood ({type(error).__name__}): it may be nested too deep"
    )


def seeds(setup: dict, exercise: str, student: str) -> list[int]:
    """Three seeds that nobody without the key can know, the same at every run."""
    text = "\n".join((setup["release"], setup["lab"], exercise, student))
    digest = hmac.digest(bytes.fromhex(setup["key"]), text.encode(), hashlib.sha256)
    return [int.from_bytes(digest[i : i + 4], "big") >> 2 for i in (0, 4, 8)]


def clean_doubt(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300]


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _read_all(fd: int, end: float) -> bytes:
    data = b""
    while select.select([fd], [], [], max(0, end - time.monotonic()))[0]:
        part = os.read(fd, 1 << 16)
        if not part:
            break
        data += part
    os.close(fd)
    return data
