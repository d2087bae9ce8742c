"""An exercise: what is asked, how an answer is tried, and the mistakes that are known by name.

EXERCISES = {"dice": Exercise(
    reference=metrics.dice,
    challenges=(
        Challenge("one voxel, found", lambda: (mask(1), mask(1))),
        Challenge("two voxels, one of them found", lambda: (mask(1, 0), mask(1, 1))),
        Challenge("a random mask", lambda: (torch.rand(4, 4) > .5, torch.rand(4, 4) > .5)),
    ),
    properties={"is symmetric": lambda dice, output, p, t: unequal(dice(t, p), output)},
    mistakes={"You divided by the union: that is the Jaccard index, not Dice.": jaccard},
    hints=("Count twice what both have.", "2|P and T| / (|P| + |T|)", "2 * (p & t).sum() / ..."),
)}
"""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import random
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from labkit.lessons.compare import Difference, difference, kind, show
from labkit.lessons.feedback import NOT_ATTEMPTED, NOT_YET, PASS, Feedback, Line

NOT_THE_STUDENTS = tuple(
    f"{folder}{os.sep}"
    for folder in (sysconfig.get_path("stdlib"), Path(torch.__file__).parents[1], Path(__file__).parents[1])
)
FORM = ("type", "names", "shape", "dtype")  # aspects of a difference that come before any finer property


@dataclass(frozen=True)
class Challenge:
    """Inputs an answer is tried on, built afresh at each call of `inputs`; random numbers are seeded."""

    description: str
    inputs: Callable[[], tuple] = tuple


@dataclass(frozen=True)
class Exercise:
    """One thing to write: a function, a class, or (with a reference without parameters) a value."""

    reference: Callable  # the course's own answer
    challenges: tuple[Challenge, ...] = (Challenge("your value"),)  # the smallest first
    # the sentence that names a misconception -> an implementation that has it; it may raise an error
    mistakes: Mapping[str, Callable] = field(default_factory=dict)
    hints: tuple[str, ...] = ()  # a nudge, the formula, the line
    # name -> property(answer, output, *inputs): None, or a sentence with the counter-example
    properties: Mapping[str, Callable] = field(default_factory=dict)
    # result(output, *inputs), after the call, is what is compared with the reference's
    result: Callable = lambda output, *inputs: output
    # inputs to be changed in place: each must end just as the reference leaves it, all others untouched
    changes: tuple[str, ...] = ()
    rtol: float = 1e-4
    atol: float = 1e-6

    @property
    def asks_for_value(self) -> bool:
        return not inspect.signature(self.reference).parameters


@dataclass(frozen=True)
class Trial:
    """What an answer did on one challenge."""

    inputs: tuple  # after the call
    printed: str
    output: Any = None
    result: Any = None
    error: BaseException | None = None  # raised by the answer
    unread: Exception | None = None  # raised by the exercise's `result`, which cannot read the output


@dataclass(frozen=True)
class Failure:
    """The property that does not hold, and the lines that show it."""

    broken: str
    lines: Sequence[Line]


def check(name: str, exercise: Exercise, answer: Any) -> Feedback:
    """Try an answer on every challenge, smallest first, and say what the first failing one shows."""
    if answer is None or answer is ...:
        return not_attempted(name)
    if exercise.asks_for_value and not inspect.isroutine(answer):
        value, answer = answer, lambda: value
    if not callable(answer):
        lines = (
            Line("But", f"{show(answer)} is {kind(answer)}"),
            Line("Do", f"pass the function itself: lab.check({name!r}, {name})"),
        )
        return not_yet(name, Failure("is a function", lines), exercise)
    for challenge in exercise.challenges:
        trial = _try(exercise, answer, challenge)
        if is_stub(name, trial.error):
            return not_attempted(name)
        if failure := _failure(exercise, answer, challenge, trial):
            return not_yet(name, failure, exercise, _mistake(exercise, answer))
    tried = Line("Tried on", "; ".join(challenge.description for challenge in exercise.challenges))
    return Feedback(f"{PASS}: {name}", (tried,), name, PASS)


def flaws(name: str, exercise: Exercise) -> list[str]:
    """What is wrong with an exercise itself: a reference that fails, a mistake not caught or not named."""
    found = []
    if not (feedback := check(name, exercise, exercise.reference)):
        found.append(f"{name}: the reference does not pass its own check:\n{feedback}")
    for sentence, wrong in exercise.mistakes.items():
        feedback = check(name, exercise, wrong)
        if feedback.status != NOT_YET:
            found.append(f"{name}: the check does not catch the mistake {sentence!r} ({feedback.status})")
        elif feedback.misconception != sentence:
            found.append(
                f"{name}: the mistake {sentence!r} is taken for {feedback.misconception or 'none'!r}"
            )
    if len(exercise.mistakes) < 3:
        found.append(f"{name}: name at least three mistakes, not {len(exercise.mistakes)}")
    if len(exercise.hints) != 3:
        found.append(f"{name}: give three hints (a nudge, the formula, the line), not {len(exercise.hints)}")
    return found


def unequal(got: Any, expected: Any, rtol: float = 1e-4, atol: float = 1e-6) -> str | None:
    """How two values differ, as a sentence for a property to return; None when they do not."""
    found = difference(got, expected, rtol, atol)
    return str(found) if found else None


def filled(module: nn.Module, *inputs: torch.Tensor) -> dict[str, Any]:
    """A student's module as a `result`: its parameters' shapes by name, and its output once they are filled
    with numbers that depend on name order and shape alone, as when weights are copied from the reference."""
    numbers = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, p in sorted(module.named_parameters()):
            p.copy_(torch.randn(p.shape, generator=numbers))
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
    return {"parameters": shapes, "output": module(*inputs)}


def is_stub(name: str, error: BaseException | None) -> bool:
    """Whether an error is that of the exercise's own, untouched `raise NotImplementedError`."""
    return isinstance(error, NotImplementedError) and str(error) in ("", name)


def not_attempted(name: str) -> Feedback:
    do = "replace the line `raise NotImplementedError` by your answer, run the cell, then run this one again"
    return Feedback(f"{NOT_ATTEMPTED} so far: {name}", (Line("Do", do),), name, NOT_ATTEMPTED)


def not_yet(name: str, failure: Failure, exercise: Exercise, mistake: str = "") -> Feedback:
    lines = [Line("Property", failure.broken), *failure.lines]
    if mistake:
        lines.append(Line("Looks like", mistake))
    if exercise.hints:
        lines.append(Line("Stuck?", f"lab.hint({name!r})"))
    return Feedback(f"{NOT_YET}: {name}", tuple(lines), name, NOT_YET, failure.broken, mistake)


def error_lines(error: BaseException) -> list[Line]:
    """An error, and the last line of the student's own code that it came through."""
    lines = [Line("But", f"{type(error).__name__}: {error}")]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.line and not frame.filename.startswith(NOT_THE_STUDENTS):
            return [*lines, Line("At", f"line {frame.lineno} of your cell: {frame.line}")]
    return lines


def _try(exercise: Exercise, answer: Callable, challenge: Challenge) -> Trial:
    printed = io.StringIO()
    with _same_numbers(), contextlib.redirect_stdout(printed):
        inputs = challenge.inputs()
        try:
            output = answer(*inputs)
        except (Exception, SystemExit) as error:
            return Trial(inputs, printed.getvalue(), error=error)
        try:
            result = exercise.result(output, *inputs)
        except Exception as error:
            return Trial(inputs, printed.getvalue(), output, unread=error)
    return Trial(inputs, printed.getvalue(), output, result)


@contextlib.contextmanager
def _same_numbers() -> Iterator[None]:
    """The same random numbers for every trial, and the notebook's own go on as if none had been drawn."""
    python, numpy = random.getstate(), np.random.get_state()
    grad, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        try:
            random.seed(0)
            np.random.seed(0)
            torch.manual_seed(0)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
            torch.set_grad_enabled(grad)
            torch.set_default_dtype(dtype)


def _failure(exercise: Exercise, answer: Callable, challenge: Challenge, trial: Trial) -> Failure | None:
    """What is wrong on this challenge, with the challenge itself and what the answer printed around it."""
    broken = _broken(exercise, answer, challenge, trial)
    if broken is None:
        return None
    inputs = _inputs(challenge)
    given = [f"{name} = {show(x)}" for name, x in zip(_names(exercise, inputs), inputs, strict=True)]
    before = [Line("Tried on", challenge.description), Line("Inputs", "\n".join(given))] if given else []
    printed = trial.printed.strip().splitlines()
    after = [Line("Printed", "\n".join(printed[:5]))] if printed else []
    return Failure(broken.broken, (*before, *broken.lines, *after))


def _broken(exercise: Exercise, answer: Callable, challenge: Challenge, trial: Trial) -> Failure | None:
    """The first property that does not hold: from whether it runs, over its form, to its values."""
    expected = _try(exercise, exercise.reference, challenge)
    if error := expected.error or expected.unread:
        place = f"on {challenge.description!r}; please report this"
        raise RuntimeError(f"The course's own answer fails {place}.") from error
    if trial.error:
        call = f"it is called with {len(trial.inputs)} inputs: ({', '.join(_names(exercise, trial.inputs))})"
        return Failure("runs to its end", (*error_lines(trial.error), Line("Note", call)))
    if trial.output is None and expected.output is not None:
        do = "end it with `return ...`; print only shows a value, return hands it to the caller"
        return Failure("returns its result", (Line("But", "it returns nothing (None)"), Line("Do", do)))
    if failure := _inputs_not_as_expected(exercise, challenge, trial, expected):
        return failure
    if trial.unread:
        found = _difference(exercise, trial.output, expected.output)
        if found and found.aspect == "type":
            return Failure("has the right type", _difference_lines(found))
        return Failure("can be used", error_lines(trial.unread))
    found = _difference(exercise, trial.result, expected.result)
    if found and found.aspect in FORM:
        return Failure(f"has the right {found.aspect}", _difference_lines(found))
    for name, holds in exercise.properties.items():
        if sentence := _counter_example(exercise, holds, answer, challenge):
            return Failure(name, (Line("But", sentence),))
    return Failure("has the right values", _difference_lines(found)) if found else None


def _inputs_not_as_expected(
    exercise: Exercise, challenge: Challenge, trial: Trial, expected: Trial
) -> Failure | None:
    """Inputs named in `changes` must end as the reference leaves them; all others as they were."""
    for name, now, before, right in zip(
        _names(exercise, trial.inputs), trial.inputs, _inputs(challenge), expected.inputs, strict=True
    ):
        if name in exercise.changes:
            if found := _difference(exercise, now, right, name):
                return Failure(f"leaves {name} as it should be", _difference_lines(found))
        elif found := difference(now, before, rtol=0, atol=0, where=name):
            do = Line("Do", f"work on a copy, or give the result a new name instead of changing {name}")
            return Failure("leaves its inputs as they are", (*_difference_lines(found), do))
    return None


def _counter_example(
    exercise: Exercise, holds: Callable, answer: Callable, challenge: Challenge
) -> str | None:
    """A property sees a trial of its own, so that what it does to the inputs spoils nothing."""
    trial = _try(exercise, answer, challenge)
    try:
        with _same_numbers(), contextlib.redirect_stdout(io.StringIO()):
            return holds(answer, trial.output, *trial.inputs)
    except Exception as error:  # the answer failed where the property called it again
        return f"{type(error).__name__}: {error}"


def _mistake(exercise: Exercise, answer: Callable) -> str:
    """The named mistake that behaves as this answer does on every challenge; empty when none does."""
    mine = [_try(exercise, answer, challenge) for challenge in exercise.challenges]
    for sentence, wrong in exercise.mistakes.items():
        theirs = (_try(exercise, wrong, challenge) for challenge in exercise.challenges)
        if all(_alike(exercise, a, b) for a, b in zip(mine, theirs, strict=True)):
            return sentence
    return ""


def _alike(exercise: Exercise, a: Trial, b: Trial) -> bool:
    if repr(a.error or a.unread) != repr(b.error or b.unread):
        return False
    same_inputs = _difference(exercise, a.inputs, b.inputs) is None
    return same_inputs and _difference(exercise, a.result, b.result) is None


def _difference(exercise: Exercise, got: Any, expected: Any, where: str = "") -> Difference | None:
    try:
        return difference(got, expected, exercise.rtol, exercise.atol, where)
    except Exception as error:  # a class of the student's that breaks when it is looked at
        note = f"They cannot be compared ({type(error).__name__}: {error})."
        return Difference("type", where, kind(expected), kind(got), note)


def _difference_lines(found: Difference) -> list[Line]:
    lines = [Line("Expected", found.expected), Line("Got", found.got)]
    if found.where:
        lines.insert(0, Line("Where", found.where))
    if found.note:
        lines.append(Line("Note", found.note))
    return lines


def _inputs(challenge: Challenge) -> tuple:
    """The inputs as they are before an answer sees them."""
    with _same_numbers():
        return challenge.inputs()


def _names(exercise: Exercise, inputs: tuple) -> list[str]:
    """The reference's names for its inputs; numbers where it takes *args."""
    parameters = inspect.signature(exercise.reference).parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [*names, *(f"input {i + 1}" for i in range(len(names), len(inputs)))][: len(inputs)]
