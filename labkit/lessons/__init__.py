"""What a notebook calls while it is worked on: checks that name the mistake, hints, progress."""

from labkit.lessons.authoring import filled, flaws
from labkit.lessons.compare import Difference, difference
from labkit.lessons.exercise import Challenge, Exercise, Mistake, check, mistake
from labkit.lessons.feedback import Feedback, Line, Message
from labkit.lessons.lab import Lab, NotSolved, exercises, labs, start

__all__ = [
    "Challenge",
    "Difference",
    "Exercise",
    "Feedback",
    "Lab",
    "Line",
    "Message",
    "Mistake",
    "NotSolved",
    "check",
    "difference",
    "exercises",
    "filled",
    "flaws",
    "labs",
    "mistake",
    "start",
]
