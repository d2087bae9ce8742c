"""A page that can run nothing: text, tables and pictures, readable without colour, printable."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable

from labkit.grading.evidence import clean

STYLE = """
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 48rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin: 2.5rem 0 .5rem; border-bottom: 2px solid #111; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
caption { text-align: left; padding: .3rem 0; font-weight: 600; }
th, td { border: 1px solid #999; padding: .3rem .6rem; text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid #111; }
td:first-child { min-width: 15rem; }
td.bar { width: 200px; border-right: none; }
td.bar + td { border-left: none; }
td.number, th.number { text-align: right; white-space: nowrap; }
.mistake { border-left: .4rem double #111; padding-left: .8rem; font-weight: 600; }
code { white-space: pre-wrap; overflow-wrap: anywhere; }
svg { max-width: 100%; height: auto; }
@media print { body { margin: 0; max-width: none; } section { break-inside: avoid; } }
"""


def page(title: str, body: Iterable[str]) -> str:
    """A whole document. `title` is escaped here; the parts of `body` are markup already.

    Its policy forbids everything but this very style sheet: no script, picture, form or address of any kind.
    """
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    parts = "\n".join(body)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{text(title)}</h1>
{parts}
</main>
</body>
</html>
"""


def text(value: object, limit: int = 500) -> str:
    """Any text as text: no markup, no colours of a terminal, no sign that hides or turns the others."""
    return html.escape(clean(value, limit))


def table(head: list[str], rows: Iterable[list[object]], caption: str, numbers: int = 0) -> str:
    """A table whose last `numbers` columns are numbers; every cell is escaped here."""
    kinds = [""] * (len(head) - numbers) + [' class="number"'] * numbers
    top = "".join(f'<th scope="col"{kind}>{text(name)}</th>' for name, kind in zip(head, kinds, strict=True))
    lines = [
        "".join(f"<td{kind}>{text(cell)}</td>" for cell, kind in zip(row, kinds, strict=True)) for row in rows
    ]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f"<table>\n<caption>{text(caption)}</caption>\n<thead><tr>{top}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table>"
    )


def tally(counts: list[tuple[str, int]], most: int, head: tuple[str, str], caption: str) -> str:
    """A table of labels in full and their numbers, with a bar between for those who see it."""
    lines = [
        f'<tr><td>{text(label)}</td><td class="bar">{_bar(count / max(most, 1))}</td>'
        f'<td class="number">{count}</td></tr>'
        for label, count in counts
    ]
    label, number = map(text, head)
    return (
        f'<table>\n<caption>{text(caption)}</caption>\n<thead><tr><th scope="col">{label}</th>'
        f'<th scope="col" class="number" colspan="2">{number}</th></tr></thead>\n<tbody>\n'
        + "\n".join(lines)
        + "\n</tbody>\n</table>"
    )


def _bar(share: float, width: int = 200, height: int = 14) -> str:
    """A bar; it is no news to a screen reader, which has the number beside it."""
    return (
        f'<svg aria-hidden="true" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'xmlns="http://www.w3.org/2000/svg"><rect x="1" y="1" width="{share * (width - 2):.1f}" '
        f'height="{height - 2}" fill="#bbb" stroke="#111"/></svg>'
    )
