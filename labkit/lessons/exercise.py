"""An exercise: what is asked, how an answer is tried, and the mistakes that are known by name.

@mistake("You divided by the union: that is the Jaccard index, not Dice.")
def jaccard(p, t):
    return (p & t).sum() / (p | t).sum()

EXERCISE = Exercise(
    reference=metrics.dice,
    challenges=(Challenge("two voxels, one of them found", two_voxels),),
    properties={"is symmetric": is_symmetric},
    mistakes=(jaccard,),
    hints=("Count twice what both have.", "2|P and T| / (|P| + |T|)", "2 * (p & t).sum() / ..."),
)
"""

from __future__ import annotations

import contextlib
import inspect
import io
import random
import sysconfig
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from labkit.lessons.compare import alike, difference, kind, show
from labkit.lessons.feedback import NOT_ATTEMPTED, NOT_YET, PASS, Feedback, Line

LIBRARIES = (Path(sysconfig.get_path("stdlib")), Path(torch.__file__).parents[1], Path(__file__).parents[1])
FORM = ("type", "names", "shape", "dtype")  # aspects of a difference that come before any finer property


class Unfit(TypeError):
    """Raised by an exercise's `result` or property with a sentence for the student, who reads it as it is."""


@dataclass(frozen=True)
class Challenge:
    """Inputs an answer is tried on, built afresh at each call of `inputs`; random numbers are seeded."""

    description: str
    inputs: Callable[[], tuple] = tuple


@dataclass(frozen=True)
class Mistake:
    """A misconception: the sentence that names it, and an answer that has it (it may raise an error)."""

    says: str
    code: Callable


def mistake(says: str) -> Callable[[Callable], Mistake]:
    """Written above a wrong answer, a function or a class: it becomes the `Mistake` that `says` this."""
    return lambda code: Mistake(says, code)


@dataclass(frozen=True)
class Exercise:
    """One thing to write: a function, a class, or (with a reference without parameters) a value."""

    reference: Callable  # the course's own answer
    challenges: tuple[Challenge, ...] = (Challenge("your value"),)  # the smallest first
    mistakes: tuple[Mistake, ...] = ()  # of two that behave alike, the first is named
    hints: tuple[str, ...] = ()  # a nudge, the formula, the line
    # name: property(answer, output, *inputs) that returns None, or the counter-example in words
    properties: Mapping[str, Callable] = field(default_factory=dict)
    # result(output, *inputs), after the call, is what is compared with the reference's
    result: Callable = lambda output, *inputs: output
    # inputs to be changed in place: each must end just as the reference leaves it, all others untouched
    changes: tuple[str, ...] = ()

    @property
    def asks_for_value(self) -> bool:
        """Whether a value is asked for, not a function."""
        return not inspect.signature(self.reference).parameters


@dataclass
class Trial:
    """What an answer did on one challenge."""

    before: tuple
    inputs: tuple  # as the answer left them
    output: Any = ...  # until the answer returns
    result: Any = None
    error: BaseException | None = None  # of the answer or, where it returned, of the exercise's `result`
    printed: str = ""


def check(name: str, exercise: Exercise, answer: Any) -> Feedback:
    """Try an answer on every challenge, smallest first, and say what the first failing one shows."""
    if answer is None or answer is ...:
        return _not_attempted(name)
    if exercise.asks_for_value and not inspect.isroutine(answer):
        value, answer = answer, lambda: value
    if not callable(answer):
        given = f"{show(answer)} is {kind(answer)}; pass the function itself: lab.check({name!r}, {name})"
        return _not_yet(name, [Line("Property", "is a function"), Line("But", given)])
    for i, challenge in enumerate(exercise.challenges):
        trial = _try(challenge, answer, exercise.result)
        if isinstance(trial.error, NotImplementedError) and str(trial.error) in ("", name):  # the stub's own
            return _not_attempted(name)
        if shown := _failure(exercise, answer, challenge, trial):
            return _not_yet(name, shown, _mistake(exercise, answer, i))
    return Feedback(f"{PASS}: {name}", (Line("Challenges", str(len(exercise.challenges))),), PASS, name)


def _not_attempted(name: str) -> Feedback:
    do = "replace the line `raise NotImplementedError` by your answer, run the cell, then run this one again"
    return Feedback(f"{NOT_ATTEMPTED} so far: {name}", (Line("Do", do),), NOT_ATTEMPTED, name)


def _not_yet(name: str, shown: list[Line], mistake: str = "") -> Feedback:
    looks = [Line("Looks like", mistake)] if mistake else []
    lines = (*shown, *looks, Line("Stuck?", f"lab.hint({name!r})"))
    return Feedback(f"{NOT_YET}: {name}", lines, NOT_YET, name, shown[0].text, mistake)


def _error_lines(error: BaseException) -> list[Line]:
    """An error, and the last line of the student's own code that it came through."""
    lines = [Line("But", f"{type(error).__name__}: {error}")]
    if at := _own_line(error):
        return [*lines, Line("At", f"line {at.lineno} of your cell: {at.line}")]
    return lines


def _own_line(error: BaseException) -> traceback.FrameSummary | None:
    """The last line of the student's own code that an error came through; None if it is the check's alone."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.line and not any(folder in Path(frame.filename).parents for folder in LIBRARIES):
            return frame
    return None


def _unusable(output: Any, expected: Any, error: BaseException) -> list[Line]:
    """What is said of a value that the check can't look at: how it differs from what is asked for.

    An error that the exercise raises on purpose is a sentence for the student; others are internals of ours.
    """
    if isinstance(error, Unfit):
        return [Line("But", str(error))]
    found = difference(output, expected)
    if found and found.aspect in FORM:
        return list(found.lines)
    return [
        Line("Expected", show(expected)),
        Line("Got", f"{show(output)}, which can't be looked at further"),
    ]


def _try(challenge: Challenge, answer: Callable, result: Callable) -> Trial:
    with _same_numbers():
        before = challenge.inputs()
    with _same_numbers(), contextlib.redirect_stdout(io.StringIO()) as printed:
        trial = Trial(before, challenge.inputs())
        try:
            trial.output = answer(*trial.inputs)
            trial.result = result(trial.output, *trial.inputs)
        except (Exception, SystemExit) as error:
            trial.error = error
    trial.printed = printed.getvalue().strip()
    return trial


@contextlib.contextmanager
def _same_numbers() -> Iterator[None]:
    """The same random numbers for every trial, and the notebook's own go on as if none had been drawn."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        try:
            random.seed(0)
            np.random.seed(0)
            torch.default_generator.manual_seed(
                0
            )  # torch.manual_seed queues seeds for GPUs, a traceback each
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _failure(exercise: Exercise, answer: Callable, challenge: Challenge, trial: Trial) -> list[Line]:
    """The first property that does not hold, named first, and what shows it; empty when all hold."""
    expected = _try(challenge, exercise.reference, exercise.result)
    if expected.error:
        raise RuntimeError(f"The course's own answer fails on {challenge.description!r}.") from expected.error
    names = list(inspect.signature(exercise.reference).parameters)[: len(trial.inputs)]

    def failing(broken: str, *shown: Line) -> list[Line]:
        return [Line("Property", broken), *_told(challenge, trial, names), *shown]

    if trial.output is None and expected.output is not None:
        but = "it returns nothing (None); end it with `return ...`: print shows a value, return hands it over"
        return failing("returns its result", Line("But", but))
    if trial.error:
        if trial.output is not ... and not _own_line(trial.error):
            return failing(
                "returns what is asked for", *_unusable(trial.output, expected.output, trial.error)
            )
        returned = "" if trial.output is ... else f"; it returned {show(trial.output)}"
        note = f"it is called with {len(names)} inputs: ({', '.join(names)}){returned}"
        broken = "runs to its end" if trial.output is ... else "returns what is asked for"
        return failing(broken, *_error_lines(trial.error), Line("Note", note))
    for name, before, after, right in zip(names, trial.before, trial.inputs, expected.inputs, strict=True):
        to_change = name in exercise.changes
        if found := difference(after, right if to_change else before, name):
            own_copy = "leaves its inputs as they are (work on a copy)"
            return failing(f"leaves {name} as it should be" if to_change else own_copy, *found.lines)
    found = difference(trial.result, expected.result)
    if found and found.aspect in FORM:
        return failing(f"has the right {found.aspect}", *found.lines)
    for name, holds in exercise.properties.items():
        tried = _try(challenge, answer, partial(holds, answer))  # on inputs of its own
        if tried.error and not _own_line(tried.error):
            return failing(name, *_unusable(trial.output, expected.output, tried.error))
        if tried.error:
            return failing(name, *_error_lines(tried.error))
        if tried.result:
            return failing(name, Line("But", str(tried.result)))
    return failing("has the right values", *found.lines) if found else []


def _told(challenge: Challenge, trial: Trial, names: list[str]) -> list[Line]:
    """The challenge, its inputs, and what the answer printed."""
    given = "\n".join(f"{name} = {show(x)}" for name, x in zip(names, trial.before, strict=True))
    printed = "\n".join(trial.printed.splitlines()[:5])
    told = {"Tried on": challenge.description if given else "", "Inputs": given, "Printed": printed}
    return [Line(label, text) for label, text in told.items() if text]


def _mistake(exercise: Exercise, answer: Callable, failed: int) -> str:
    """The named mistake that behaves as this answer does on the challenge that failed; empty when none does.

    Of several the one that is alike on most challenges: who made two mistakes at once hears of the first.
    """
    best, says = 0, ""
    others = [challenge for i, challenge in enumerate(exercise.challenges) if i != failed]
    with warnings.catch_warnings():  # they are about challenges that the student is not shown
        warnings.simplefilter("ignore")
        mine = _behaviour(exercise, answer, exercise.challenges[failed])
        mine_elsewhere: list[tuple] = []
        for known in exercise.mistakes:
            if not alike(mine, _behaviour(exercise, known.code, exercise.challenges[failed])):
                continue
            mine_elsewhere = mine_elsewhere or [_behaviour(exercise, answer, one) for one in others]
            pairs = zip(mine_elsewhere, others, strict=True)
            places = 1 + sum(alike(one, _behaviour(exercise, known.code, c)) for one, c in pairs)
            if places > best:
                best, says = places, known.says
    return says


def _behaviour(exercise: Exercise, answer: Callable, challenge: Challenge) -> tuple:
    trial = _try(challenge, answer, exercise.result)
    return repr(trial.error), trial.result, trial.inputs
