"""Results as tables."""

from __future__ import annotations

from collections.abc import Sequence

from labkit.studies.recipe import Row
from labkit.studies.statistics import paired, scores
from labkit.studies.store import Results


def table(results: Results, score: str = "dice") -> str:
    """`lines` in Markdown."""
    return markdown(lines(results, score))


def lines(results: Results, score: str = "dice") -> list[dict[str, str]]:
    """Per row: mean over patients and seeds, deviation over seeds, and how far it is from the rival on the
    same patients, with the 95 % interval of that mean."""
    cells = [line(results, row, score) for row in results.sweep.rows]
    columns = max(cells, key=len)
    return [dict.fromkeys(columns, "") | row for row in cells]


def line(results: Results, row: Row, score: str) -> dict[str, str]:
    """The cells of one row."""
    trainings, rival = results.trainings(row), results.sweep.rival
    if not trainings:
        return {"row": row.name, "tuned": "not computed yet"}
    unit = 1 if score == "false_lesions" else 100  # a count for each patient, or per cent
    values = unit * scores(trainings, score)  # (seeds, regions, patients)
    (rate,) = results.rate(row).values()
    cells = {"row": row.name, "tuned": f"{trainings[0]['tuned']:,}", "rate": f"{rate:g}"}
    for region, mean in zip(trainings[0]["test"][score], values.mean((0, 2)), strict=True):
        cells[region] = f"{mean:.1f}"
    means = values.mean((1, 2))
    spread = f" ({means.std(ddof=1):.1f})" if len(means) > 1 else ""
    cells["mean (deviation over seeds)"] = f"{means.mean():.1f}{spread}"
    cells["seeds"] = str(len(means))
    if rival:
        cells[f"beside {rival} (95 %)"] = "" if row.name == rival else beside(results, trainings, score, unit)
    return cells


def beside(results: Results, trainings: list[dict], score: str, unit: int) -> str:
    """How far trainings are from the rival's on the same patients; nothing where these are others."""
    rivals = results.trainings(results.sweep.row(results.sweep.rival))
    if not rivals or trainings[0]["patients"] != rivals[0]["patients"]:
        return ""
    mine, theirs = (unit * scores(lines, score).mean((0, 1)) for lines in (trainings, rivals))  # (patients,)
    difference, half = paired(mine, theirs)
    return f"{difference:+.1f} ({difference - half:.1f} to {difference + half:.1f})"


def markdown(rows: Sequence[dict]) -> str:
    """Rows with the same keys as a table; fractions with three digits."""

    def line(cells) -> str:
        return f"| {' | '.join(f'{cell:.3f}' if isinstance(cell, float) else str(cell) for cell in cells)} |"

    return "\n".join([line(rows[0]), line("---" for _ in rows[0]), *(line(row.values()) for row in rows)])
