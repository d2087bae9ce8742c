"""What a worker plans for a submission."""

from __future__ import annotations

import numpy as np

from labkit.grading import evidence, plugin
from labkit.grading.bench import seeds, with_hidden
from labkit.grading.evidence import Mark
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
    away = plugin._prelude("ImportError: labkit.metrics is away while this exercise is graded")
    assert (away["status"], away["score"]) == ("graded", 0)
    ours = plugin._prelude("FileNotFoundError: a map of the brain")
    assert ours["status"] == "doubt" and "score" not in ours


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
