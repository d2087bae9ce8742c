"""No exercise can be passed with what labkit itself holds in the jail, or with a table learned by heart."""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import importlib
import inspect
import io
import multiprocessing
import pkgutil
import re
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import labkit
from labkit.grading import evidence, jail
from labkit.grading.bench import with_hidden
from labkit.grading.release import _exercises
from labkit.lessons import difference, exercises, labs
from labkit.release import editions
from labkit.release.build import source_of

LABS = list(labs())
OFTEN = ("00", "09")  # the others when all tests run, a minute each
EACH = [lab if lab.startswith(OFTEN) else pytest.param(lab, marks=pytest.mark.slow) for lab in LABS]
MEMORY = 1 << 30  # bytes that a function of labkit may take to show that it is no answer
SECONDS = 0.5  # likewise
STUCK = 60  # seconds after which a process is ended in which no alarm could do it
FORK = multiprocessing.get_context("fork")  # a second process has at once what this one imported


@functools.cache
def offered() -> list:
    """The public functions and classes of all modules that a student may import in the jail."""
    found = {}
    for about in pkgutil.walk_packages(labkit.__path__, "labkit."):
        if not any(fnmatch.fnmatch(about.name, away) for away in (*jail.OURS, "*.__main__")):
            module = importlib.import_module(about.name)
            for name, one in vars(module).items():
                ours = getattr(one, "__module__", "").startswith("labkit.")
                if callable(one) and ours and not name.startswith("_"):
                    found.setdefault(f"{one.__module__}:{one.__qualname__}", one)
    return list(found.values())


def passes(exercise, answer) -> bool:
    """Whether it gives the reference's results on all challenges."""
    for challenge in exercise.challenges:
        results = []
        for one in (exercise.reference, answer):
            inputs = evidence._inputs(challenge, 5)
            with evidence.seeded(6), torch.enable_grad(), contextlib.redirect_stdout(io.StringIO()):
                results.append((exercise.result(one(*inputs), *inputs), inputs))
        if difference(*results) is not None:
            return False
    return True


def quickly(exercise, answer) -> bool:
    def stop(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            inspect.signature(answer).bind(*exercise.challenges[0].inputs())
            return passes(exercise, answer)
        except (Exception, SystemExit):
            return False
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except TimeoutError:  # it came while the clock was being stopped
        return False
    finally:
        signal.signal(signal.SIGALRM, before)


def away(one, hidden: list[str]) -> bool:
    return bool({one.__module__, f"{one.__module__}:{one.__qualname__}"} & set(hidden))


def tried(lab: str, name: str, hidden: list[str], functions: list, tell) -> None:
    """Tell of each function whether it is the answer."""
    exercise = exercises(lab)[name]
    torch.set_num_threads(
        1
    )  # others that this process had are not there after the fork, and would be waited for
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY,) * 2)  # no alarm ends what fills a large tensor
    for one in functions:
        tell.send(not away(one, hidden) and quickly(exercise, one))


def solved_by(lab: str, name: str, hidden: list[str]) -> tuple[list, list]:
    """The functions that are the answer, and those that could not be tried.

    Two processes of their own try them, as some functions change what they are given. One that ends its
    process, or keeps it for `STUCK` seconds, is no answer: another process goes on behind it.
    """
    shares, found, lost = [offered()[0::2], offered()[1::2]], [], []
    while any(shares):
        started = []
        for share in filter(None, shares):
            listen, tell = FORK.Pipe(duplex=False)
            process = FORK.Process(target=tried, args=(lab, name, hidden, share, tell))
            process.start()
            tell.close()
            started.append((process, listen, share))
        shares = []
        for process, listen, share in started:
            answers = []
            with contextlib.suppress(EOFError):
                while len(answers) < len(share) and listen.poll(STUCK):
                    answers.append(listen.recv())
            process.kill()
            process.join()
            found += [one for one, solved in zip(share, answers, strict=False) if solved]
            lost += share[len(answers) :][:1]
            shares.append(share[len(answers) + 1 :])
    return found, lost


@pytest.mark.parametrize("lab", EACH)
def test_no_function_of_labkit_is_the_answer(lab, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    offered()
    for name, about in _exercises(source_of(lab)).items():
        found, lost = solved_by(lab, name, about["hides"])
        assert not found, name
        assert len(lost) < len(offered()) / 50, (name, lost)


def functions(reference) -> list:
    """It, or all methods of it where it is a class."""
    own = vars(reference).values() if inspect.isclass(reference) else (reference,)
    return [one for one in own if inspect.isfunction(one)]


def used(function) -> list[tuple[str, str]]:
    """(module, name) of the globals that it uses; of a module all names that may be looked up in it."""
    code, found = function.__code__, []
    for word in code.co_names:
        one = function.__globals__.get(word)
        if inspect.ismodule(one):
            found += [(one.__name__, name) for name in code.co_names if hasattr(one, name)]
        elif one is not None:
            found.append((getattr(one, "__module__", None) or "", word))
    return found


@pytest.mark.parametrize("lab", LABS)
def test_what_a_reference_is_made_of_is_away(lab):
    """But for what the solution in the notebook is told to use, too."""
    hides = {name: about["hides"] for name, about in _exercises(source_of(lab)).items()}
    solutions = {cell.id: cell.source for cell in editions.instructor(source_of(lab)).cells}
    for name, exercise in exercises(lab).items():
        for function in functions(exercise.reference):
            for home, word in used(function):
                if re.match(r"labkit\.(?!lessons)", home) and f".{word}(" not in solutions[name]:
                    assert {home, f"{home}:{word}"} & set(hides[name]), (name, word)


def test_one_function_of_a_module_may_be_away(tmp_path):
    course = tmp_path / jail.course(tmp_path, ["labkit.metrics:lesion_wise"])
    space: dict = {}
    exec((course / "labkit" / "metrics.py").read_text(), space)
    assert space["dice"](np.ones(2, bool), np.ones(2, bool)) == 1
    with pytest.raises(ImportError, match="lesion_wise holds the course's own answer and is away"):
        space["lesion_wise"](1, 2, 3)


def test_the_course_in_the_jail_has_no_answers_and_no_class(tmp_path):
    course = tmp_path / jail.course(tmp_path, ["labkit.metrics"]) / "labkit"
    for name in ("classroom", "grading", "release", "cli.py"):
        assert not (course / name).exists()
    assert [path.name for path in (course / "lessons").iterdir()] == ["__init__.py"]
    assert "away while this exercise is graded" in (course / "metrics.py").read_text()


@pytest.mark.parametrize("lab", LABS)
def test_every_exercise_has_a_challenge_that_nobody_can_learn_by_heart(lab):
    hidden = {name: about["hidden"] for name, about in _exercises(source_of(lab)).items()}
    for name, exercise in exercises(lab).items():
        assert any(evidence.varies(with_hidden(exercise, hidden[name]))), name
