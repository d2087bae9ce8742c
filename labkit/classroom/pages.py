"""A page that can run nothing: text, tables and pictures, readable without colour, printable."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable

from labkit.grading.evidence import clean

STYLE = """
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 48rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { border: 1px solid #666; padding: .3rem .6rem; text-align: left; vertical-align: top; }
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


def bars(counts: list[tuple[str, int]], most: int, title: str) -> str:
    """Horizontal bars with labels and numbers; the picture's name for a screen reader has them all."""
    height, left, width = 26, 300, 340
    said = "; ".join(f"{label}: {count}" for label, count in counts)
    lines = []
    for row, (label, count) in enumerate(counts):
        y = row * height
        long = width * count / max(most, 1)
        short = label if len(label) <= 44 else f"{label[:43]}\N{HORIZONTAL ELLIPSIS}"
        lines.append(
            f'<text x="{left - 8}" y="{y + 17}" text-anchor="end" font-size="13">{text(short)}</text>'
            f'<rect x="{left}" y="{y + 4}" width="{long:.1f}" height="{height - 8}" fill="#ccc" '
            f'stroke="#111"/>'
            f'<text x="{left + long + 6:.1f}" y="{y + 17}" font-size="13">{count}</text>'
        )
    name = text(f"{title}. {said}", 4000)
    return (
        f'<svg role="img" aria-label="{name}" viewBox="0 0 {left + width + 40} {height * len(counts) + 4}" '
        f'xmlns="http://www.w3.org/2000/svg" font-family="sans-serif">\n<title>{name}</title>\n'
        + "\n".join(lines)
        + "\n</svg>"
    )
