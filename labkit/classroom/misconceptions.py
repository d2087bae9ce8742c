"""The named mistakes of a lab, recognised in what the grader wrote down: no student's code runs for it.

The grader keeps, for every challenge, what was wrong in words ("expected 1, got 0.5"). A known mistake, put
to the same challenges with the same seeds, leaves words of its own; where they are the student's, the
mistake has a name. Numbers are compared to three digits.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from labkit.grading.release import Release

NUMBER = re.compile(r"-?\d+\.\d+(?:e[+-]?\d+)?|-?\d+e[+-]?\d+")
LINE = re.compile(r", in line \d+ of the cell$")


class Here:
    """A function of our own in the place of a student's: called in this process as the jail would."""

    def __init__(self, function: Callable):
        self.function, self.seed, self.after = function, 0, ()

    def __call__(self, *inputs: Any) -> Any:
        from labkit.grading.codec import BadValue, Encoder
        from labkit.grading.evidence import NoEvidence, clean, seeded

        self.after = inputs
        with seeded(self.seed):
            try:
                output = self.function(*inputs)
            except Exception as error:
                raise NoEvidence("raised", f"{type(error).__name__}: {clean(error)}") from error
        encoder = Encoder(offer=lambda value: 0)
        for value, verb in ((output, "returned"), (inputs, "left its inputs as")):
            try:
                encoder.node(value)
            except BadValue as error:
                raise NoEvidence("unfit", clean(f"it {verb} {error}")) from error
        return output


def named(release: Release, lines: list[dict]) -> dict[tuple[str, str], str]:
    """(student, exercise) -> the sentence that names the mistake, for all in which one is recognised.

    Lines of other releases are left out: their inputs were others.
    """
    from labkit.grading.bench import seeds, with_hidden
    from labkit.grading.evidence import varies
    from labkit.lessons import exercises

    setup = {"release": release.id, "lab": release.lab, "key": release.key}
    found = {}
    for name, exercise in exercises(release.lab).items():
        about = release.exercises.get(name)
        if about is None:
            continue
        exercise = with_hidden(exercise, about["hidden"])
        depends = varies(exercise)
        for line in lines:
            theirs = line["exercises"].get(name, {"marks": []})["marks"]
            if line["release"] != release.id or all(mark["holds"] for mark in theirs):
                continue
            mine = seeds(setup, name, line["student"])
            if sentence := _recognised(exercise, depends, theirs, mine):
                found[line["student"], name] = sentence
    return found


def _recognised(exercise: Any, depends: list[bool], theirs: list[dict], seeds: list[int]) -> str:
    """The mistake whose words are the student's on every check; most differ on the first one already."""
    from labkit.grading.evidence import judge

    said = [_words(mark["reason"]) for mark in theirs]
    first = dataclasses.replace(exercise, challenges=exercise.challenges[:1], properties={})
    for known in exercise.mistakes:
        wrong = Here(known.code)
        if [_words(mark.reason) for mark in judge(first, wrong, seeds, depends[:1])] != said[:1]:
            continue
        if [_words(mark.reason) for mark in judge(exercise, wrong, seeds, depends)] == said:
            return known.says
    return ""


def _words(reason: str) -> str:
    return NUMBER.sub(lambda number: f"{float(number[0]):.3g}", LINE.sub("", reason))
