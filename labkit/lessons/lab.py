"""A lab as a notebook sees it: one line starts it, then it checks answers and gives hints."""

from __future__ import annotations

import importlib
import os
import pkgutil
import random
from dataclasses import dataclass, field
from typing import Any

from labkit import doctor, paths
from labkit.lessons.exercise import Exercise, check
from labkit.lessons.feedback import NOT_ATTEMPTED, PASS, Feedback, Message

SEED = 0


class NotSolved(AssertionError):
    """Raised where feedback is no pass and LABKIT_STRICT=1 is set, as when notebooks are built and tested."""


@dataclass
class Lab:
    """The exercises of one lab and what this kernel knows of their state; nothing is kept on disk."""

    name: str
    exercises: dict[str, Exercise]
    feedback: dict[str, Feedback] = field(default_factory=dict)  # the latest per exercise
    hints: dict[str, int] = field(default_factory=dict)  # how many were given

    def check(self, name: str, answer: Any) -> Feedback:
        """Say whether an answer is right and, if not, why not; a wrong answer never stops the notebook."""
        self.feedback[name] = check(name, self._exercise(name), answer)
        if os.environ.get("LABKIT_STRICT") == "1" and not self.feedback[name]:
            raise NotSolved(str(self.feedback[name]))
        return self.feedback[name]

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
        if not hints:
            return Message(f"{name}: there are no hints for this one.")
        given = min(self.hints.get(name, 0) + 1, len(hints))
        self.hints[name] = given
        last = " It is the last one." if given == len(hints) else ""
        lines = tuple((f"{i}", hint) for i, hint in enumerate(hints[:given], start=1))
        return Message(f"{name}: hint {given} of {len(hints)}.{last}", lines)

    def progress(self) -> Message:
        """Which exercises are solved, as this kernel saw them checked last."""
        states = {
            name: self.feedback[name].status if name in self.feedback else NOT_ATTEMPTED
            for name in self.exercises
        }
        solved = sum(state == PASS for state in states.values())
        lines = tuple((state, name + self._hints_used(name)) for name, state in states.items())
        return Message(f"{self.name}: {solved} of {len(states)} solved", lines)

    def _hints_used(self, name: str) -> str:
        return f" ({_counted(self.hints[name], 'hint')} used)" if name in self.hints else ""

    def _exercise(self, name: str) -> Exercise:
        if name not in self.exercises:
            raise ValueError(
                f"{self.name} has no exercise {name!r}; it has {', '.join(self.exercises) or 'none'}."
            )
        return self.exercises[name]


def start(lab: str) -> Lab:
    """Open a lab by its number ("02"): seeds set, this computer looked at, one line printed."""
    import numpy as np
    import torch

    found = _module(lab)
    opened = Lab(found.removeprefix("lab"), exercises(lab))
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)
    print(f"Lab {opened.name}: {_counted(len(opened.exercises), 'exercise')}, seed {SEED}; {_computer()}")
    return opened


def exercises(lab: str) -> dict[str, Exercise]:
    """The exercises of a lab, by its number ("02") or its name ("02_transfer"); ValueError lists the labs."""
    return importlib.import_module(f"labkit.lessons.{_module(lab)}").EXERCISES


def labs() -> list[str]:
    """The names of all labs that have exercises, as "02_transfer"."""
    from labkit import lessons

    names = (module.name for module in pkgutil.iter_modules(lessons.__path__))
    return sorted(
        name.removeprefix("lab") for name in names if name.startswith("lab") and name[3:4].isdigit()
    )


def _module(lab: str) -> str:
    for name in labs():
        if lab == name or lab.zfill(2) == name.split("_")[0]:
            return f"lab{name}"
    raise ValueError(f"There is no lab {lab!r}; there are {', '.join(labs()) or 'none yet'}.")


def _computer() -> str:
    """What `labkit doctor` finds wrong among the things a lab needs, or that all is well."""
    lock = paths.PACKAGE.parent / "requirements.lock"
    found = [doctor.packages(lock), doctor.memory(), doctor.bundled(paths.data_dir())]
    wrong = [f"{one.name}: {one.detail} ({one.cure})" for one in found if one.status != "ok"]
    return "; ".join(wrong) if wrong else "packages, memory and data are fine."


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s'[: count != 1]}"
