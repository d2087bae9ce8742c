"""A study of one's own scans: every method with every seed on one split of a folder, kept in another folder.

It is a sweep (`labkit.studies.recipe`) that `labkit train` writes itself: rates from RATES, patients by name,
controls. What lies in its folder, `labkit.studies.run_folder` says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from labkit.files import write_atomically
from labkit.methods import METHODS
from labkit.scans.case import Case
from labkit.scans.folders import digest, split
from labkit.scans.slices import to_volume
from labkit.studies import run
from labkit.studies.own_folder import LAPTOP, affordable, check_methods
from labkit.studies.recipe import THRESHOLD, Sweep, sweep_of
from labkit.studies.run_folder import CONTROLS, NETWORKS, STUDY, write_results
from labkit.studies.store import Results
from labkit.training.fit import Recipe, fresh
from labkit.training.quick import quick

# Learning rates to choose from, around those that the kit's own sweeps chose on brains, kidneys and
# hippocampi (`labkit/studies/recipes`): of what a method tunes in the backbone; of the head where it tunes
# nothing else
FAMILY_RATES = {
    "reparameterise": (3e-4, 1e-3, 3e-3, 1e-2),
    "prompt": (3e-4, 1e-3, 3e-3, 1e-2),
    "add": (5e-4, 1e-3, 2e-3, 4e-3),
}
RATES = {
    "scratch": (1e-4, 3e-4, 1e-3, 3e-3),
    "full": (3e-5, 1e-4, 3e-4, 1e-3),
    "head": (1e-3, 2e-3, 4e-3, 8e-3),
    "bitfit": (1e-3, 2e-3, 4e-3, 8e-3),
    "st_adapter": (2.5e-4, 5e-4, 1e-3, 2e-3),
}
HEAD = "head"  # the method that tunes nothing but the head
IN_WORDS = {  # what a study is made of, for a sentence
    "row": "methods, rates or controls",
    "seeds": "seeds",
    "data": "patients or scans",
    "recipe": "steps, slices or crop",
    "decoder": "decoder",
    "network": "backbone or weights",
    "seconds": "seconds",
    "quick": "quick mode",
}


def train_study(
    folder: Path,
    out: Path,
    methods: Sequence[str],
    seeds: Sequence[int] = (0,),
    rates: Sequence[float] = (),
    validation: Sequence[str] = (),
    controls: bool = True,
    recipe: Recipe = LAPTOP,
    seconds: float | None = None,
    resume: bool = False,
    backbone: str = "tiny",
    decoder: str = "light",
    weights: Path | None = None,
) -> Results:
    """Train every method with every seed on a folder of scans, and keep all of it in `out`.

    The patients are split once, whatever the seeds. A method's rate is the one of `rates`, or by default of
    `RATES`, that does best on the `validation` patients with the first seed: so many (["5"]), those named, or
    by default 15 % of all. `recipe` says steps, slices and so on, but for rate and seed; with `seconds` each
    method takes as many steps as fit into these, timed once. Stopped at any moment, the same call with
    `resume` goes on there, in the middle of a training, too.

    ValueError, before anything is trained: `out` holds a study and `resume` is not given, or one of other
    settings, or of other scans; a method, rate or patient that can't be; a method that does not fit the
    backbone; too few patients.
    """
    check_methods(methods)
    check_numbers(seeds, rates)
    check_place(out, resume)
    kept = read_kept(out)
    run.cases_of.cache_clear()  # the folder may have changed since this process last read it
    run.volumes.cache_clear()
    cases = run.cases_of(folder)
    about_scans = {"digest": digest(folder), "prepared": cases[0].preprocessing.to_json()}
    asked = {
        "about": f"{', '.join(methods)} on {folder.resolve().name}",
        "seeds": list(seeds),
        "data": {"organ": "folder"} | about_scans | parts_of(cases, validation),
        "recipe": {k: v for k, v in asdict(recipe).items() if k not in ("lr", "head_lr", "seed")},
        "decoder": decoder,
        "network": network_of(backbone, weights),
        "rival": methods[0],
        "seconds": seconds,
        "quick": quick(),
        "row": [*(rows_of_controls(rates) if controls else ()), *(row_of(name, rates) for name in methods)],
    }
    asked = json.loads(json.dumps(asked))  # as it will be read again
    if kept is None:
        check_trainable(sweep_of(asked, "study"), cases)
        if seconds is not None:
            take_time(asked, cases, seconds)
    else:
        check_same(out, asked, kept)
        asked = kept
    with alone_in(out):
        check_place(out, resume)  # someone else may have begun one meanwhile
        text = json.dumps(asked, indent=1) + "\n"
        write_atomically(out / STUDY, lambda path: path.write_text(text, encoding="utf-8", newline="\n"))
        results = Results(sweep_of(asked, "study"), out, out / NETWORKS)
        try:
            run.run(results, scans=folder)
        finally:  # whoever stops it sees what is there so far
            write_results(results)
        for left in (out / NETWORKS).glob("*.checkpoint"):  # of a training that was stopped at its very end
            left.unlink()
    return results


# What was asked


def row_of(method: str, rates: Sequence[float] = (), name: str | None = None, **more) -> dict:
    """A row of the study's recipe."""
    kind = "head_lr" if method == HEAD else "lr"
    return {"name": name or method, "method": {method: {}}, kind: list(rates or rates_of(method))} | more


def rows_of_controls(rates: Sequence[float]) -> list[dict]:
    """What a network has to beat: two intensities, and a head on a backbone that never saw an image."""
    threshold, frozen = CONTROLS
    return [{"name": threshold, "method": THRESHOLD}, row_of(HEAD, rates, frozen, weights="random")]


def rates_of(method: str) -> tuple[float, ...]:
    """The rates that are tried for a method, if none are given."""
    return RATES[method] if method in RATES else FAMILY_RATES[METHODS[method].family]


def network_of(backbone: str, weights: Path | None) -> dict:
    """What a recipe says of the network's backbone: nothing of the laptop's. FileNotFoundError: no such
    weights."""
    if weights is None:
        return {} if backbone == "tiny" else {"backbone": backbone}
    if not weights.is_file():
        raise FileNotFoundError(
            f"There is no file of weights {weights}; give the path of one, or leave it out."
        )
    with weights.open("rb") as file:
        seen = hashlib.sha256()
        while block := file.read(2**20):
            seen.update(block)
    return {"backbone": backbone, "weights": str(weights.resolve()), "digest": seen.hexdigest()[:12]}


def parts_of(cases: Sequence[Case], validation: Sequence[str] = ()) -> dict[str, list[str]]:
    """Names of patients by part; the split is the same for every seed. `validation` as in `train_study`.

    ValueError: there is no such patient, or too few are left.
    """
    names = [case.name for case in cases]
    if len(names) < 3:
        raise ValueError(
            f"There {'is one usable patient' if len(names) == 1 else f'are {len(names)} usable patients'}; a "
            "study needs three: to train on, to choose rates on, and to test."
        )
    if not validation:
        return split(names)
    if len(validation) == 1 and validation[0].isdecimal():
        n, most = int(validation[0]), len(names) - len(split(names, validation=0)["test"]) - 1
        if not 1 <= n <= most:
            raise ValueError(
                f"--validation {n} can't be: of {len(names)} patients 1 to {most} can be spared for it."
            )
        return split(names, validation=n / len(names))
    chosen = sorted(set(validation))
    if unknown := [name for name in chosen if name not in names]:
        raise ValueError(
            f"--validation names {', '.join(unknown)}, but no usable patient is called so; there are "
            f"{', '.join(sorted(names)[:5])} and so on."
        )
    if len(names) - len(chosen) < 2:
        raise ValueError(
            f"--validation names {len(chosen)} of {len(names)} patients; leave two: to train on, and to test."
        )
    return split(set(names) - set(chosen), validation=0) | {"validation": chosen}


def take_time(asked: dict, cases: Sequence[Case], seconds: float) -> None:
    """Write into each row how many steps fit into so many seconds of training."""
    some = [to_volume(case) for case in cases if case.name in asked["data"]["train"]]
    sweep = sweep_of(asked, "study")
    for described, row in zip(asked["row"], sweep.rows, strict=True):
        if not row.is_threshold:
            training = row.training(row.rates[0], sweep.seeds[0])
            steps = affordable(model_of(training, cases), some, Recipe(**training.recipe), None, seconds)
            described["recipe"] = {"steps": steps}


# What can't be


def check_numbers(seeds: Sequence[int], rates: Sequence[float]) -> None:
    """ValueError: no seeds or some twice or below 0, rates that are none."""
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ValueError(
            f"--seeds {' '.join(map(str, seeds))} can't be: give whole numbers from 0, each once."
        )
    if len(set(rates)) < len(rates) or not all(0 < rate < float("inf") for rate in rates):
        raise ValueError(f"--rate {' '.join(map(str, rates))} can't be: give numbers above 0, each once.")


def check_place(out: Path, resume: bool) -> None:
    """ValueError: the folder holds what must not be overwritten."""
    if out.suffix == ".safetensors" or (out.exists() and not out.is_dir()):
        raise ValueError(f"{out}: name a new folder for what is trained, no file; nothing is overwritten.")
    if (out / STUDY).exists() and not resume:
        raise ValueError(
            f"{out} holds a study; go on with it by --resume, or name a new folder; nothing is overwritten."
        )
    others = [path.name for path in out.iterdir() if not path.name.startswith(".")] if out.is_dir() else []
    if others and not (out / STUDY).exists():
        raise ValueError(f"{out} holds other files ({min(others)}); name a new folder for what is trained.")


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Hold a lock on the folder, which a killed process does not keep. ValueError: someone else has it."""
    from filelock import FileLock, Timeout

    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock", timeout=0):
            yield
    except Timeout:
        raise ValueError(
            f"Another process is training into {out}; wait for it, or name another folder."
        ) from None


def read_kept(out: Path) -> dict | None:
    """What the study in a folder was asked; None: there is none yet. ValueError: it can't be read."""
    try:
        return json.loads((out / STUDY).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{out / STUDY} can't be read ({error}); name a new folder.") from error


def check_same(out: Path, asked: dict, kept: dict) -> None:
    """ValueError: the study in the folder was asked something else."""
    if asked["seconds"] is not None:  # how many steps that is was timed when it began
        asked = asked | {"row": [row | {"recipe": None} for row in asked["row"]]}
        kept = kept | {"row": [row | {"recipe": None} for row in kept.get("row", [])]}
    unlike = [words for name, words in IN_WORDS.items() if asked[name] != kept.get(name)]
    if unlike:
        raise ValueError(
            f"{out} was begun with other {' and other '.join(unlike)}; repeat what it was begun with to go "
            "on, or name a new folder."
        )


def check_trainable(sweep: Sweep, cases: Sequence[Case]) -> None:
    """Build every network once: whatever does not fit is known before hours of training.

    ValueError or FileNotFoundError: which, and why.
    """
    for row in sweep.rows:
        if not row.is_threshold:
            model_of(row.training(row.rates[0], 0), cases)


def model_of(training: run.Training, cases: Sequence[Case]):
    """The tuned segmenter that a training begins with."""
    method = run.method_of(training.method)
    seed, network = training.recipe["seed"], run.backbone_of(training)
    return fresh(method, cases[0], seed, training.decoder, **network)
