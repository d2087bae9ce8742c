"""Make the trainings of a sweep, here or on a Dask cluster.

labkit sweep brain            run what is missing of labkit/studies/recipes/brain.toml, print its table
labkit sweep brain --table    only print what is there
labkit sweep brain --workers 14    so many trainings at once, on this computer's cores or its one GPU
labkit sweep brain --scheduler tcp://node:8786    the trainings on a Dask cluster
"""

from __future__ import annotations

import math
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import torch
from tqdm.auto import tqdm

from labkit.paths import data_dir
from labkit.scans.case import Case
from labkit.scans.folders import read_folder, split
from labkit.scans.slices import Volume, to_volume
from labkit.studies import recipe
from labkit.studies.own_folder import check_alike
from labkit.studies.recipe import THRESHOLD, Row, Training, method_of
from labkit.studies.statistics import SCORES
from labkit.studies.store import Results
from labkit.training.evaluate import evaluate, mean_dice
from labkit.training.fit import Diverged, Recipe, fit, fresh
from labkit.training.label_scan import about_of
from labkit.training.precision import computes_in, device_of
from labkit.training.quick import PATIENTS, STEPS, at_most
from labkit.training.threshold import best_bands, evaluate_bands
from labkit.tuning import count, save

Job = tuple[Row, dict, int]  # a row, a rate, a seed


def run(
    results: Results,
    rows: Sequence[str] = (),
    scheduler: str | None = None,
    scans: Path | None = None,
    workers: int = 1,
) -> None:
    """Make what is missing of these rows, or of all: here, so many at once, or on a Dask cluster. Stopped at
    any time it goes on there. `scans` is where patients lie that are not made on the spot.

    ValueError: no such row; workers beside a scheduler, which has its own; quick mode, which trains too
    briefly for results that are kept.
    """
    if workers > 1 and scheduler:
        raise ValueError("Give --workers or --scheduler, not both: a cluster has its own workers.")
    asked = [results.sweep.row(name) for name in rows] or results.sweep.rows
    if results.path.is_relative_to(data_dir()) and at_most(STEPS + 1, STEPS) == STEPS:
        raise ValueError("LABKIT_QUICK=1 trains too briefly for results that are kept; unset it.")
    others = [name for name in recipe.names() if name != results.sweep.name]
    results.take_over((Results(recipe.sweep(name), results.path.parent) for name in others), asked)
    total = sum(len(row.rates) + len(results.sweep.seeds_of(row)) - 1 for row in asked)
    done = sum(results.known(row, *wanted) is not None for row in asked for wanted in results.wanted(row))
    bar = tqdm(total=total, initial=done, desc=results.sweep.name, unit="training")
    with bar, cluster_of(workers, scheduler) as cluster:
        make = partial(on_cluster, cluster) if cluster else partial(here, bar)
        for together in [asked] if cluster else [[row] for row in asked]:  # what is stopped has whole rows
            while missing := results.missing(together):
                for job, result in make(results, missing, scans):
                    results.add(*job, result)
                    if network := results.network(*job):
                        checkpoint_of(network).unlink(missing_ok=True)
                    bar.update()


@contextmanager
def cluster_of(workers: int, scheduler: str | None) -> Iterator[str | None]:
    """The address of a cluster: the one given, one of so many processes on this computer, or none for one.

    Each process reads its patients once and computes in one thread; they share a GPU where there is one.
    """
    if scheduler or workers == 1:
        yield scheduler
        return
    from distributed import LocalCluster

    local = dict(threads_per_worker=1, memory_limit=0, dashboard_address=None)
    with LocalCluster(n_workers=workers, **local) as cluster:
        yield cluster.scheduler_address


def here(bar: tqdm, results: Results, jobs: Sequence[Job], scans: Path | None) -> Iterator[tuple[Job, dict]]:
    """One training after another, the present one named in the bar; those that someone else has made
    meanwhile are left out."""
    for row, rate, seed in jobs:
        if results.known(row, rate, seed) is None:
            bar.set_description(in_words(row, rate, seed), refresh=False)
            bar.set_postfix_str(f"{bar.total - bar.n} left")
            training, network = row.training(rate, seed), results.network(row, rate, seed)
            yield (row, rate, seed), train(training, scans, network)


def in_words(row: Row, rate: dict, seed: int) -> str:
    """Which training it is: "lora, rate 0.001, seed 0"."""
    return ", ".join([row.name, *(f"rate {value:g}" for value in rate.values()), f"seed {seed}"])


def on_cluster(
    scheduler: str, results: Results, jobs: Sequence[Job], scans: Path | None
) -> Iterator[tuple[Job, dict]]:
    """All at once on the workers of a Dask cluster, as they are finished. A worker that is lost loses
    nothing: its training is given to another."""
    from distributed import Client, as_completed

    with Client(scheduler, timeout="30s") as client:
        futures = {}
        for row, rate, seed in jobs:
            training, network = row.training(rate, seed), results.network(row, rate, seed)
            futures[client.submit(train, training, scans, network, pure=False)] = (row, rate, seed)
        for future, result in as_completed(futures, with_results=True):
            yield futures[future], result


def train(training: Training, scans: Path | None = None, network: Path | None = None) -> dict:
    """One training from its description alone: scores of validation and test patients, and what it took.

    `network` is the file to keep what it learned in: then its losses are told too, and what is stopped goes
    on from a checkpoint beside that file. A training that diverges has no scores, and the worst validation: a
    rate that is too high loses, and the others go on.
    """
    data = dict(training.data)
    organ, *_ = data.pop("organ"), data.pop("digest", None), data.pop("prepared", None)
    asked = {part: data.pop(part) for part in ("train", "validation", "test")}
    patients = {
        part: volumes(organ, part, tuple(some) if isinstance(some, list) else some, scans, **data)
        for part, some in asked.items()
    }
    start = time.perf_counter()
    if training.method == THRESHOLD:
        result, validation, test = with_threshold(training, patients)
    else:
        try:
            result, validation, test = with_network(training, patients, network)
        except Diverged as error:
            took = dict(diverged=str(error), **versions())
            nothing = dict.fromkeys(SCORES, {})
            return dict(tuned=0, inserted=0, validation=-1.0, patients=[], test=nothing, took=took)
    return result | dict(
        validation=mean_dice(validation),
        patients=list(dict.fromkeys(row["case"] for row in test)),
        test={score: by_region(test, score) for score in SCORES},
        took=result["took"] | dict(seconds=round(time.perf_counter() - start), **versions()),
    )


def with_network(
    training: Training, patients: dict[str, list[Volume]], network: Path | None = None
) -> tuple[dict, list, list]:
    """Tune and train; parameters, then rows of the validation and of the test patients."""
    recipe, case = Recipe(**training.recipe), patients["train"][0].case
    model = fresh(method_of(training.method), case, recipe.seed, training.decoder, **backbone_of(training))
    history = fit(model, patients["train"], recipe, checkpoint=network and checkpoint_of(network))
    if network:
        save(model, network, **about_of(case, recipe))
    seen = dict(hausdorff=False, slices=recipe.slices, crop=recipe.crop)
    validation = evaluate(model, patients["validation"], **seen)
    test = evaluate(model, patients["test"], lesions=True, **seen)
    numbers = count(model)
    took = dict(threads=torch.get_num_threads(), numbers=computes_in(device_of(model).type))
    learned = dict(tuned=numbers.tuned, inserted=numbers.inserted, took=took)
    if network:
        learned["losses"] = [round(row["loss"], 6) for row in history]
    return learned, validation, test


def backbone_of(training: Training) -> dict:
    """What `segmenter` is to be told of a training's backbone, where it is not the laptop's with its own
    weights."""
    told = {name: value for name, value in training.network.items() if name != "digest"}
    return told if training.weights == "pretrained" else told | {"weights": None}


def checkpoint_of(network: Path) -> Path:
    """Where a training goes on from that was stopped before its network was there."""
    return network.with_suffix(".checkpoint")


def with_threshold(training: Training, patients: dict[str, list[Volume]]) -> tuple[dict, list, list]:
    """The best bands of the training patients, and rows of the others."""
    bands = best_bands(patients["train"])
    validation, test = (
        evaluate_bands(bands, patients[part], lesions=part == "test") for part in ("validation", "test")
    )
    return dict(tuned=0, inserted=0, took={}), validation, test


@cache
def volumes(organ: str, part: str, some: int | tuple[str, ...], scans: Path | None, **how) -> list[Volume]:
    """Patients of a part, made on the spot or read from a folder of scans: the first so many, or of a folder
    those of these names."""
    n = at_most(some if isinstance(some, int) else len(some), PATIENTS)
    if organ != "folder":
        patients = getattr(import_module(f"labkit.phantoms.{organ}"), f"{organ}_patients")
        return [to_volume(case) for case in patients(part, n, **how)]
    if scans is None:
        raise ValueError("This sweep is of scans in a folder; name it with --data.")
    cases = cases_of(scans)
    names = split([case.name for case in cases])[part] if isinstance(some, int) else some
    return [to_volume(case) for case in cases if case.name in names[:n]]


@cache
def cases_of(scans: Path) -> list[Case]:
    """All usable cases of a folder, which are prepared alike; the others are named on stderr."""
    cases, problems = read_folder(scans)
    for problem in problems.values():
        tqdm.write(f"left out: {problem}", file=sys.stderr)
    check_alike(cases, scans)
    return cases


def by_region(rows: list[dict], score: str) -> dict[str, list[float]]:
    """{region: a number per patient}, to four digits; None where the patient does not have the region."""
    numbers: dict[str, list] = {}
    for row in rows:
        value = float(row[score])
        numbers.setdefault(row["region"], []).append(None if math.isnan(value) else round(value, 4))
    return numbers


def versions() -> dict[str, str]:
    """What a training's numbers were computed with."""
    packages = {name: version(name) for name in ("labkit", "torch", "timm")}
    return packages | {"python": platform.python_version()}
