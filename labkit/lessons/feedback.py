"""What a check says: plain text everywhere, HTML in a notebook, its meaning never in colour alone."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import NamedTuple

PASS, NOT_YET, NOT_ATTEMPTED = "PASS", "NOT YET", "NOT ATTEMPTED"
COLOURS = {PASS: "#0072B2", NOT_YET: "#D55E00"}  # Okabe and Ito 2008; all else is grey
LEFT = "style='text-align:left;vertical-align:top;white-space:pre-wrap'"


class Line(NamedTuple):
    """A line of feedback: what it is about, and what it says."""

    label: str
    text: str


@dataclass(frozen=True)
class Message:
    """A few labelled lines under a headline, e.g. a hint; shown when it is the last value of a cell."""

    title: str
    lines: tuple[Line, ...] = ()
    status: str = ""

    def __str__(self) -> str:
        width = max((len(label) for label, _ in self.lines), default=0)
        indented = [(label, text.replace("\n", "\n" + " " * (width + 4))) for label, text in self.lines]
        return "\n".join([self.title, *(f"  {label:<{width}}  {text}" for label, text in indented)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        title = html.escape(self.title)
        style = f"border-left:5px solid {COLOURS.get(self.status, '#777777')};padding-left:8px"
        told = [(html.escape(label), html.escape(text)) for label, text in self.lines]
        rows = [f"<tr><th scope='row' {LEFT}>{label}</th><td {LEFT}>{text}</td></tr>" for label, text in told]
        return (
            f"<section aria-label='{title}' style='{style}'><strong>{title}</strong>"
            f"<table style='margin:0;font-size:inherit'>{''.join(rows)}</table></section>"
        )


@dataclass(frozen=True, repr=False)
class Feedback(Message):
    """The outcome of one check, true when it passed; `misconception` names the mistake it looks like."""

    exercise: str = ""
    broken: str = ""  # the property that failed
    misconception: str = ""

    def __bool__(self) -> bool:
        return self.status == PASS
