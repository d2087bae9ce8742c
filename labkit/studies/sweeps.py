"""Sweeps: one question, many trainings, one small file each, and the table that answers it.

    labkit sweep brain            run what is missing of labkit/studies/recipes/brain.toml, print its table
    labkit sweep brain --table    only print what is there
    labkit sweep brain --scheduler tcp://node:8786    the trainings on a Dask cluster

A recipe is a TOML file: `data`, `recipe` and `decoder` hold for every row unless a `[[row]]` says otherwise.
A row names its method, `method = {lora = {r = 8}}` (several are combined), and two learning rates under `lr`
(or `head_lr`, for what tunes nothing but the head). The rate that does better on the validation patients with
the first seed is trained with the other seeds too; only those trainings enter the table.

A training's file is named after all that the recipe says about it: whoever changes a recipe gets new
trainings, not old numbers, and two recipes share what is the same in both.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from importlib import import_module
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from labkit.files import write_atomically
from labkit.methods import METHODS
from labkit.networks.segmenter import DECODERS
from labkit.paths import data_dir
from labkit.scans.folders import read_folder, split
from labkit.scans.slices import Volume, to_volume
from labkit.studies.own_folder import check_alike
from labkit.studies.table import markdown
from labkit.training.evaluate import evaluate, mean_dice
from labkit.training.fit import Recipe, fit, fresh
from labkit.training.precision import computes_in, device_of
from labkit.training.quick import PATIENTS, STEPS, at_most
from labkit.tuning import Method, count

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RECIPES = Path(__file__).with_name("recipes")
RATES = ("lr", "head_lr")
ORGANS = ("brain", "kidney", "folder")  # labkit.phantoms.ORGAN.ORGAN_patients, or scans of one's own
SCORES = ("dice", "lesion_dice", "false_lesions")


@dataclass(frozen=True)
class Row:
    """A line of the table: what is trained on what, and at which rates."""

    name: str
    method: dict[str, dict]  # settings by name in METHODS
    data: dict  # organ, ghosts, how many patients to train, validate and test on
    recipe: dict  # of `training.Recipe`, but for the rate and the seed
    decoder: str
    rates: tuple[dict, ...]  # {"lr": 1e-3} or {"head_lr": 2e-3}

    def training(self, rate: dict, seed: int) -> dict:
        """All that decides a training's numbers, as JSON can hold it."""
        recipe = {**self.recipe, **rate, "seed": seed}
        return dict(method=self.method, data=self.data, decoder=self.decoder, recipe=recipe)


@dataclass(frozen=True)
class Sweep:
    """A recipe file, and where the files of its trainings lie."""

    name: str
    about: str
    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    rival: str | None  # the row that others are compared with
    folder: Path
    scans: Path | None = None  # for a recipe whose patients lie in a folder

    def row(self, name: str) -> Row:
        """ValueError: there is no such row."""
        found = [row for row in self.rows if row.name == name]
        if not found:
            raise ValueError(
                f"{self.name} has no row {name!r}; it has {', '.join(repr(row.name) for row in self.rows)}."
            )
        return found[0]

    def place(self, row: Row, rate: dict, seed: int) -> Path:
        training = row.training(rate, seed)
        of = sha256(json.dumps(training, sort_keys=True).encode()).hexdigest()[:12]
        return self.folder / f"{'-'.join([training['data']['organ'], *row.method])}-{of}.json"

    def known(self, row: Row, rate: dict, seed: int) -> dict | None:
        """A training's file, if it is there."""
        place = self.place(row, rate, seed)
        return json.loads(place.read_text()) if place.is_file() else None

    def rate(self, row: Row) -> dict | None:
        """The rate that did better on validation patients; None until both were tried."""
        tried = [self.known(row, rate, self.seeds[0]) for rate in row.rates]
        if not all(tried):
            return None
        return row.rates[int(np.argmax([one["validation"] for one in tried]))]

    def trainings(self, row: Row) -> list[dict]:
        """Those of the chosen rate that are there, in the order of the seeds."""
        rate = self.rate(row)
        found = [self.known(row, rate, seed) for seed in self.seeds] if rate else []
        return [one for one in found if one]

    def wanted(self, row: Row) -> list[tuple[dict, int]]:
        """Trainings of a row as far as they are known: every rate, and the chosen one with every seed."""
        first, *others = self.seeds
        rate = self.rate(row)
        return [(one, first) for one in row.rates] + [(rate, seed) for seed in others if rate]

    def missing(self, rows: Sequence[Row]) -> list[tuple[Row, dict, int]]:
        """Trainings to make, those that choose a rate first; to be asked anew after each."""
        wanted = zip_longest(*([(row, *one) for one in self.wanted(row)] for row in rows))
        return [one for round_ in wanted for one in round_ if one and self.known(*one) is None]

    def run(self, names: Sequence[str] = (), scheduler: str | None = None) -> None:
        """Make what is missing of these rows, or of all, here or on a Dask cluster; stopped at any time it
        goes on there."""
        if self.folder.is_relative_to(data_dir()) and at_most(STEPS + 1, STEPS) == STEPS:
            raise ValueError("LABKIT_QUICK=1 trains too briefly for results that are kept; unset it.")
        rows = [self.row(name) for name in names] or self.rows
        total = sum(len(row.rates) + len(self.seeds) - 1 for row in rows)
        done = sum(self.known(row, *one) is not None for row in rows for one in self.wanted(row))
        with tqdm(total=total, initial=done, desc=self.name, unit="training") as bar:
            while missing := self.missing(rows):
                jobs = {self.place(row, *one): row.training(*one) for row, *one in missing}
                where = on_cluster(scheduler) if scheduler else here
                for place, result in where(jobs, self.scans):
                    text = json.dumps(result) + "\n"
                    write_atomically(place, lambda path, text=text: path.write_text(text))
                    bar.update()

    def table(self, score: str = "dice") -> str:
        """`lines` in Markdown."""
        return markdown(self.lines(score))

    def lines(self, score: str = "dice") -> list[dict[str, str]]:
        """Per row: mean over patients and seeds, deviation over seeds, and how far it is from the rival on
        the same patients, with the 95 % interval of that mean."""
        rival = self.trainings(self.row(self.rival)) if self.rival else []
        lines = [self.line(row, score, rival) for row in self.rows]
        full = max(lines, key=len)
        return [dict.fromkeys(full, "") | line for line in lines]

    def line(self, row: Row, score: str, rival: list[dict]) -> dict[str, str]:
        trainings = self.trainings(row)
        if not trainings:
            return {"row": row.name, "tuned": "not computed yet"}
        unit = 1 if score == "false_lesions" else 100  # a count for each patient, or per cent
        found = unit * scores(trainings, score)
        (rate,) = self.rate(row).values()
        cells = {"row": row.name, "tuned": f"{trainings[0]['tuned']:,}", "rate": f"{rate:g}"}
        cells |= {r: f"{x:.1f}" for r, x in zip(trainings[0]["test"][score], found.mean((0, 2)), strict=True)}
        means = found.mean((1, 2))
        spread = f" ({means.std(ddof=1):.1f})" if len(means) > 1 else ""
        cells["mean (deviation over seeds)"] = f"{means.mean():.1f}{spread}"
        cells["seeds"] = str(len(means))
        if self.rival:
            cells[f"beside {self.rival} (95 %)"] = ""
            if rival and row.name != self.rival and trainings[0]["patients"] == rival[0]["patients"]:
                of_patients = [unit * scores(one, score).mean((0, 1)) for one in (trainings, rival)]
                difference, half = paired(*of_patients)
                cells[f"beside {self.rival} (95 %)"] = (
                    f"{difference:+.1f} ({difference - half:.1f} to {difference + half:.1f})"
                )
        return cells


def scores(trainings: Sequence[dict], score: str = "dice") -> np.ndarray:
    """(seeds, regions, patients)."""
    return np.array([list(one["test"][score].values()) for one in trainings])


def paired(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Mean difference of the same patients' scores, and half of its 95 % interval (Student's t)."""
    from scipy import stats

    d = a - b
    return float(d.mean()), float(stats.t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / np.sqrt(len(d)))


def sweep(name: str, folder: Path | None = None, scans: Path | None = None) -> Sweep:
    """The recipe `name`, its trainings under data/results/ or another folder; `scans` is where patients lie
    that are not made on the spot. ValueError: what is wrong with the name or the file."""
    file = RECIPES / f"{name}.toml"
    if not file.is_file():
        there = ", ".join(sorted(path.stem for path in RECIPES.glob("*.toml")))
        raise ValueError(f"There is no sweep {name!r}; there are {there}.")
    return replace(read(file, folder or data_dir() / "results"), scans=scans)


def read(file: Path, folder: Path) -> Sweep:
    """A recipe file. ValueError: what is wrong with it."""
    try:
        asked = tomllib.loads(file.read_text())
        common = {key: asked[key] for key in ("data", "recipe", "decoder")}
        rows = tuple(row_of(one, common) for one in asked["row"])
        for row in rows:
            check(row)
        found = Sweep(file.stem, asked["about"], rows, tuple(asked["seeds"]), asked.get("rival"), folder)
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file} is no recipe of a sweep: {error!r}; see labkit/studies/sweeps.py."
        ) from error
    names = [row.name for row in rows]
    if len(set(names)) < len(names) or found.rival not in (None, *names):
        raise ValueError(f"{file}: each row needs a name of its own, and the rival must be one of them.")
    return found


def check(row: Row) -> None:
    """Build what a training of this row would be built of; ValueError, KeyError or TypeError: it can't be."""
    method_of(row.method)
    Recipe(**row.training(row.rates[0], 0)["recipe"])
    if row.decoder not in DECODERS:
        raise ValueError(f"row {row.name!r} has no decoder of {', '.join(DECODERS)}")
    if row.data["organ"] not in ORGANS:
        raise ValueError(f"row {row.name!r} has no organ of {', '.join(ORGANS)}")


def row_of(asked: dict, common: dict) -> Row:
    """One `[[row]]`, over what holds for all rows."""
    rates = tuple({key: rate} for key in RATES for rate in asked.get(key, ()))
    if not rates:
        raise ValueError(f"row {asked['name']!r} has no learning rates; give it lr or head_lr")
    return Row(
        name=asked["name"],
        method=asked["method"],
        data=common["data"] | asked.get("data", {}),
        recipe=common["recipe"] | asked.get("recipe", {}),
        decoder=asked.get("decoder", common["decoder"]),
        rates=rates,
    )


def method_of(described: dict[str, dict]) -> Method | tuple[Method, ...]:
    """{"lora": {"r": 8}} -> LoRA(r=8); two names: both."""

    def setting(value):
        return (
            None if value == "none" else tuple(value) if isinstance(value, list) else value
        )  # TOML has no null

    found = tuple(
        METHODS[name](**{key: setting(value) for key, value in settings.items()})
        for name, settings in described.items()
    )
    return found if len(found) > 1 else found[0]


@cache
def volumes(organ: str, part: str, n: int, scans: Path | None, **how) -> list[Volume]:
    """The first n patients of a part, made on the spot or read from a folder of scans."""
    n = at_most(n, PATIENTS)
    if organ != "folder":
        patients = getattr(import_module(f"labkit.phantoms.{organ}"), f"{organ}_patients")
        return [to_volume(case) for case in patients(part, n, **how)]
    if scans is None:
        raise ValueError("This sweep is of scans in a folder; name it with --data.")
    cases, problems = read_folder(scans)
    for problem in problems.values():
        tqdm.write(f"left out: {problem}", file=sys.stderr)
    check_alike(cases, scans)
    names = split([case.name for case in cases])[part][:n]
    return [to_volume(case) for case in cases if case.name in names]


def train(training: dict, scans: Path | None = None) -> dict:
    """One training from its description alone: scores of validation and test patients, and what it took."""
    recipe, data = Recipe(**training["recipe"]), dict(training["data"])
    organ, counts = data.pop("organ"), {part: data.pop(part) for part in ("train", "validation", "test")}
    of = {part: volumes(organ, part, n, scans, **data) for part, n in counts.items()}
    model = fresh(method_of(training["method"]), of["train"][0].case, recipe.seed, training["decoder"])
    start = time.perf_counter()
    fit(model, of["train"], recipe)
    seconds = time.perf_counter() - start
    seen = dict(slices=recipe.slices, crop=recipe.crop)
    validation = evaluate(model, of["validation"], hausdorff=False, **seen)
    test = evaluate(model, of["test"], hausdorff=False, lesions=True, **seen)
    numbers = count(model)
    return dict(
        training=training,
        tuned=numbers.tuned,
        inserted=numbers.inserted,
        validation=mean_dice(validation),
        patients=list(dict.fromkeys(one["case"] for one in test)),
        test={score: by_region(test, score) for score in SCORES},
        took=dict(
            seconds=round(seconds),
            threads=torch.get_num_threads(),
            numbers=computes_in(device_of(model).type),
            **versions(),
        ),
    )


def here(jobs: dict[Path, dict], scans: Path | None) -> Iterator[tuple[Path, dict]]:
    """One training after another; those that someone else has made meanwhile are left out."""
    for place, training in jobs.items():
        if not place.exists():
            yield place, train(training, scans)


def on_cluster(scheduler: str) -> Callable[[dict[Path, dict], Path | None], Iterator[tuple[Path, dict]]]:
    """As `here`, but all at once on the workers of a Dask cluster, as they are finished. A worker that is
    lost loses nothing: its training is given to another."""

    def there(jobs: dict[Path, dict], scans: Path | None) -> Iterator[tuple[Path, dict]]:
        from distributed import Client, as_completed

        with Client(scheduler, timeout="30s") as client:
            futures = {client.submit(train, of, scans, pure=False): place for place, of in jobs.items()}
            for future, result in as_completed(futures, with_results=True):
                yield futures[future], result

    return there


def by_region(rows: list[dict], score: str) -> dict[str, list[float]]:
    """{region: a number per patient}, to four digits."""
    regions = dict.fromkeys(row["region"] for row in rows)
    return {r: [round(float(row[score]), 4) for row in rows if row["region"] == r] for r in regions}


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("labkit", "torch", "timm")} | {
        "python": platform.python_version()
    }
