"""The verdict, outside the jail: seeded inputs go in, raw values come back, and here they are compared."""

from __future__ import annotations

import copy
import functools
import inspect
import json
import random
import re
import resource
import secrets
import signal
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any

from labkit.grading.agent import MIME
from labkit.grading.codec import BadValue, Decoder, Encoder, Foreign
from labkit.grading.jail import JailBroken
from labkit.grading.watch import Fault

ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")
CONTROL = re.compile(
    r"\x1b\[[0-9;?]*[a-zA-Z]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]"
)
STUB = "it still raises NotImplementedError"
CALLS = 500  # into the jail, per exercise
JUDGING_SECONDS = 60  # of processor time, per exercise; honest ones take below 5
JUDGING_MEMORY = 1 << 30  # bytes beyond what was there


class NoEvidence(Exception):
    """The student's code gave no value to judge; the message says why, `kind` in one word."""

    def __init__(self, kind: str, reason: str):
        super().__init__(reason)
        self.kind = kind


class TooMuch(BaseException):
    """Judging took more processor time than it may; no Exception, so that nothing on the way keeps it."""


@dataclass(frozen=True)
class Mark:
    """One thing that was looked at: a challenge or a property; `unseen` ones cannot be known beforehand."""

    name: str
    holds: bool
    reason: str = ""
    unseen: bool = False


class Remote:
    """The student's function, callable from here: each call runs in the jail and returns data.

    Inputs that the call changed are changed here too, as if it had been a call in this process.
    """

    def __init__(self, kernel: Any, exercise: str, expression: str, value: bool):
        self.kernel, self.request = kernel, {"exercise": exercise, "expression": expression, "value": value}
        self.seed, self.calls, self.after = 0, 0, ()

    def __call__(self, *inputs: Any) -> Any:
        return self._ask(self.request, inputs)

    def _ask(self, request: dict, inputs: tuple, parameters: dict | None = None) -> Any:
        self.calls += 1
        if self.calls > CALLS:
            raise NoEvidence("wrong", f"judging it took more than {CALLS} calls")
        encoder = Encoder()
        node = encoder.node(inputs)
        answer = exchange(self.kernel, {**request, "seed": self.seed, "inputs": node})
        objects = dict(encoder.objects)
        decoder = Decoder(objects, trusted=True, call=self._call, parameters=parameters)
        output, self.after = decoder.value(answer["output"]), decoder.value(answer["inputs"])
        if not isinstance(self.after, tuple) or len(self.after) != len(inputs):
            raise BadValue("evidence whose inputs are not those of the challenge")
        return output

    def _call(self, handle: int) -> Callable:
        request = {"exercise": self.request["exercise"], "handle": handle, "value": False}
        return lambda *inputs, parameters=None: self._ask(request, inputs, parameters)


def exchange(kernel: Any, request: dict) -> dict:
    """One question to the jail and its one answer, or NoEvidence, Fault, BadValue."""
    nonce = secrets.token_hex(16)
    text = f"__import__('agent').reply({nonce!r}, {json.dumps(request, separators=(',', ':'))!r})"
    message = kernel.execute_cell_input(text, allow_stdin=False)
    kernel.await_reply(message)
    found, forged = [], False
    while True:
        try:
            got = kernel.get_message("iopub", timeout=5)
        except Empty:
            raise Fault("silent", "its kernel no longer says when it is done") from None
        if got["parent_header"].get("msg_id") != message:
            continue
        if got["msg_type"] == "status" and got["content"].get("execution_state") == "idle":
            break
        data = got["content"].get("data") if got["msg_type"] == "display_data" else None
        if isinstance(data, dict) and MIME in data:
            answer = _evidence(data[MIME])
            forged |= answer.get("nonce") != nonce
            found.append(answer)
    if forged or len(found) > 1:
        raise NoEvidence("forged", "evidence was shown that the grader had not asked for")
    if not found:
        raise NoEvidence("none", "no value came back from it: its code changed how the notebook answers")
    answer = found[0]
    if answer.get("status") == "returned":
        return answer
    if answer.get("status") == "stub":
        raise NoEvidence("not attempted", STUB)
    if answer.get("status") == "raised":
        name, text, line = (clean(answer.get(key, "")) for key in ("ename", "evalue", "line"))
        at = f", in line {line} of the cell" if line not in ("", "0") else ""
        raise NoEvidence("raised", f"{name}: {text}{at}")
    raise NoEvidence("unfit", clean(answer.get("why", "its result is no value that can be judged")))


def _evidence(text: Any) -> dict:
    """What was shown as evidence; empty when it has not the parts of any."""
    try:
        answer = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return {}
    whole = isinstance(answer, dict) and (
        answer.get("status") != "returned" or {"output", "inputs"} <= answer.keys()
    )
    return answer if whole else {}


def judge(exercise: Any, remote: Remote, seeds: list[int], varies: list[bool]) -> list[Mark]:
    """All marks of one exercise; a Fault of the kernel ends the judging, and marks given before it stay.

    `varies` says of each challenge whether its result depends on the seed, as varies() finds out.
    """
    marks: list[Mark] = []
    fault = ""
    expected = functools.cache(lambda challenge, seed: _expected(exercise, challenge, seed))
    for challenge, unseen in zip(exercise.challenges, varies, strict=True):
        name = f"is right on {challenge.description}"
        reason = fault or _first(
            lambda seed, c=challenge: _challenge(exercise, remote, c, seed, expected),
            seeds[: 3 if unseen else 1],
        )
        if reason.startswith("stopped: "):
            fault = reason
        marks.append(Mark(name, not reason, reason, unseen=unseen))
    for name, holds in exercise.properties.items():
        reasons = (
            fault or _property(exercise, remote, challenge, holds, seeds[0], expected)
            for challenge in exercise.challenges
        )
        reason = next(filter(None, reasons), "")
        marks.append(Mark(name, not reason, reason))
    return marks


def wavers(exercise: Any, remote: Remote, seed: int) -> str:
    """A flag for an answer that draws numbers nobody seeded: the same call twice, and two results."""
    from labkit.lessons import difference

    results = []
    try:
        for _ in range(2):
            inputs = _inputs(exercise.challenges[-1], seed)
            remote.seed = seed + 1
            output = remote(*inputs)
            results.append(_guarded(lambda output=output: exercise.result(output, *remote.after)))
        differ = not isinstance(results[0], Foreign) and difference(*results) is not None
    except Exception as error:
        return _blame(error) and ""
    return "two calls with the same inputs and seeds gave two results" if differ else ""


def score(marks: list[Mark], points: float) -> float:
    """Points by the share of marks that hold; none if there are unseen challenges and all were failed."""
    unseen = [mark for mark in marks if mark.unseen]
    if not marks or (unseen and not any(mark.holds for mark in unseen)):
        return 0.0
    return round(points * sum(mark.holds for mark in marks) / len(marks), 2)


def clean(text: Any, limit: int = 300) -> str:
    """A student's text for a report: no colours, no control signs, no addresses, one line, not long."""
    text = CONTROL.sub("", ADDRESS.sub("0x...", str(text)[: 4 * limit]))
    text = text.encode("utf-8", "replace").decode()
    return " ".join(text.split())[:limit]


def _first(look: Callable[[int], str], seeds: list[int]) -> str:
    return next(filter(None, map(look, seeds)), "")


def _challenge(exercise: Any, remote: Remote, challenge: Any, seed: int, right: Callable) -> str:
    """What is wrong on one challenge, as a sentence; empty when it is right."""
    from labkit.lessons import difference

    expected, ours = right(challenge, seed)  # before anything of the student's: it is no fault of theirs
    try:
        inputs, pristine = (_inputs(challenge, seed) for _ in range(2))
        remote.seed = seed + 1
        output = remote(*inputs)
        names = _names(exercise, len(inputs))
        for name, now, before, right in zip(names, remote.after, pristine, ours, strict=True):
            if name in exercise.changes:
                found = _guarded(lambda now=now, right=right, name=name: difference(now, right, name))
                if found:
                    return f"it does not leave {name} as it should be: {clean(found)}"
            elif not _guarded(lambda now=now, before=before: _identical(now, before)):
                return f"it changed its input {name}"
        if isinstance(output, Foreign):
            return f"it returned {clean(output)}"
        got = _guarded(lambda: exercise.result(output, *remote.after))
        found = _guarded(lambda: difference(got, expected))
    except Exception as error:
        return _blame(error)
    return clean(found) if found else ""


def _blame(error: Exception) -> str:
    """What ended the judging of an answer, as a sentence; JailBroken again, which is no fault of theirs."""
    if isinstance(error, JailBroken):
        raise error
    if isinstance(error, Fault):
        return f"stopped: {error}"
    if isinstance(error, (NoEvidence, BadValue)):
        return str(error)
    return f"what it returned could not be judged ({type(error).__name__})"


def _identical(now: Any, before: Any) -> bool:
    """Whether two values are the same to the last bit: numbers, flags, gradients, names."""
    return Encoder(offer=lambda value: 0).node(now) == Encoder(offer=lambda value: 0).node(before)


def _expected(exercise: Any, challenge: Any, seed: int) -> tuple[Any, tuple]:
    """The result of our reference, and the inputs as it leaves them; what fails in here is our own fault."""
    inputs = _inputs(challenge, seed)
    with seeded(seed + 1):
        return exercise.result(exercise.reference(*inputs), *inputs), inputs


def _property(
    exercise: Any, remote: Remote, challenge: Any, holds: Callable, seed: int, right: Callable
) -> str:
    """How an answer breaks a property; one whose type, shape or dtype is wrong is not computed with.

    Two small arrays of other shapes than expected may broadcast to one that fills this process's memory.
    """
    from labkit.lessons import difference
    from labkit.lessons.exercise import FORM

    expected, _ = right(challenge, seed)
    try:
        inputs = _inputs(challenge, seed)
        remote.seed = seed + 1
        output = remote(*inputs)
        found = _guarded(lambda: difference(exercise.result(output, *remote.after), expected))
        if found and found.aspect in FORM:
            return clean(found)
        found = _guarded(lambda: holds(remote, output, *remote.after))
        return clean(found) if found else ""
    except Exception as error:
        return _blame(error)


def _guarded(compute: Callable) -> Any:
    """Comparing what a student returned may fail for its odd type; that is an answer, not an accident."""
    try:
        return compute()
    except (NoEvidence, BadValue, Fault):
        raise
    except Exception as error:
        raise BadValue(f"its result is not of the kind that is asked for ({type(error).__name__})") from error


@contextmanager
def bounded(seconds: int = JUDGING_SECONDS, memory: int = JUDGING_MEMORY):
    """Judging takes at most so much processor time and memory of this process, else TooMuch or MemoryError.

    Evidence is small, but what is computed with it need not be. Only for the main thread of a process.
    """

    def stop(*_):
        raise TooMuch(f"judging it took more than {seconds} seconds of processor time")

    before, (soft, hard) = signal.signal(signal.SIGPROF, stop), resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + memory, hard))
    signal.setitimer(signal.ITIMER_PROF, seconds, 1)  # again, should the first be lost in a destructor
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _inputs(challenge: Any, seed: int) -> tuple:
    """Inputs of their own: what an answer does to them reaches no other challenge and no reference."""
    with seeded(seed):
        return copy.deepcopy(challenge.inputs())


def varies(exercise: Any) -> list[bool]:
    """Of each challenge, whether what is expected depends on the seed and cannot be learned by heart."""
    return [_varies(exercise, challenge) for challenge in exercise.challenges]


def _varies(exercise: Any, challenge: Any) -> bool:
    from labkit.lessons import difference

    results = []
    for seed in range(4):
        before, inputs = _inputs(challenge, seed), _inputs(challenge, seed)
        with seeded(seed + 1):
            result = exercise.result(exercise.reference(*inputs), *inputs)
        changed = [
            str(difference(*pair))
            for *pair, name in zip(inputs, before, _names(exercise, len(inputs)), strict=True)
            if name in exercise.changes
        ]
        results.append((result, changed))
    return any(difference(results[0], other) is not None for other in results[1:])


@contextmanager
def seeded(seed: int):
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would look for GPUs each time
    yield


def _names(exercise: Any, count: int) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(exercise.reference).parameters.values()
    names = [parameter.name for parameter in parameters if parameter.kind in kinds]
    return [*names, *(f"input {i + 1}" for i in range(len(names), count))][:count]
