"""The pytest plugin that makes nbval a grader: our kernel and options, and a verdict after the check cell."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import nbval.plugin
import pytest

from labkit.grading import evidence
from labkit.grading.jail import JailBroken, Limits, Zygote
from labkit.grading.kernel import JailedKernel
from labkit.grading.watch import Fault

ODD = Fault("odd", "its kernel sent messages that are none of Jupyter's")


class Plugin:
    """Grades the notebooks of one submission, one exercise and one fresh kernel each.

    `plans` maps a notebook's file name to its plan: exercise, expression, points, seeds, course, hide.
    `results` maps exercises to what was found, in plain values.
    """

    def __init__(
        self,
        zygote: Zygote,
        plans: dict[str, dict],
        exercises: dict,
        limits: Limits,
        ours: set[str] = frozenset(),
    ):
        self.zygote, self.plans, self.exercises, self.limits = zygote, plans, exercises, limits
        self.ours = ours  # the statements of our own cells
        self.results: dict[str, dict] = {}
        self.errors: dict[str, str] = {}  # what the answer's own cell raised

    def pytest_collection_modifyitems(self, items: list) -> None:
        for item in items:  # nbval would take its markers from comments in the student's text
            item.options.clear()
            item.options["check"] = False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item):
        """nbval's own setup of the file would start a kernel of its own choice; here it starts ours."""
        plan = self.plans[Path(item.fspath).name]
        nbval.plugin.RunningKernel = lambda *_, **__: JailedKernel(
            self.zygote, plan["course"], plan["hide"], self.limits
        )
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item):
        plan = self.plans[Path(item.fspath).name]
        role = item.cell.metadata["labkit"]["role"]
        stopped: BaseException | None = None
        try:
            result = yield
        except (Fault, JailBroken, nbval.plugin.NbCellError) as error:
            stopped = error
        except RuntimeError as error:
            dead = "Kernel dead" in str(error)
            stopped = Fault("died", "the kernel died between two cells") if dead else ODD
        except Exception:  # nbval read what the kernel sent
            stopped = ODD
        finally:
            item.parent.timed_out = False  # nbval would expect all later cells to fail
        if isinstance(stopped, Fault):
            self.results.setdefault(plan["exercise"], _stopped(stopped))
        elif isinstance(stopped, JailBroken):
            self.results[plan["exercise"]] = {"status": "doubt", "reason": str(stopped)[:300]}
        elif role == "prelude" and stopped:
            self.results[plan["exercise"]] = _prelude(_error(item), only_ours(item.cell.source, self.ours))
        elif role == "answer" and stopped:
            self.errors[plan["exercise"]] = _error(item)
        elif role == "check" and plan["exercise"] not in self.results:
            self.results[plan["exercise"]] = self._verdict(item, plan)
        if stopped:
            raise stopped
        return result

    def _verdict(self, item: Any, plan: dict) -> dict:
        exercise = self.exercises[plan["exercise"]]
        value = not inspect.signature(exercise.reference).parameters
        remote = evidence.Remote(item.parent.kernel, plan["exercise"], plan["expression"], value)
        try:
            with evidence.bounded():
                marks = evidence.judge(exercise, remote, plan["seeds"], plan["varies"])
                flag = evidence.wavers(exercise, remote, plan["seeds"][0])
        except evidence.TooMuch as error:
            return {"status": "graded", "score": 0.0, "reason": str(error), "flags": [], "marks": []}
        except Exception as error:  # a jail that broke, or our own reference: _challenge and _property catch
            return {"status": "doubt", "reason": f"{type(error).__name__}: {error}"[:300]}
        error = self.errors.get(plan["exercise"], "")
        reasons = [mark.reason for mark in marks]
        fault = next((reason for reason in reasons if reason.startswith("stopped: ")), "")
        if error:
            status, reason = "graded", f"its cell raised {error}"
        elif fault:
            status, reason = "fault", fault
        elif all(reason == evidence.STUB for reason in reasons):
            status, reason = "not attempted", evidence.STUB
        else:
            status, reason = "graded", ""
        return {
            "status": status,
            "score": evidence.score(marks, plan["points"]),
            "reason": reason,
            "flags": [flag] if flag else [],
            "marks": [{"name": m.name, "holds": m.holds, "reason": m.reason} for m in marks],
        }

    def pytest_runtest_logreport(self, report) -> None:
        """Whatever breaks outside a cell (a kernel that does not start) is our affair, not the student's."""
        if report.failed and report.when != "call":
            plan = self.plans[Path(report.fspath).name]
            reason = str(report.longrepr)[-300:]
            self.results.setdefault(plan["exercise"], {"status": "doubt", "reason": reason})


def _error(item: Any) -> str:
    """The exception that a cell showed, from nbval's record of its outputs."""
    found = [out for out in item.test_outputs or () if out.get("output_type") == "error"]
    return evidence.clean(f"{found[-1]['ename']}: {found[-1]['evalue']}") if found else "it failed"


def _stopped(fault: Fault) -> dict:
    return {"status": "fault", "score": 0.0, "reason": f"stopped: {fault}", "marks": []}


def only_ours(source: str, ours: set[str]) -> bool:
    """Whether all statements of a cell are among `ours`, which statements() made."""
    try:
        return statements(source) <= ours
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def statements(source: str) -> set[str]:
    """The statements of some code without comments and layout, each import of several names as several."""
    found = set()
    for one in ast.parse(source).body:
        parts = [one]
        if isinstance(one, ast.Import):
            parts = [ast.Import([alias]) for alias in one.names]
        elif isinstance(one, ast.ImportFrom):
            parts = [ast.ImportFrom(one.module, [alias], one.level) for alias in one.names]
        found |= {ast.unparse(part) for part in parts}
    return found


def _prelude(error: str, ours: bool) -> dict:
    """The cells before an answer failed: our doing if all in them is ours and no module in them was away."""
    if not ours or "while this exercise is graded" in error:
        return {"status": "graded", "score": 0.0, "reason": error, "marks": []}
    return {"status": "doubt", "reason": f"cells of the notebook that the answer needs: {error}"}
