"""What a notebook calls while it is worked on: checks that name the mistake, hints, progress."""

from labkit.lessons.compare import Difference, difference
from labkit.lessons.exercise import Challenge, Exercise, check, flaws
from labkit.lessons.feedback import Feedback, Line, Message
from labkit.lessons.lab import Lab, NotSolved, exercises, labs, start
from labkit.lessons.notebook import check_notebook
from labkit.lessons.result import filled

__all__ = [
    "Challenge",
    "Difference",
    "Exercise",
    "Feedback",
    "Lab",
    "Line",
    "Message",
    "NotSolved",
    "check",
    "check_notebook",
    "difference",
    "exercises",
    "filled",
    "flaws",
    "labs",
    "start",
]
