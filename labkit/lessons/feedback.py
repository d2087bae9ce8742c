"""What a check says: plain text everywhere, HTML in a notebook, its meaning never in colour alone."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import NamedTuple

PASS, NOT_YET, NOT_ATTEMPTED = "PASS", "NOT YET", "NOT ATTEMPTED"
COLOURS = {PASS: "#0072B2", NOT_YET: "#D55E00"}  # Okabe and Ito 2008; all else is grey


class Line(NamedTuple):
    label: str  # may be empty
    text: str


@dataclass(frozen=True)
class Message:
    """A few labelled lines under a headline, e.g. a hint; shown when it is the last value of a cell."""

    title: str
    lines: tuple[Line, ...] = ()

    def __str__(self) -> str:
        width = max((len(line.label) for line in self.lines), default=0)
        below = "\n" + " " * (width + 4)
        told = [
            f"  {line.label:<{width}}  {line.text.replace(chr(10), below)}".rstrip() for line in self.lines
        ]
        return "\n".join([self.title, *told])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        title = html.escape(self.title)
        rows = "".join(
            f"<tr><th scope='row' style='text-align:left;vertical-align:top'>{html.escape(label)}</th>"
            f"<td style='text-align:left'><pre style='margin:0;white-space:pre-wrap'>{html.escape(text)}</pre></td></tr>"
            for label, text in self.lines
        )
        return (
            f"<section aria-label='{title}' style='border-left:5px solid {self._colour};padding-left:8px'>"
            f"<strong>{title}</strong><table style='margin:0;font-size:inherit'>{rows}</table></section>"
        )

    @property
    def _colour(self) -> str:
        return "#777777"


@dataclass(frozen=True, repr=False)
class Feedback(Message):
    """The outcome of one check, true when it passed; `misconception` names the mistake it looks like."""

    exercise: str = ""
    status: str = NOT_ATTEMPTED  # or PASS, NOT YET
    broken: str = ""  # the property that failed
    misconception: str = ""

    def __bool__(self) -> bool:
        return self.status == PASS

    @property
    def _colour(self) -> str:
        return COLOURS.get(self.status, super()._colour)
