"""The trained deltas behind the explorers: how each is made, and the ones that the kit carries.

    labkit deltas                 make what is missing of data/deltas/, a minute or two each
    labkit deltas rank-dylora     make one of them anew

All are the laptop's backbone, trained on 20 synthetic patients, at learning rates that did best on validation
patients (`labkit sweep ranks_kidney`, `combinations_kidney`, `brain`). Those called `volumes-` learned brains
with motion ghosts: they have the light decoder and saw 4 runs of 4 neighbouring slices a step, whatever the
method. The others learned kidneys: they have the linear head and saw 8 single slices a step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from labkit.methods import Adapter, DyLoRA, Full, Head, LoRA, MedTuning, STAdapter, VPTDeep, VPTShallow
from labkit.networks.anatomy import LINEARS
from labkit.networks.segmenter import Segmenter, segmenter
from labkit.paths import data_dir
from labkit.scans.case import Case
from labkit.training.fit import Recipe, fit
from labkit.training.quick import PATIENTS, at_most
from labkit.tuning import Method, load, save, tune
from labkit.updates.low_rank import Update, difference, load_update, of_lora, ordered, save_update

TRAIN_PATIENTS, FULL_RANK = 20, 32
SIX = tuple(LINEARS)
KNOWN = {"kidney": (1, 2), "brain": (4, 3)}  # channels and labels of the patients with such an organ


@dataclass(frozen=True)
class Made:
    """One delta: what is tuned, how, and on whom."""

    method: Method | tuple[Method, ...]
    recipe: Recipe
    organ: str = "kidney"


def in_runs(method: Method, lr: float = 1e-3) -> Made:
    """Trained on runs of four neighbours, which `training.predict` must read it in too."""
    return Made(method, Recipe(steps=200, batch_size=4, slices=4, lr=lr), "brain")


def in_slices(method: Method, **rates: float) -> Made:
    """Trained on eight single slices a step."""
    return Made(method, Recipe(steps=160, batch_size=8, **rates))


DELTAS: dict[str, Made] = {
    "probe": in_slices(Head(), head_lr=8e-3),
    "rank-dylora": Made(DyLoRA(r=16, targets=SIX), Recipe(steps=200, batch_size=8, lr=1e-3)),
    "rank-lora": in_slices(LoRA(r=16, targets=SIX), lr=3e-4),
    "rank-full": in_slices(Full(), lr=3e-5),
    **{f"prompts-deep-{n}": in_slices(VPTDeep(n), lr=8e-3) for n in (1, 10, 50)},
    "prompts-shallow-10": in_slices(VPTShallow(10), lr=1e-2),
    **{
        f"adapter-{'-'.join(where)}-{m}": in_slices(Adapter(m=m, where=where), lr=2e-3)
        for m, where in ((4, ("attn", "mlp")), (48, ("attn", "mlp")), (48, ("attn",)), (48, ("mlp",)))
    },
    "volumes-lora": in_runs(LoRA(r=8), 3e-3),
    "volumes-st_adapter": in_runs(STAdapter(), 2e-3),
    "volumes-med_tuning": in_runs(MedTuning(), 2e-3),
    "volumes-med_tuning-no_fourier": in_runs(MedTuning(fourier=None), 2e-3),
    "volumes-med_tuning-no_local": in_runs(MedTuning(local=False), 2e-3),
    "volumes-med_tuning-no_interaction": in_runs(MedTuning(interaction=None), 2e-3),
    "volumes-head": in_runs(Head()),
    "volumes-adapter": in_runs(Adapter(m=48), 2e-3),
    "volumes-vpt_deep": in_runs(VPTDeep(10), 3e-3),
    "volumes-full": in_runs(Full(), 3e-4),
}


def place(name: str) -> Path:
    """Where a delta lies that the kit carries."""
    return data_dir() / "deltas" / f"{name}.safetensors"


def patients(organ: str, split: str, n: int) -> list[Case]:
    """The first n synthetic patients of a split: those with a "kidney" or those with a "brain"."""
    from labkit.phantoms.brain import brain_patients
    from labkit.phantoms.kidney import kidney_patients

    return (kidney_patients if organ == "kidney" else brain_patients)(split, n)


def start(organ: str = "kidney") -> Segmenter:
    """The pretrained segmenter that the deltas of an organ belong to, before anything is tuned."""
    channels, labels = KNOWN[organ]
    decoder = "linear" if organ == "kidney" else "light"
    return segmenter("tiny", in_chans=channels, classes=labels + 1, decoder=decoder)


def make(name: str, path: Path | None = None, on_step: Callable[[dict], None] | None = None) -> Path:
    """Train one delta and write it; `on_step` sees each row of the history. Returns where it lies."""
    from labkit.scans.slices import to_volume
    from labkit.training.label_scan import about_of

    path, made = path or place(name), named(name)
    model = tune(start(made.organ), made.method)
    cases = patients(made.organ, "train", at_most(TRAIN_PATIENTS, PATIENTS))
    fit(model, [to_volume(case) for case in cases], made.recipe, on_step=on_step)
    if name.startswith("rank-"):
        update = of_lora(model) if name != "rank-full" else difference(model, start(made.organ), FULL_RANK)
        save_update(update, path, f"labkit deltas {name}")
    else:
        save(model, path, half=name.startswith("volumes-"), **about_of(cases[0], made.recipe))
    return path


def network(name: str, path: Path | None = None) -> Segmenter:
    """A tuned segmenter as its delta left it. ValueError: there is no such delta."""
    made = named(name)
    model = load(tune(start(made.organ), made.method), existing(path or place(name))).eval()
    model.slices = made.recipe.slices  # the length of the runs it is read in
    return model


def update(name: str, path: Path | None = None) -> Update:
    """An update read by rank: "rank-dylora", "rank-lora", "rank-full", or "rank-lora-svd"."""
    if name == "rank-lora-svd":
        return ordered(update("rank-lora", path))
    named(name)
    return load_update(existing(path or place(name)))


def named(name: str) -> Made:
    """How a delta is made. ValueError: there is none of this name."""
    if name not in DELTAS:
        raise ValueError(f"There is no delta {name!r}; there are {', '.join(DELTAS)}.")
    return DELTAS[name]


def existing(path: Path) -> Path:
    """The path itself. ValueError: there is no such file; the sentence names the command that makes it."""
    if not path.is_file():
        raise ValueError(f"{path} is missing; make it with `labkit deltas {path.stem}`.")
    return path
