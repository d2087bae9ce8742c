"""Results as tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from labkit.studies.recipe import Row
from labkit.studies.statistics import Estimate, difference, estimate, scores
from labkit.studies.store import Results, diverged, results

RULE = (
    "A region that a patient does not have is no test of its Dice: he is left out of its mean "
    "(`labkit.metrics`). Intervals are of 95 % and hold for other patients and other seeds."
)
ONE_TRAINING = "One training: its interval holds for other patients, not for another seed."
EDGE = "(edge)"


def table(results: Results, score: str = "dice") -> str:
    """`lines` in Markdown, and under them what a reader must know."""
    return "\n\n".join([markdown(lines(results, score)), *notes(results)])


def lines(results: Results, score: str = "dice") -> list[dict[str, str]]:
    """Per row: means over seeds and over the patients who have the region, their mean with its interval, and
    how far it is from the row's rival on the same patients."""
    cells = [line(results, row, score) for row in results.sweep.rows]
    columns = max(cells, key=len)
    return [dict.fromkeys(columns, "") | row for row in cells]


def line(results: Results, row: Row, score: str) -> dict[str, str]:
    """The cells of one row."""
    trainings = results.trainings(row)
    if not trainings:
        tried = [results.known(row, rate, results.sweep.seeds[0]) for rate in row.rates]
        there = all(tried) and all(map(diverged, tried))
        return {"row": row.name, "tuned": "diverged at every rate" if there else "not computed yet"}
    values = unit(score) * scores(trainings, score)  # (seeds, regions, patients)
    rate = "".join(f"{value:g}" for value in results.rate(row).values())
    edge = f" {EDGE}" if results.at_edge(row) else ""
    cells = {"row": row.name, "tuned": f"{trainings[0]['tuned']:,}", "rate": f"{rate}{edge}"}
    for region, of_region in zip(trainings[0]["test"][score], values.swapaxes(0, 1), strict=True):
        present = int((~np.isnan(of_region[0])).sum())
        cells[f"{region} (n = {present})"] = f"{np.nanmean(of_region):.1f}" if present else "-"
    whole = estimate(values)
    cells["mean (95 %)"] = f"{whole.mean:.1f} ({between(whole)})"
    cells["seeds"] = str(whole.seeds)
    if any(other.rival for other in results.sweep.rows):
        cells["less its rival (95 %)"] = beside(results, row, score)
    return cells


def beside(results: Results, row: Row, score: str) -> str:
    """How far a row is above its rival on the same patients; nothing where there is none."""
    if row.rival in (None, row.name):
        return ""
    apart = apart_of(results, row.name, row.rival, score)
    if apart is None:
        return ""
    return f"{apart.mean:+.1f} ({between(apart)}) {row.rival}"


def between(estimate: Estimate) -> str:
    """The ends of an interval, in words; one patient has none."""
    if math.isnan(estimate.half):
        return "no interval: one patient"
    return f"{estimate.low:.1f} to {estimate.high:.1f}"


def numbers(results: Results, score: str = "dice") -> list[dict]:
    """`lines` for a program to read: the same numbers without rounding, a column each, of the rows that were
    trained; per region its mean and the patients who have it."""
    rows = []
    for row in results.sweep.rows:
        if not (trainings := results.trainings(row)):
            continue
        values = unit(score) * scores(trainings, score)  # (seeds, regions, patients)
        rate = next(iter(results.rate(row).values()), None)
        cells = {"row": row.name, "tuned": trainings[0]["tuned"], "rate": rate, "edge": results.at_edge(row)}
        for region, of_region in zip(trainings[0]["test"][score], values.swapaxes(0, 1), strict=True):
            present = int((~np.isnan(of_region[0])).sum())
            cells |= {region: np.nanmean(of_region) if present else None, f"{region}, patients": present}
        whole = estimate(values)
        cells |= {"mean": whole.mean, "low": whole.low, "high": whole.high}
        cells |= {"seeds": whole.seeds, "patients": whole.patients}
        rival = row.rival if row.rival != row.name else None
        apart = apart_of(results, row.name, rival, score) if rival else None
        ends = (apart.mean, apart.low, apart.high) if apart else (None, None, None)
        cells |= {"rival": rival} | dict(zip(("less rival", "less low", "less high"), ends, strict=True))
        rows.append(cells)
    return rows


def apart_of(results: Results, name: str, other: str, score: str = "dice") -> Estimate | None:
    """How far one row is above another on the same patients; None where one is missing, or others were
    looked at."""
    rows = [results.sweep.row(row) for row in (name, other)]
    mine, theirs = (results.trainings(row) for row in rows)
    if not mine or not theirs or mine[0]["patients"] != theirs[0]["patients"]:
        return None
    if rows[1].is_threshold:
        theirs = theirs * len(mine)  # it is the same whatever the seed
    return difference(*(unit(score) * scores(trainings, score) for trainings in (mine, theirs)))


def threshold_beside(made: Results) -> dict[str, float]:
    """Points of Dice, by region, of a threshold on the test patients of a table: what needs no network.

    It is the stored one of `pretraining`, whose bands were chosen on as many patients of the organ.
    ValueError: a patient of the table is none of its.
    """
    stored = results("pretraining")
    line = stored.trainings(stored.sweep.row(f"{made.sweep.rows[0].data['organ']}: threshold"))[0]
    patients = next(filter(None, map(made.trainings, made.sweep.rows)))[0]["patients"]
    at = [line["patients"].index(name) for name in patients]
    dice = line["test"]["dice"]
    return {region: 100 * float(np.nanmean(np.array(dice[region], float)[at])) for region in dice}


def best_by_validation(results: Results, names: Sequence[str]) -> str | None:
    """Of these rows the one that does best on validation patients, mean over its seeds: who is chosen so owes
    nothing to the test patients. None where none was trained."""
    found = {name: results.trainings(results.sweep.row(name)) for name in names}
    means = {
        name: np.mean([training["validation"] for training in trainings])
        for name, trainings in found.items()
        if trainings
    }
    return max(means, key=means.get, default=None)


def notes(results: Results) -> list[str]:
    """What must be read with the table: its rule, single trainings, rates at an edge, how many looks."""
    trained = [(row, results.trainings(row)) for row in results.sweep.rows]
    trained = [(row, trainings) for row, trainings in trained if trainings]
    if not trained:
        return []
    said = [RULE]
    few = [row.name for row, trainings in trained if len(trainings) < len(results.sweep.seeds_of(row))]
    if few:
        said.append(f"Fewer seeds than asked for: {', '.join(few)}. {ONE_TRAINING}")
    edges = [row.name for row, _ in trained if results.at_edge(row)]
    if edges:
        said.append(f"{EDGE}: the best rate is the lowest or highest tried, so a better one may lie beyond.")
    looks = sum(row.rival not in (None, row.name) for row, _ in trained)
    if looks > 1:
        said.append(
            f"{looks} rows are compared with a rival: of {looks} such intervals {0.05 * looks:.1f} miss the "
            "truth by chance alone."
        )
    return said


def unit(score: str) -> int:
    """By what a score is multiplied: shares are shown in per cent, false lesions as they were counted."""
    return 1 if score == "false_lesions" else 100


def markdown(rows: Sequence[dict]) -> str:
    """Rows with the same keys as a table; fractions with three digits."""

    def line(cells) -> str:
        return f"| {' | '.join(f'{cell:.3f}' if isinstance(cell, float) else str(cell) for cell in cells)} |"

    return "\n".join([line(rows[0]), line("---" for _ in rows[0]), *(line(row.values()) for row in rows)])
