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
import random
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from labkit.lessons.compare import Difference, difference, kind, show
from labkit.lessons.feedback import NOT_ATTEMPTED, NOT_YET, PASS, Feedback

PACKAGE = str(Path(__file__).resolve().parent)
LIBRARIES = tuple(
    {sysconfig.get_paths()[key] for key in ("stdlib", "purelib", "platlib")}
    | {str(Path(module.__file__).parents[1]) for module in (np, torch)}
)
FORM = ("type", "shape", "dtype", "names")  # aspects of a difference that come before any finer property
PRINTED_LINES = 5


@dataclass(frozen=True)
class Challenge:
    """Inputs an answer is tried on, built afresh at each call of `inputs`; random numbers are seeded."""

    description: str
    inputs: Callable[[], tuple] = tuple


@dataclass(frozen=True)
class Exercise:
    """One thing to write, as a function (or, with a reference without parameters, as a value).

    `result(output, *inputs)` is what is compared with the reference's, after the call: the output itself,
    unless the exercise works on its inputs. `changes` names parameters that an answer may change in place.
    `properties` are called as (answer, output, *inputs) and return None or a sentence with the
    counter-example. `mistakes` maps the sentence that names a misconception to an implementation that has it.
    """

    reference: Callable
    challenges: tuple[Challenge, ...] = (Challenge("your value"),)  # the smallest first
    mistakes: Mapping[str, Callable] = field(default_factory=dict)
    hints: tuple[str, ...] = ()  # a nudge, the formula, the line
    properties: Mapping[str, Callable] = field(default_factory=dict)
    result: Callable = lambda output, *inputs: output
    changes: tuple[str, ...] = ()
    rtol: float = 1e-4
    atol: float = 1e-6

    @property
    def asks_for_value(self) -> bool:
        return not inspect.signature(self.reference).parameters


@dataclass(frozen=True)
class Trial:
    """What an answer did on one challenge."""

    output: Any = None
    result: Any = None
    inputs: tuple = ()  # after the call
    error: BaseException | None = None
    printed: str = ""
    unread: Exception | None = None  # the output is not of the kind that the exercise's `result` reads


def check(name: str, exercise: Exercise, answer: Any) -> Feedback:
    """Try an answer on every challenge, smallest first, and say what the first failing one shows."""
    if answer is None or answer is ...:
        return _not_attempted(name)
    function = _as_function(exercise, answer)
    if function is None:
        given = f"{show(answer)} is {kind(answer)}, not a function."
        return _not_yet(
            name,
            exercise,
            "is a function",
            [("", given), ("Do", f"pass the function itself: lab.check({name!r}, {name})")],
        )
    for challenge in exercise.challenges:
        trial = _try(exercise, function, challenge)
        if isinstance(trial.error, NotImplementedError) and str(trial.error) in ("", name):  # the stub's own
            return _not_attempted(name)
        if failure := _failure(exercise, function, challenge, trial):
            broken, lines = failure
            mistake = _mistake(exercise, function)
            lines += [("Looks like", mistake)] if mistake else []
            return _not_yet(
                name,
                exercise,
                broken,
                [*_told(exercise, challenge, trial), *lines, *_printed(trial)],
                mistake,
            )
    count = len(exercise.challenges)
    return Feedback(f"{PASS}: {name}", (("", f"right on {count} challenge{'s'[: count != 1]}"),), name, PASS)


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
                f"{name}: the mistake {sentence!r} is taken for {feedback.misconception or 'none by name'!r}"
            )
    if len(exercise.mistakes) < 3:
        found.append(f"{name}: name at least three mistakes, not {len(exercise.mistakes)}")
    if len(exercise.hints) != 3:
        found.append(f"{name}: give three hints (a nudge, the formula, the line), not {len(exercise.hints)}")
    return found


def unequal(got: Any, expected: Any, rtol: float = 1e-4, atol: float = 1e-6) -> str | None:
    """How two values differ, as a sentence for a property to return; None when they do not."""
    found = difference(got, expected, rtol, atol)
    return found.sentence if found else None


def _as_function(exercise: Exercise, answer: Any) -> Callable | None:
    if exercise.asks_for_value:
        return answer if inspect.isroutine(answer) else lambda: answer
    return answer if callable(answer) else None


def _try(exercise: Exercise, function: Callable, challenge: Challenge) -> Trial:
    printed = io.StringIO()
    with _same_numbers(), contextlib.redirect_stdout(printed):
        inputs = challenge.inputs()
        try:
            output = function(*inputs)
        except (Exception, SystemExit) as error:
            return Trial(inputs=inputs, error=error, printed=printed.getvalue())
        try:
            result = exercise.result(output, *inputs)
        except Exception as error:
            return Trial(output, output, inputs, None, printed.getvalue(), error)
    return Trial(output, result, inputs, None, printed.getvalue())


@contextlib.contextmanager
def _same_numbers() -> Iterator[None]:
    """The same random numbers for every trial, and the notebook's own go on as if none had been drawn."""
    python, numpy, grad, dtype = (
        random.getstate(),
        np.random.get_state(),
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
    )
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


def _failure(
    exercise: Exercise, function: Callable, challenge: Challenge, trial: Trial
) -> tuple[str, list] | None:
    """The property that does not hold and the lines that show it."""
    if trial.error is not None:
        return "runs to its end", _told_error(exercise, trial)
    if changed := _changed(exercise, challenge, trial):
        name, found = changed
        return "leaves its inputs as they are", [
            ("But", f"it changed {name}: {found.sentence}"),
            ("Do", f"work on a copy: {name}.clone(), {name}.copy() or a new variable"),
        ]
    expected = _try(exercise, exercise.reference, challenge)
    if error := expected.error or expected.unread:
        raise RuntimeError(
            f"The course's own answer fails on {challenge.description!r}; please report this."
        ) from error
    found = _difference(exercise, trial.result, expected.result)
    shown = [("Expected", show(expected.result)), ("Got", show(trial.result))]
    if found and found.sentence.startswith("expected"):
        shown = []  # the sentence says it all
    if trial.output is None and expected.output is not None:
        return "returns its result", [
            ("But", "it returns nothing (None)"),
            ("Do", "end it with `return ...`; print only shows a value, return hands it to the caller"),
        ]
    if found and found.aspect in FORM:
        return f"has the right {found.aspect}", [*shown, ("But", found.sentence)]
    for name, holds in exercise.properties.items():
        if sentence := _property(holds, function, challenge, exercise):
            return name, [("But", sentence)]
    return ("has the right values", [*shown, ("But", found.sentence)]) if found else None


def _property(holds: Callable, function: Callable, challenge: Challenge, exercise: Exercise) -> str | None:
    """A property sees a trial of its own, so that what it does to the inputs spoils nothing."""
    trial = _try(exercise, function, challenge)
    try:
        with _same_numbers(), contextlib.redirect_stdout(io.StringIO()):
            return holds(function, trial.output, *trial.inputs)
    except Exception as error:  # the answer failed where the property called it again
        return f"{type(error).__name__}: {error}"


def _changed(exercise: Exercise, challenge: Challenge, trial: Trial) -> tuple[str, Difference] | None:
    with _same_numbers():
        before = challenge.inputs()
    for name, now, then in zip(_parameters(exercise, before), trial.inputs, before, strict=True):
        if name not in exercise.changes and (found := difference(now, then, rtol=0, atol=0)):
            return name, found
    return None


def _mistake(exercise: Exercise, function: Callable) -> str:
    """The named mistake that behaves as this answer does on every challenge; empty when none does."""
    mine = [_try(exercise, function, challenge) for challenge in exercise.challenges]
    for sentence, wrong in exercise.mistakes.items():
        theirs = (_try(exercise, wrong, challenge) for challenge in exercise.challenges)
        if all(_alike(exercise, a, b) for a, b in zip(mine, theirs, strict=True)):
            return sentence
    return ""


def _alike(exercise: Exercise, a: Trial, b: Trial) -> bool:
    if a.error is not None or b.error is not None:
        return type(a.error) is type(b.error)
    return all(_difference(exercise, x, y) is None for x, y in ((a.result, b.result), (a.inputs, b.inputs)))


def _difference(exercise: Exercise, got: Any, expected: Any) -> Difference | None:
    try:
        return difference(got, expected, exercise.rtol, exercise.atol)
    except Exception as error:  # a sparse tensor, a class of the student's that breaks when it is looked at
        return Difference("type", f"{kind(got)} cannot be compared here ({type(error).__name__}: {error}).")


def _parameters(exercise: Exercise, inputs: tuple) -> list[str]:
    """The reference's names for its inputs; numbers where it takes *args."""
    names = [
        p.name
        for p in inspect.signature(exercise.reference).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    return [*names, *(f"input {i + 1}" for i in range(len(names), len(inputs)))][: len(inputs)]


def _told(exercise: Exercise, challenge: Challenge, trial: Trial) -> list[tuple[str, str]]:
    """The challenge, with inputs as they were before the answer saw them."""
    with _same_numbers():
        inputs = challenge.inputs()
    given = "\n".join(
        f"{name} = {show(value)}" for name, value in zip(_parameters(exercise, inputs), inputs, strict=True)
    )
    return [("Tried on", challenge.description)] * bool(inputs) + [("Inputs", given)] * bool(inputs)


def _told_error(exercise: Exercise, trial: Trial) -> list[tuple[str, str]]:
    error = trial.error
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.line and not frame.filename.startswith((*LIBRARIES, PACKAGE))
    ]
    if frames:
        last = frames[-1]
        return [
            ("But", f"{type(error).__name__}: {error}"),
            ("At", f"line {last.lineno} of your cell: {last.line}"),
        ]
    call = ", ".join(_parameters(exercise, trial.inputs))
    return [
        ("But", f"{type(error).__name__}: {error}"),
        ("Note", f"it is called with {len(trial.inputs)} inputs: ({call})"),
    ]


def _printed(trial: Trial) -> list[tuple[str, str]]:
    lines = trial.printed.strip().splitlines()
    if not lines:
        return []
    return [("Printed", "\n".join(lines[:PRINTED_LINES] + ["..."] * (len(lines) > PRINTED_LINES)))]


def _not_attempted(name: str) -> Feedback:
    return Feedback(
        f"{NOT_ATTEMPTED} so far: {name}",
        (
            (
                "",
                "replace the line `raise NotImplementedError` by your answer, "
                "run the cell, then run this one again",
            ),
        ),
        name,
        NOT_ATTEMPTED,
    )


def _not_yet(
    name: str, exercise: Exercise, broken: str, lines: list[tuple[str, str]], misconception: str = ""
) -> Feedback:
    hint = [("Stuck?", f"lab.hint({name!r})")] * bool(exercise.hints)
    return Feedback(
        f"{NOT_YET}: {name}", (("Property", broken), *lines, *hint), name, NOT_YET, broken, misconception
    )
