"""What a check says: plain text everywhere, HTML in a notebook, its meaning never in colour alone."""

from __future__ import annotations

import html
from dataclasses import dataclass

PASS, NOT_YET, NOT_ATTEMPTED = "PASS", "NOT YET", "NOT ATTEMPTED"
COLOURS = {PASS: "#0072B2", NOT_YET: "#D55E00", NOT_ATTEMPTED: "#777777"}  # Okabe and Ito 2008, and grey


@dataclass(frozen=True)
class Message:
    """A few labelled lines under a headline, e.g. a hint; shown when it is the last value of a cell."""

    title: str
    lines: tuple[tuple[str, str], ...] = ()  # label, text; the label may be empty

    def __str__(self) -> str:
        width = max((len(label) for label, _ in self.lines), default=0)
        pad = "\n" + " " * (width + 4)
        return "\n".join(
            [
                self.title,
                *(f"  {label:<{width}}  {text.replace(chr(10), pad)}".rstrip() for label, text in self.lines),
            ]
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th scope='row' style='text-align:left;vertical-align:top'>{_safe(label)}"
            f"</th><td style='text-align:left'><pre style='margin:0;white-space:pre-wrap'>{_safe(text)}</pre>"
            "</td></tr>"
            for label, text in self.lines
        )
        table = f"<table style='margin:0;font-size:inherit'>{rows}</table>" if rows else ""
        return (
            f"<section aria-label='{_safe(self.title)}' "
            f"style='border-left:5px solid {self._colour};padding-left:8px'>"
            f"<strong>{_safe(self.title)}</strong>{table}</section>"
        )

    @property
    def _colour(self) -> str:
        return COLOURS[NOT_ATTEMPTED]


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
        return COLOURS[self.status]


def _safe(text: str) -> str:
    return html.escape(text, quote=True)
