"""Rows of results as tables."""

from __future__ import annotations

from collections.abc import Sequence


def markdown(rows: Sequence[dict]) -> str:
    """Rows with the same keys as a table; fractions with three digits."""

    def line(cells) -> str:
        return f"| {' | '.join(f'{cell:.3f}' if isinstance(cell, float) else str(cell) for cell in cells)} |"

    return "\n".join([line(rows[0]), line("---" for _ in rows[0]), *(line(row.values()) for row in rows)])
