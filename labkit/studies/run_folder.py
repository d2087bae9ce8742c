"""What `labkit train --out RUN` leaves in a folder, and how others read it.

    RUN/study.json              what was asked, as a recipe of a sweep; RUN/study.jsonl  a line a training
    RUN/networks/               what each training learned: METHOD-rateRATE-seedSEED.safetensors
    RUN/table.md, table.csv     Dice per method with intervals, for people and for programs
    RUN/losses.csv              the loss of every step of every training
    RUN/figure.png              the losses of the trainings in the table, and Dice of every test patient

All but the first three are made from these, and may be made again at any time (`write_results`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from labkit.explore.pictures import BLUE, GREEN, ORANGE, PURPLE, SKY_BLUE, VERMILLION, unit
from labkit.explore.plots import figure_png
from labkit.files import write_atomically
from labkit.studies import table as tables
from labkit.studies.recipe import read
from labkit.studies.statistics import estimate, scores
from labkit.studies.store import Results
from labkit.studies.table import best_by_validation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STUDY, NETWORKS = "study.json", "networks"
CONTROLS = ("threshold", "frozen random")  # rows of every study that a network has to beat
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY_BLUE, (0, 0, 0))  # Okabe and Ito's
DASHES = ("-", "--", "-.", ":")  # so that lines are told apart without colours as well


def opened(run: Path) -> Results:
    """The trainings of a run, and which are missing. ValueError: the folder holds none."""
    if not (run / STUDY).is_file():
        raise ValueError(f"{run} is no run of `labkit train --out`: there is no {STUDY} in it.")
    return Results(read(run / STUDY), run, run / NETWORKS)


def is_run(path: Path) -> bool:
    """Whether `labkit train --out` began to write this folder."""
    return (path / STUDY).is_file()


def methods_of(results: Results) -> list[str]:
    """The rows that were asked for: all but the controls."""
    return [row.name for row in results.sweep.rows if row.name not in CONTROLS]


def best_network(results: Results, method: str | None = None) -> tuple[Path, str, Path | None]:
    """The network to label scans with: its file, words that say which it is, and the file of its backbone's
    weights, if these are not the kit's.

    It is of `method`, or of the one that does best on validation patients, and of its seeds the one that does
    best there: whatever the test patients say of it was not used to choose it. ValueError: there is no such
    row, it has no network, none was trained yet, or the file is gone.
    """
    name = method or best_by_validation(results, methods_of(results))
    if name is None:
        raise ValueError(f"{results.path.parent} holds no trained network yet; go on with --resume.")
    row = results.sweep.row(name)
    if row.is_threshold:
        raise ValueError(
            f"The {name} is a control without a network; name one of {', '.join(networks(results))}."
        )
    if not (trained := results.trainings(row)):
        raise ValueError(f"{name} was not trained to its end in {results.path.parent}; go on with --resume.")
    line = max(trained, key=lambda line: line["validation"])
    file = results.network(row, results.rate(row), line["seed"])
    if not file.is_file():
        raise ValueError(f"{file} is not there any more; bring it back, or train into a new folder.")
    chosen = "asked for" if method else compared(results)
    weights = row.network.get("weights") if row.weights == "pretrained" else None
    return file, f"{name}, {chosen}, seed {line['seed']}", weights and Path(weights)


def compared(results: Results) -> str:
    """Of how many methods the best was taken; of a study that was stopped, which could not be one of them."""
    asked = methods_of(results)
    lacking = [name for name in asked if not results.trainings(results.sweep.row(name))]
    without = f" (no network yet: {', '.join(lacking)})" if lacking else ""
    return f"best of {len(asked) - len(lacking)} on validation patients{without}"


def networks(results: Results) -> list[str]:
    """The rows that have a network."""
    return [row.name for row in results.sweep.rows if not row.is_threshold]


def write_results(results: Results) -> list[Path]:
    """Tables, losses and figure from the trainings that are there; nothing where there are none."""
    folder, rows = results.path.parent, tables.numbers(results)
    if not rows:
        return []
    texts = {
        "table.md": in_words(results),
        "table.csv": as_csv(rows),
        "losses.csv": as_csv(losses(results)),
    }
    for name, text in texts.items():
        write_atomically(
            folder / name, lambda path, text=text: path.write_text(text, encoding="utf-8", newline="\n")
        )
    picture = figure_png(figure(results), dpi=120)
    write_atomically(folder / "figure.png", lambda path: path.write_bytes(picture))
    return [folder / name for name in (*texts, "figure.png")]


def in_words(results: Results) -> str:
    """The table in Markdown with all that must be read with it; false lesions where a region is lacking."""
    data = results.sweep.rows[0].data
    patients = ", ".join(
        f"{len(data[part])} {words}"
        for part, words in (("train", "to train on"), ("validation", "to choose on"), ("test", "tested"))
    )
    parts = [f"# {results.sweep.about}", f"Patients: {patients}. Dice in per cent.", tables.table(results)]
    if lacking(results):
        parts += [
            "What is marked of regions that a patient may not have, lesions a patient:",
            tables.markdown(tables.lines(results, "false_lesions")),
        ]
    return "\n\n".join(parts) + "\n"


def lacking(results: Results) -> bool:
    """Whether some test patient does not have some region."""
    found = [results.trainings(row) for row in results.sweep.rows]
    return any(np.isnan(scores(trainings)).any() for trainings in found if trainings)


def losses(results: Results) -> list[dict]:
    """A row per step of every training: that of a rate which was tried and not chosen, too."""
    rows = []
    for line in results.lines.values():
        rate = line.get("lr", line.get("head_lr"))
        head = {"row": line["row"], "rate": rate, "seed": line["seed"]}
        rows += [head | {"step": n, "loss": loss} for n, loss in enumerate(line.get("losses", ()), start=1)]
    return rows or [dict.fromkeys(("row", "rate", "seed", "step", "loss"))]


def as_csv(rows: Sequence[dict]) -> str:
    """Rows with the same keys as CSV: a header, a point in numbers, nothing where there is no number."""
    file = io.StringIO()
    writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


# The figure


def figure(results: Results) -> Figure:
    """The losses of the trainings that are in the table, and beside them Dice per row."""
    from matplotlib.figure import Figure

    found = {row.name: trainings for row in results.sweep.rows if (trainings := results.trainings(row))}
    drawn = Figure(figsize=(11, 2.4 + 0.45 * max(len(found), 3)), layout="constrained")
    left, right = drawn.subplots(1, 2)
    draw_losses(left, found)
    draw_dice(right, found)
    for panel in (left, right):
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.3)
    return drawn


def draw_losses(panel, found: dict[str, list[dict]]) -> None:
    """Thin: a seed. Thick: the mean over seeds of the last tenth of the steps."""
    with_losses = {name: trainings for name, trainings in found.items() if trainings[0].get("losses")}
    for i, (name, trainings) in enumerate(with_losses.items()):
        colour = unit(COLOURS[i % len(COLOURS)])
        seeds = [line["losses"] for line in trainings]
        for losses in seeds:
            panel.plot(range(1, len(losses) + 1), losses, color=colour, alpha=0.2, linewidth=0.7)
        mean = trailing(np.mean(seeds, axis=0))
        dashes = DASHES[i % len(DASHES)]
        panel.plot(range(1, len(mean) + 1), mean, dashes, color=colour, linewidth=1.8, label=name)
    panel.set(title="training loss (thick: smoothed mean of the seeds)", xlabel="step")
    panel.set_ylabel("cross-entropy + 1 - soft Dice")
    panel.xaxis.get_major_locator().set_params(integer=True)
    if with_losses:
        panel.legend(frameon=False, fontsize=9)


def trailing(values: np.ndarray, share: float = 0.1) -> np.ndarray:
    """The mean of the last tenth of all steps, or of as many as there are, at every step."""
    width = max(1, round(len(values) * share))
    return np.array([values[max(0, end - width) : end].mean() for end in range(1, len(values) + 1)])


def draw_dice(panel, found: dict[str, list[dict]]) -> None:
    """A row each, the first on top: test patients, seeds, and the mean with its interval."""
    for height, trainings in enumerate(reversed(found.values())):
        values = 100 * scores(trainings)  # (seeds, regions, patients)
        values = values[
            :, :, ~np.isnan(values).all((0, 1))
        ]  # of a patient without any region nothing is known
        patients = np.nanmean(values, axis=(0, 1))
        seeds = [estimate(values[[n]]).mean for n in range(len(values))]
        whole = estimate(values)
        first = height == 0
        panel.plot(
            patients,
            [height] * len(patients),
            "o",
            color="grey",
            alpha=0.4,
            markersize=5,
            label="a test patient, mean of the seeds" if first else None,
        )
        panel.plot(
            seeds,
            [height + 0.18] * len(seeds),
            "D",
            color=unit(ORANGE),
            markeredgecolor="black",
            markeredgewidth=0.5,
            markersize=5,
            label="a seed, mean of the patients" if first else None,
        )
        panel.errorbar(
            whole.mean,
            height - 0.18,
            xerr=None if np.isnan(whole.half) else whole.half,
            fmt="s",
            color=unit(BLUE),
            markersize=5,
            capsize=3,
            label="mean with its 95 % interval" if first else None,
        )
    names = list(reversed(found))
    panel.set(title="held-out patients", xlabel="Dice in per cent, mean of the regions")
    panel.set_xlim(-2, 102)  # an interval of few patients may end outside, where no Dice is
    panel.set_yticks(range(len(names)), names)
    panel.set_ylim(-0.6, len(names) - 0.4)
    if names:
        panel.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)
