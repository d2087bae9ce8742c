"""A lab as a notebook sees it: one line starts it, then it checks answers and gives hints."""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import random
import re
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from labkit import doctor, lessons, paths
from labkit.lessons import kernels, progress
from labkit.lessons.exercise import Exercise, check
from labkit.lessons.feedback import NOT_ATTEMPTED, PASS, Feedback, Line, Message

DIED = (
    "The last kernel of this lab was killed: memory ran out, or it was restarted in the middle of a cell. "
    "Your answers are safe in the notebook. If it happens again, close other labs and programs first."
)
LENT = (Line("But", "this is labkit's own, lent to later cells: run the cell of your answer, then this one"),)


class NotSolved(AssertionError):
    """Raised where feedback is no pass and LABKIT_STRICT=1 is set, as when notebooks are built and tested."""


@dataclass
class Lab:
    """The exercises of one lab and how they stand: what this kernel saw, and in a workbook what was kept."""

    name: str
    exercises: dict[str, Exercise]
    feedback: dict[str, Feedback] = field(default_factory=dict)  # the latest per exercise
    hints: dict[str, int] = field(default_factory=dict)  # how many were given

    def check(self, name: str, answer: Any) -> Feedback:
        """Say whether an answer is right and, if not, why not; a wrong answer never stops the notebook."""
        exercise = self._exercise(name)
        lent = answer is exercise.reference and not self.feedback.get(name, True)  # by `working`, earlier
        feedback = replace(self.feedback[name], lines=LENT) if lent else check(name, exercise, answer)
        self.feedback[name] = feedback
        if feedback.status != NOT_ATTEMPTED and not lent:
            progress.keep(Path.cwd(), self.name, name, feedback.status)
        if os.environ.get("LABKIT_STRICT") == "1" and not feedback:
            raise NotSolved(str(feedback))
        return feedback

    def working(self, name: str, answer: Any) -> Any:
        """The answer itself when it passes its check, else the course's own, so that later cells work."""
        exercise = self._exercise(name)
        if self.check(name, answer):
            return answer
        print(f"{name}: not solved yet, so the following cells use labkit's own.")
        return exercise.reference() if exercise.asks_for_value else exercise.reference

    def hint(self, name: str) -> Message:
        """The next hint of an exercise, each clearer than the one before; asking costs nothing."""
        hints = self._exercise(name).hints
        given = self.hints[name] = min(self.hints.get(name, 0) + 1, len(hints))
        lines = tuple(Line(str(i), hint) for i, hint in enumerate(hints[:given], start=1))
        return Message(f"{name}: hint {given} of {len(hints)}", lines)

    def reset(self, name: str) -> None:
        """Begin an exercise again: run this as the first line of the answer's own cell.

        The stub comes back in that cell, and the answer stays below it as a comment. From another cell
        nothing changes. What was done, or is to be done, is printed.
        """
        from IPython import get_ipython

        from labkit.release import carry, workbook

        self._exercise(name)
        shell = get_ipython()
        asked = shell.kernel.get_parent() if hasattr(shell, "kernel") else {}
        if asked.get("metadata", {}).get("cellId") != name:
            call = f'lab.reset("{name}")'
            how = f"put {call} in the first line of the answer's own cell and run it"
            closed = f"or close this lab, and type `labkit reset {self.name[:2]} {name}` in a terminal"
            print(f"{name}: nothing was changed. To begin again, {how}, {closed}.")
            return
        lines = asked["content"]["code"].splitlines()
        answer = "\n".join(line for line in lines if not re.match(r"\s*lab\.reset\(", line))
        stub = workbook.stub_of(self.name, name)
        text = stub if answer.strip() == stub.strip() else carry.kept(stub, answer)
        shell.set_next_input(text, replace=True)
        print(f"{name}: begin again. Your answer stays below the stub, as a comment.")

    def progress(self) -> Message:
        """Which exercises are solved, as they were checked last, in this kernel or on an earlier day."""
        lines, kept = [], progress.read(Path.cwd()).get(self.name, {})
        for name in self.exercises:
            status = self.feedback[name].status if name in self.feedback else kept.get(name, NOT_ATTEMPTED)
            used = f" (hints used: {self.hints[name]})" if name in self.hints else ""
            lines.append(Line(status, name + used))
        solved = sum(line.label == PASS for line in lines)
        return Message(f"{self.name}: {solved} of {len(lines)} solved", tuple(lines))

    def _exercise(self, name: str) -> Exercise:
        if name not in self.exercises:
            raise ValueError(f"{self.name} has no exercise {name!r}; it has {', '.join(self.exercises)}.")
        return self.exercises[name]


def start(lab: str) -> Lab:
    """Open a lab by its number ("02"): seeds set, this computer looked at, one line printed."""
    opened = Lab(paths.lab_named(lab, labs()), exercises(lab))
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    packages = doctor.packages(paths.PACKAGE.parent / "requirements.lock")
    memory = doctor.memory()
    others, died = kernels.register(Path.cwd(), opened.name)
    if memory.status != "ok" and others:
        cure = (
            f"these labs are open too and hold memory: {', '.join(others)}; Kernel, Shut Down in their tabs"
        )
        memory = replace(memory, cure=cure)
    looked = (packages, memory, doctor.bundled(paths.data_dir()))
    wrong = [f"{one.name}: {one.detail} ({one.cure})" for one in looked if one.status != "ok"]
    state = "; ".join(wrong) or "packages, memory and data are fine."
    print(f"Lab {opened.name}: {len(opened.exercises)} exercises, seed 0; {state}")
    if networks := sys.modules.get("labkit.networks.backbones"):  # this lab has some: timm before the freeze
        networks.vision_transformers()
    if not gc.get_freeze_count():  # started again, explorers would stay, too
        gc.freeze()  # what the imports made stays: looking through it again would stop a slider for a moment
        atexit.register(gc.freeze)  # and would keep a kernel that ends for two seconds
    if died:
        print(DIED)
    if any(Path.cwd().glob(f"{opened.name} (*).ipynb")):  # rare, and what looks closer takes half a second
        from labkit.release import workbook

        if newer := workbook.newer(Path.cwd(), opened.name, os.environ.get("JPY_SESSION_NAME", "")):
            print(f"A newer edition of this lab lies beside it, with your answers in it: {newer}")
    return opened


def exercises(lab: str) -> dict[str, Exercise]:
    """The exercises of a lab, by its number ("02") or its name ("01_transfer"); ValueError lists the labs."""
    return importlib.import_module(f"labkit.lessons.lab{paths.lab_named(lab, labs())}").EXERCISES


def labs() -> list[str]:
    """The names of all labs that have exercises, as "01_transfer"."""
    files = (file for folder in lessons.__path__ for file in Path(folder).glob("lab[0-9]*/__init__.py"))
    return sorted(file.parent.name.removeprefix("lab") for file in files)
