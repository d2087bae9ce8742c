"""What a notebook calls while it is worked on: checks that name the mistake, hints, progress."""

from labkit.lessons.compare import Difference, difference
from labkit.lessons.exercise import Challenge, Exercise, check, flaws, unequal
from labkit.lessons.feedback import Feedback, Message
from labkit.lessons.lab import Lab, NotSolved, exercises, labs, start

__all__ = [
    "Challenge",
    "Difference",
    "Exercise",
    "Feedback",
    "Lab",
    "Message",
    "NotSolved",
    "check",
    "difference",
    "exercises",
    "flaws",
    "labs",
    "start",
    "unequal",
]
