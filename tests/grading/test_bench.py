"""What a worker plans for a submission."""

from __future__ import annotations

import contextlib
import resource
import signal

import numpy as np
import pytest

from labkit.grading import evidence, plugin
from labkit.grading.bench import seeds, with_hidden
from labkit.grading.evidence import Mark
from labkit.grading.jail import JailBroken
from labkit.grading.kernel import whole
from labkit.lessons import Challenge, Exercise

SETUP = {"release": "r", "lab": "00", "key": "00" * 32}
HIDDEN = "challenges = [Challenge('three', lambda: (np.ones(3),)), Challenge('none', lambda: (np.ones(0),))]"


def test_seeds_are_a_students_own_and_the_same_at_every_run():
    first = seeds(SETUP, "dice", "ann")
    assert first == seeds(SETUP, "dice", "ann")
    others = [seeds(SETUP, "dice", "bob"), seeds(SETUP, "regions", "ann")]
    others.append(seeds({**SETUP, "key": "01" * 32}, "dice", "ann"))
    assert len({*first, *(seed for other in others for seed in other)}) == 12


def test_a_hidden_cell_adds_its_challenges():
    exercise = Exercise(reference=np.sum, challenges=(Challenge("one", lambda: (np.ones(1),)),))
    names = [challenge.description for challenge in with_hidden(exercise, HIDDEN).challenges]
    assert names == ["one", "three", "none"]
    assert with_hidden(exercise, "") is exercise


def test_points_are_the_share_of_marks_and_none_without_an_unseen_one():
    seen, unseen = Mark("seen", True), Mark("unseen", True, unseen=True)
    lost, unseen_lost = Mark("seen", False), Mark("unseen", False, unseen=True)
    assert evidence.score([seen, unseen], 3) == 3
    assert evidence.score([lost, unseen], 3) == 1.5
    assert evidence.score([seen, seen, unseen_lost], 3) == 0
    assert evidence.score([seen, lost], 3) == 1.5
    assert evidence.score([], 3) == 0


def test_what_fails_before_the_answer_is_the_students_only_if_they_use_what_is_away():
    away = plugin._prelude("ImportError: labkit.metrics is away while this exercise is graded", ours=True)
    assert (away["status"], away["score"]) == ("graded", 0)
    theirs = plugin._prelude("ZeroDivisionError: division by zero", ours=False)
    assert (theirs["status"], theirs["score"]) == ("graded", 0)
    ours = plugin._prelude("FileNotFoundError: a map of the brain", ours=True)
    assert ours["status"] == "doubt" and "score" not in ours


def test_our_own_statements_are_known_again_in_another_layout():
    ours = plugin.statements("import numpy as np, torch\nfrom a import (b,\n  c)\nSIZE = {'x': 1}  # why\n")
    assert plugin.only_ours("from a import c\nimport torch\nSIZE = { 'x':1 }", ours)
    assert not plugin.only_ours("import torch\nSIZE = 1 / 0", ours)
    assert not plugin.only_ours("x = " + "1+" * 2000 + "1", ours)
    assert not plugin.only_ours("x = (", ours)


def test_a_students_text_is_one_safe_line():
    text = "a\n=1\x1b[31mred\x1b[0m\u202e b\x00 at 0x7f00aabbcc"
    assert evidence.clean(text) == "a =1red b at 0x..."
    assert len(evidence.clean("x" * 10_000)) == 300


def test_inputs_that_challenges_share_cannot_be_spoilt_by_an_answer():
    shared = np.array([1.0, 2.0])
    exercise = Exercise(
        reference=lambda x: float(x.sum()), challenges=(Challenge("it", lambda: (shared,)),) * 2
    )

    class Spoiler:
        seed, after = 0, ()

        def __call__(self, x):
            x[:] = 0
            self.after = (x,)
            return 0.0

    marks = evidence.judge(exercise, Spoiler(), [1, 2, 3], [False] * len(exercise.challenges))
    assert [mark.reason for mark in marks] == ["it changed its input x"] * 2
    assert shared.tolist() == [1.0, 2.0]


def test_a_changed_input_must_end_as_the_reference_leaves_it():
    def reference(x):
        x += 1

    exercise = Exercise(reference, (Challenge("it", lambda: (np.zeros(2),)),), changes=("x",))

    class Adds:
        seed, after = 0, ()

        def __init__(self, amount):
            self.amount = amount

        def __call__(self, x):
            x += self.amount
            self.after = (x,)

    assert [
        mark.holds
        for mark in evidence.judge(exercise, Adds(1), [1, 2, 3], [False] * len(exercise.challenges))
    ] == [True]
    assert (
        "does not leave x as it should be"
        in evidence.judge(exercise, Adds(2), [1, 2, 3], [False] * len(exercise.challenges))[0].reason
    )


def test_what_an_answer_changes_counts_as_its_result_that_depends_on_the_seed():
    def halve(x):
        x /= 2

    known = Challenge("known", lambda: (np.ones(2),))
    unseen = Challenge("unseen", lambda: (np.random.rand(2),))
    assert evidence.varies(Exercise(halve, (known, unseen), changes=("x",))) == [False, True]


def test_an_answer_that_draws_unseeded_numbers_is_flagged():
    exercise = Exercise(reference=lambda x: 0.0, challenges=(Challenge("it", lambda: (np.ones(1),)),))

    class Answer:
        seed, after = 0, ()

        def __init__(self, draw):
            self.draw = draw

        def __call__(self, x):
            self.after = (x,)
            np.random.seed(self.seed)
            return float(self.draw())

    assert evidence.wavers(exercise, Answer(np.random.rand), 1) == ""
    assert "two results" in evidence.wavers(exercise, Answer(np.random.default_rng().random), 1)


class Returns:
    """An answer that returns what it is made with."""

    seed, after = 0, ()

    def __init__(self, value):
        self.value = value

    def __call__(self, *inputs):
        self.after = inputs
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


def judged(exercise, answer) -> list[str]:
    marks = evidence.judge(exercise, answer, [1, 2, 3], [False] * len(exercise.challenges))
    return [mark.reason for mark in marks]


def test_a_property_is_not_computed_with_arrays_of_another_shape():
    def touched(answer, output, x):
        raise AssertionError("computed with it")

    exercise = Exercise(
        lambda x: x, (Challenge("it", lambda: (np.ones(3),)),), properties={"is nested": touched}
    )
    for wrong in (np.ones((3, 1)), np.ones(3, bool), 1.0):
        assert all(reason.startswith("expected ") for reason in judged(exercise, Returns(wrong)))
    assert "not of the kind" in judged(exercise, Returns(np.ones(3)))[1]  # it is, with the right shape


@pytest.mark.parametrize("error", [KeyError("output"), MemoryError(), RecursionError("deep")])
def test_whatever_judging_raises_is_the_answers_and_says_so(error):
    exercise = Exercise(lambda x: x, (Challenge("it", lambda: (1.0,)),), properties={"p": lambda *_: None})
    name = type(error).__name__
    assert judged(exercise, Returns(error)) == [f"what it returned could not be judged ({name})"] * 2
    assert evidence.wavers(exercise, Returns(error), 1) == ""


def test_our_own_failing_reference_and_a_broken_jail_are_no_marks():
    broken = Exercise(lambda x: 1 / 0, (Challenge("it", lambda: (1.0,)),))
    with pytest.raises(ZeroDivisionError):
        judged(broken, Returns(1.0))
    exercise = Exercise(lambda x: x, (Challenge("it", lambda: (1.0,)),))
    with pytest.raises(JailBroken):
        judged(exercise, Returns(JailBroken("gone")))


def test_judging_has_a_limit_of_processor_time_that_no_handler_keeps():
    with pytest.raises(evidence.TooMuch, match="more than 0.1 seconds"), evidence.bounded(seconds=0.1):
        while True:
            with contextlib.suppress(Exception):
                sum(range(10_000))
    assert signal.getsignal(signal.SIGPROF) == signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_PROF) == (0, 0)


def test_judging_has_a_limit_of_memory():
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(MemoryError), evidence.bounded(memory=64 << 20):
        bytearray(256 << 20)
    assert resource.getrlimit(resource.RLIMIT_AS) == before


@pytest.mark.parametrize(
    "text",
    [
        '{"nonce": "n", "status": "returned"}',
        '{"nonce": "n", "status": "returned", "output": {}}',
        '["n"]',
        '"n"',
        "null",
        "{",
        "[" * 100_000,
        5,
        None,
        ["n"],
    ],
)
def test_evidence_without_its_parts_is_none(text):
    assert evidence._evidence(text) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"parent_header": []},
        {"parent_header": None},
        {"content": []},
        {"content": {}},
        {"msg_type": 5},
        {"msg_type": "status"},
        {"msg_type": "error", "content": {"ename": "E", "evalue": "", "traceback": [5]}},
        {"msg_type": "execute_result", "content": {"data": {}, "metadata": {}, "execution_count": "1"}},
        {"msg_type": "display_data", "content": {"data": [], "metadata": {}}},
    ],
)
def test_a_message_without_its_parts_is_none_of_jupyters(change):
    message = {"parent_header": {}, "msg_type": "stream", "content": {"name": "stdout", "text": "x"}}
    assert whole(message)
    assert not whole({**message, **change})
