"""Results of a sweep: one file, data/results/NAME.jsonl, a line a training.

Lines are sorted by row, rate and seed. A line begins with what a reader looks for, then has the scores of
every patient, what the training took, and last all that decided its numbers; `key` is the hash of that.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import numpy as np

from labkit.files import write_atomically
from labkit.paths import data_dir
from labkit.studies.recipe import Row, Sweep, Training, own, sweep


class Results:
    """The trainings of a sweep that are there, and which are missing."""

    def __init__(self, sweep: Sweep, folder: Path | None = None, networks: Path | None = None):
        """`folder`: data/results/ if none is given. `networks`: where what is learned is kept; None: nowhere,
        as numbers are enough for a table."""
        self.sweep, self.networks = sweep, networks
        self.path = (folder or data_dir() / "results") / f"{sweep.name}.jsonl"
        self._read: tuple[tuple[int, int], dict[str, dict]] = ((0, 0), {})

    @property
    def lines(self) -> dict[str, dict]:
        """Every line of the file by its key, read again when it has changed. ValueError: a broken line."""
        if not self.path.is_file():
            return {}
        state = self.path.stat()
        stamp = (state.st_mtime_ns, state.st_size)
        if self._read[0] != stamp:
            self._read = (stamp, {line["key"]: line for line in read_lines(self.path)})
        return self._read[1]

    def known(self, row: Row, rate: dict, seed: int) -> dict | None:
        """The line of a training, if it is there."""
        training = row.training(rate, seed)
        if self.path.is_relative_to(data_dir()):  # of full length, read in a quick lab as well
            training = replace(training, quick=False)
        return self.lines.get(training.key)

    def network(self, row: Row, rate: dict, seed: int) -> Path | None:
        """The file that keeps what a training learned; None: none does, or it learns no network."""
        if self.networks is None or row.is_threshold:
            return None
        at = "".join(str(value) for value in rate.values())
        return self.networks / f"{row.name.replace(' ', '_')}-rate{at}-seed{seed}.safetensors"

    def add(self, row: Row, rate: dict, seed: int, result: dict) -> None:
        """Write the line of a training: what `run.train` returned, or the same training's line of another
        sweep. What others write into the file at the same time stays."""
        training = row.training(rate, seed)
        self._write([line_of(row.name, rate, seed, training, result)])

    def _write(self, new: Sequence[dict]) -> None:
        """Under a lock, which a killed process does not keep, the file is read, sorted and replaced whole:
        killed at any moment it is the old one or the new one."""
        from filelock import FileLock

        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_suffix(".lock")):
            lines = {**self.lines, **{line["key"]: line for line in new}}
            text = "".join(json.dumps(line) + "\n" for line in sorted(lines.values(), key=place_of))
            write_atomically(self.path, lambda path: path.write_text(text, encoding="utf-8", newline="\n"))

    def take_over(self, others: Iterable[Results], rows: Sequence[Row] | None = None) -> None:
        """Copy the lines of the same trainings from other sweeps' files."""
        theirs = [other.lines for other in others]
        new = []
        for row in rows or self.sweep.rows:
            for rate in row.rates:
                for seed in self.sweep.seeds_of(row):
                    training = row.training(rate, seed)
                    known = [lines[training.key] for lines in theirs if training.key in lines]
                    if known and training.key not in self.lines:
                        new.append(line_of(row.name, rate, seed, training, known[0]))
        if new:
            self._write(new)

    def rate(self, row: Row) -> dict | None:
        """The rate that did best on validation patients with the first seed; None until all were tried, and
        where all diverged."""
        tried = [self.known(row, rate, self.sweep.seeds[0]) for rate in row.rates]
        if not all(tried) or all(map(diverged, tried)):
            return None
        return row.rates[int(np.argmax([line["validation"] for line in tried]))]

    def trainings(self, row: Row) -> list[dict]:
        """Those of the chosen rate that are there and did not diverge, in the order of the seeds."""
        rate = self.rate(row)
        if rate is None:
            return []
        lines = [self.known(row, rate, seed) for seed in self.sweep.seeds_of(row)]
        return [line for line in lines if line and not diverged(line)]

    def at_edge(self, row: Row) -> bool:
        """Whether the chosen rate is the lowest or highest of several: a better one may lie beyond."""
        tried = sorted(value for rate in row.rates for value in rate.values())
        rate = self.rate(row)
        return len(tried) > 1 and rate is not None and set(rate.values()) <= {tried[0], tried[-1]}

    def wanted(self, row: Row) -> list[tuple[dict, int]]:
        """Rates and seeds of a row, as far as known: every rate, and the chosen one with every seed."""
        first, *others = self.sweep.seeds_of(row)
        rate = self.rate(row)
        return [(tried, first) for tried in row.rates] + [(rate, seed) for seed in others if rate is not None]

    def missing(self, rows: Sequence[Row] | None = None) -> list[tuple[Row, dict, int]]:
        """Trainings to make, those that choose a rate first; to be asked anew after each."""
        by_row = [[(row, *wanted) for wanted in self.wanted(row)] for row in rows or self.sweep.rows]
        in_turn = [job for jobs in zip_longest(*by_row) for job in jobs if job]
        return [job for job in in_turn if self.known(*job) is None]


def results(name: str, folder: Path | None = None, scans: Path | None = None) -> Results:
    """Those of a recipe, of the patients in `scans` where they are not made on the spot.

    They lie in `folder`: by default in data/results, those of a recipe of one's own beside it. ValueError:
    there is no such recipe.
    """
    return Results(sweep(name, scans), folder or (Path(name).parent if own(name) else None))


def diverged(line: dict) -> bool:
    """Whether this training came to numbers that are not finite: it has no scores."""
    return "diverged" in line["took"]


def read_lines(path: Path) -> list[dict]:
    """A file of results. ValueError: a line that is no training."""
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            line = json.loads(text)
            place_of(line)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number} is no training ({error!r}); remove the line, and `labkit sweep "
                f"{path.stem}` makes it again."
            ) from error
        lines.append(line)
    return lines


def line_of(row: str, rate: dict, seed: int, training: Training, result: dict) -> dict:
    """A line of the file, in the order in which it is read; losses only where networks are kept, too."""
    wanted = ("validation", "tuned", "inserted", "test", "patients", "took")
    head = {"row": row, **rate, "seed": seed, "key": training.key}
    losses = {"losses": result["losses"]} if "losses" in result else {}
    return head | {name: result[name] for name in wanted} | losses | {"training": training.described}


def place_of(line: dict) -> tuple:
    """By which lines are sorted. KeyError: it is none."""
    rates = tuple(line["training"]["recipe"].get(name, 0.0) for name in ("lr", "head_lr"))
    return line["row"], *rates, line["seed"], line["key"]
