"""One page from the trainings that are there: what they say, the tables, the figures, and what is missing.

labkit report --out report      report/index.html, one file without links to others, and report/tables.md
labkit report RUN               the same of a study that `labkit train --out RUN` made, in RUN/report/
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from labkit.explore import deltas, plots
from labkit.explore.pictures import BLUE, ORANGE, VERMILLION, unit
from labkit.files import write_atomically
from labkit.networks.segmenter import segmenter
from labkit.studies import recipe, run_folder, store
from labkit.studies import table as tables
from labkit.studies.parameter_tables import published
from labkit.studies.recipe import method_of
from labkit.studies.run_folder import CONTROLS
from labkit.studies.statistics import estimate, scores
from labkit.studies.store import Results
from labkit.studies.table import apart_of, best_by_validation, markdown
from labkit.training.cost import MIB, saved_for_backward
from labkit.tuning import tune

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 }
th, td { padding: .2em .8em; border-bottom: 1px solid #ccc; text-align: right }
td:first-child, th:first-child { text-align: left }
figure { margin: 1em 0 } img { max-width: 100% } code { background: #f2f2f2; padding: .1em .3em }
"""
PAPERS = {"brain": "BraTS 2019", "kidney": "KiTS19"}  # whose tables stand beside our sweeps
QUESTIONS = (
    "hippocampus",
    "kidney",
    "brain",
    "brain_still",
    "kidney_long",
    "brain_long",
)  # what they say stands first on the page
OURS = "Med-Tuning"
CLAIMS = (  # a row above its control
    ("Head", "frozen random"),  # pre-training pays, nothing else differs
    ("Full", "Scratch"),  # and so when everything is tuned
    ("LoRA", "Full"),  # few numbers suffice
    ("LoRA", "Head"),  # and the head alone does not
    (OURS, "LoRA"),  # volumes
    (OURS, "Full"),
)


def report(out: Path, results: Path | None = None) -> str:
    """Write the page and the tables from data/results/ or another folder; says where they lie."""
    parts, texts = [], []
    studies = {name: store.results(name, results) for name in recipe.names()}
    main = [name for name in QUESTIONS if name in studies]
    for name in main:
        parts.append(section("What came out: " + name, items(findings(studies[name]))))
    for name in [*main, *(name for name in studies if name not in main)]:
        body, text = of_sweep(studies[name])
        parts.append(body)
        texts.append(text)
    parts.append(section("What a training step keeps in memory", picture(memory, "labkit report")))
    parts.append(section("The same slice by every method", picture(patients, "labkit deltas")))
    return write_page(out, "Results", parts, texts)


def report_study(run: Path, out: Path) -> str:
    """Write the same of what `labkit train --out RUN` made; says where it lies. ValueError: it is no run."""
    asked = run_folder.opened(run)
    command = f"labkit train ... --out {run} --resume"  # with the words that it was begun with
    methods = run_folder.methods_of(asked)
    pairs = [(name, control) for control in CONTROLS for name in methods]
    pairs += [(name, methods[0]) for name in methods[1:]]
    found = findings(asked, pairs, command)
    if any(asked.trainings(asked.sweep.row(name)) for name in methods):
        _, which, _ = run_folder.best_network(asked)
        found.append(f"`labkit predict {run}` takes the network of {which}.")
    said = section("What came out", items(found))
    body, text = of_sweep(asked, command)
    curves = section("Losses, and Dice by patient", picture(lambda: of_run(asked), command))
    return write_page(out, asked.sweep.about, [said, body, curves], [text])


def of_run(asked: Results) -> tuple[Figure, str] | None:
    """The figure of a run, in words."""
    if not any(asked.trainings(row) for row in asked.sweep.rows):
        return None
    words = (
        "Left the training loss by step, a line a method. Right Dice of held-out patients, a row a method."
    )
    return run_folder.figure(asked), words


def write_page(out: Path, title: str, parts: list[str], texts: list[str]) -> str:
    """index.html and tables.md in a folder; says where they lie."""
    head = f"<meta charset='utf-8'><title>labkit: {html.escape(title)}</title><style>{STYLE}</style>"
    page = f"<!doctype html><html lang='en'>{head}<h1>{html.escape(title)}</h1>{''.join(parts)}</html>"
    for name, text in (("index.html", page), ("tables.md", "\n".join(texts))):
        write_atomically(out / name, lambda path, text=text: path.write_text(text, encoding="utf-8"))
    return f"{out / 'index.html'} and {out / 'tables.md'}"


def of_sweep(asked: Results, command: str | None = None) -> tuple[str, str]:
    """A section of the page, and the same table in Markdown. `command` makes what is missing, by default that
    of a sweep."""
    command = command or f"labkit sweep {asked.sweep.name}"
    missing = len(asked.missing())
    note = f"{missing} trainings and more are missing: `{command}` makes them." if missing else ""
    title = f"{asked.sweep.name}: {asked.sweep.about}"
    body, text = paragraph(note), f"## {title}\n\n{note}\n\n"
    if any(asked.trainings(row) for row in asked.sweep.rows):
        for kind, words in (("dice", "Dice in per cent"), ("lesion_dice", "Lesion-wise Dice in per cent")):
            body += f"<h3>{words}</h3>{table(tables.lines(asked, kind))}"
            body += "".join(paragraph(note) for note in tables.notes(asked))
            text += f"{words}, made by `{command}`:\n\n{tables.table(asked, kind)}\n\n"
        body += picture(lambda: dots(asked), command)
        body += picture(lambda: scatter(asked), command)
    if asked.sweep.name in PAPERS:
        body += f"<h3>Beside the paper</h3>{table(beside(asked))}"
        text += f"Beside {PAPERS[asked.sweep.name]} as the paper prints it:\n\n{markdown(beside(asked))}\n\n"
    return section(title, body), text


# What came out


def findings(
    asked: Results, claims: Sequence[tuple[str, str]] = CLAIMS, command: str | None = None
) -> list[str]:
    """Sentences: what each claim, a row above another, comes to in these rows, with its control, and what
    weakens it.

    The best rival is chosen by validation patients: whoever is chosen by test patients is too good on them.
    """
    rows = [row.name for row in asked.sweep.rows]
    done = [row.name for row in asked.sweep.rows if asked.trainings(row)]
    said = [f"{len(done)} of {len(rows)} rows are there (`{command or f'labkit sweep {asked.sweep.name}'}`)."]
    pairs = [pair for pair in claims if set(pair) <= set(done)]
    if OURS in done:
        best = best_by_validation(asked, [name for name in done if name not in (OURS, *CONTROLS)])
        pairs += [(OURS, best)] if best and (OURS, best) not in pairs else []
    for kind in ("dice", "lesion_dice"):
        said += [difference(asked, *pair, kind) for pair in pairs]
    if "threshold" in done:
        beaten = [name for name in done if name != "threshold" and above(asked, name, "threshold")]
        others = [name for name in done if name not in ("threshold", *beaten)]
        names = ", ".join(others) or "none"
        said.append(
            f"Above the threshold, which needs no network: {len(beaten)} rows. Not above it: {names}."
        )
    edges = [row.name for row in asked.sweep.rows if row.name in done and asked.at_edge(row)]
    if edges:
        said.append(
            f"The best rate lies at the edge of what was tried, so more may be in it: {', '.join(edges)}."
        )
    return said + order(asked, done)


def difference(asked: Results, name: str, other: str, kind: str) -> str:
    """A sentence: is one row above another, patient by patient, and by how much?"""
    apart = apart_of(asked, name, other, kind)
    words = "above" if apart.low > 0 else "below" if apart.high < 0 else "not told apart from"
    score = {"dice": "Dice", "lesion_dice": "lesion-wise Dice"}[kind]
    one = math.isnan(apart.half)
    interval = "no interval" if one else f"95 % interval {apart.low:.1f} to {apart.high:.1f}"
    seeds = "one training" if apart.seeds == 1 else f"{apart.seeds} seeds"
    return (
        f"{name} is {words} {other}: {apart.mean:+.1f} points of {score}, {interval} over {seeds} and "
        f"{apart.patients} test patient{'s'[: apart.patients != 1]}."
    )


def above(asked: Results, name: str, other: str) -> bool:
    """Whether the whole interval of a difference in Dice is above 0."""
    apart = apart_of(asked, name, other)
    return apart is not None and apart.low > 0


def order(asked: Results, done: list[str]) -> list[str]:
    """How alike our ranks are to the paper's, where it has a table of that organ."""
    printed = published(PAPERS[asked.sweep.name], "vit") if asked.sweep.name in PAPERS else {}
    shared = [name for name in printed if name in done]
    if len(shared) < 4:
        return []
    from scipy.stats import spearmanr

    ours = [estimate(scores(asked.trainings(asked.sweep.row(name)))).mean for name in shared]
    theirs = [np.mean(list(printed[name].values())) for name in shared]
    return [
        f"Rank correlation with the paper's order of {len(shared)} methods on {PAPERS[asked.sweep.name]} "
        f"(Spearman): {spearmanr(ours, theirs).statistic:.2f}."
    ]


def beside(asked: Results) -> list[dict[str, str]]:
    """The paper's rows and ours: other patients and another network, so only the order compares."""
    rows = []
    for name, regions in published(PAPERS[asked.sweep.name], "vit").items():
        known = [row for row in asked.sweep.rows if row.name == name]
        found = asked.trainings(known[0]) if known else []
        ours = 100 * np.nanmean(scores(found), axis=(0, 2)) if found else [None] * len(regions)
        row = {"method": name} | {f"{r}, paper": f"{value:.2f}" for r, value in regions.items()}
        names = found[0]["test"]["dice"] if found else regions
        cells = {f"{r}, ours": "" if x is None else f"{x:.1f}" for r, x in zip(names, ours, strict=False)}
        rows.append(row | cells)
    return rows


# Figures: each with its words


def dots(asked: Results) -> tuple[Figure, str]:
    """Dice of every test patient, a row a method."""
    found = {row.name: asked.trainings(row) for row in asked.sweep.rows}
    figure = plots.patients_by_row(
        {name: scores(one) for name, one in found.items() if one}, "Dice, mean of the regions"
    )
    return figure, "Dice by row, best on top: grey dots are test patients, blue marks the mean of each seed."


def scatter(asked: Results) -> tuple[Figure, str]:
    """Dice against tuned parameters."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    for row in asked.sweep.rows:
        if found := asked.trainings(row):
            at = max(found[0]["tuned"], 1), estimate(scores(found)).mean
            axis.plot(*at, "o", color=unit(VERMILLION if row.name == OURS else BLUE))
            axis.annotate(row.name, at, xytext=(5, 4), textcoords="offset points", fontsize=8)
    axis.set(xscale="log", xlabel="tuned parameters", ylabel="Dice, mean of the regions")
    axis.spines[["top", "right"]].set_visible(False)
    return figure, f"Dice against tuned parameters of the rows of {asked.sweep.name}."


def memory() -> tuple[Figure, str]:
    """What the forward pass keeps for the backward pass, measured now."""
    import torch
    from matplotlib.figure import Figure

    x, kept = torch.zeros(1, 4, 4, 96, 96), {}
    networks = [row for row in recipe.sweep("brain").rows if row.name not in CONTROLS]
    for row in networks:
        kept[row.name] = saved_for_backward(tune(segmenter(), method_of(row.method)), x) / MIB
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    names = sorted(kept, key=kept.get)
    axis.barh(names, [kept[name] for name in names], color=unit(ORANGE))
    axis.set_xlabel("MiB kept for the backward pass of four slices")
    axis.spines[["top", "right"]].set_visible(False)
    return figure, "Memory by method: " + ", ".join(f"{name} {kept[name]:.0f} MiB" for name in names) + "."


def patients() -> tuple[Figure, str] | None:
    """One slice of a test patient by every network of the kit that was trained on runs of slices."""
    from labkit.explore.pictures import fullest
    from labkit.phantoms.brain import brain_patients
    from labkit.scans.slices import to_volume
    from labkit.training.evaluate import predict

    names = [name for name in deltas.DELTAS if name.startswith("volumes-") and deltas.place(name).exists()]
    if not names:
        return None
    case = brain_patients("test", 1)[0]
    volume, index = to_volume(case), fullest(case.label)
    found = {name.removeprefix("volumes-"): predict(deltas.network(name), volume, 4) for name in names}
    figure = plots.multiples(case, index, {name: label[index] for name, label in found.items()})
    words = "; ".join(f"{name} {plots.scores(case, label)}" for name, label in found.items())
    return figure, f"{case.name}, slice {index}, by {len(found)} networks. Dice of the patient: {words}."


# Pieces of the page


def section(title: str, body: str) -> str:
    """A part of the page under its heading."""
    return f"<section><h2>{html.escape(title)}</h2>{body}</section>"


def with_code(text: str) -> str:
    """Text as HTML, `code` set as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def paragraph(text: str) -> str:
    """A paragraph, or nothing for an empty text."""
    return f"<p>{with_code(text)}</p>" if text else ""


def items(texts: list[str]) -> str:
    """Sentences as a list."""
    return "<ul>" + "".join(f"<li>{with_code(text)}</li>" for text in texts) + "</ul>"


def table(rows: list[dict[str, str]]) -> str:
    """Rows with the same keys as a table."""
    head = "".join(f"<th scope='col'>{html.escape(name)}</th>" for name in rows[0])
    lines = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row.values()) for row in rows)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def picture(draw: Callable[[], tuple[Figure, str] | None], command: str) -> str:
    """A figure with its words and the command that made its numbers, or the command that is still to run."""
    drawn = draw()
    if drawn is None:
        return paragraph(f"Its numbers are missing: `{command}` makes them.")
    shown = plots.show(*drawn)._repr_mimebundle_()[0]["text/html"]
    words = f"{html.escape(drawn[1])} Made by <code>{command}</code>."
    return f"<figure>{shown}<figcaption>{words}</figcaption></figure>"
