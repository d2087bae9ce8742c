"""Recipes of sweeps: one question, and the trainings that answer it.

A recipe is a TOML file: `data`, `recipe` and `decoder` hold for every row unless a `[[row]]` says otherwise.
A row names its method, `method = {lora = {r = 8}}` (several are combined), and learning rates under `lr` (or
`head_lr`, for what tunes nothing but the head). The rate that does better on the validation patients with the
first seed is trained with the other seeds too; only those trainings enter the table.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from labkit.methods import METHODS
from labkit.networks.segmenter import DECODERS
from labkit.training.fit import Recipe
from labkit.tuning import Method

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RECIPES = Path(__file__).with_name("recipes")
RATES = ("lr", "head_lr")
ORGANS = ("brain", "kidney", "folder")  # labkit.phantoms.ORGAN.ORGAN_patients, or scans of one's own


@dataclass(frozen=True)
class Training:
    """All that decides a training's numbers, as JSON can hold it."""

    method: dict[str, dict]  # settings by name in METHODS
    data: dict  # organ, ghosts, how many patients to train, validate and test on
    decoder: str
    recipe: dict  # of `training.fit.Recipe`, rate and seed included

    @property
    def key(self) -> str:
        """Twelve hexadecimal digits of what the recipe says: whoever changes a recipe gets new trainings, not
        old numbers, and two recipes share what is the same in both."""
        return sha256(json.dumps(vars(self), sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Row:
    """A line of the table: what is trained on what, and at which rates."""

    name: str
    method: dict[str, dict]
    data: dict
    recipe: dict  # but for the rate and the seed
    decoder: str
    rates: tuple[dict, ...]  # {"lr": 1e-3} or {"head_lr": 2e-3}

    def training(self, rate: dict, seed: int) -> Training:
        """This row at one of its rates, with one seed."""
        return Training(self.method, self.data, self.decoder, {**self.recipe, **rate, "seed": seed})


@dataclass(frozen=True)
class Sweep:
    """A recipe file."""

    name: str
    about: str
    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    rival: str | None  # the row that others are compared with

    def row(self, name: str) -> Row:
        """ValueError: there is no such row."""
        for row in self.rows:
            if row.name == name:
                return row
        raise ValueError(
            f"{self.name} has no row {name!r}; it has {', '.join(repr(row.name) for row in self.rows)}."
        )


def names() -> list[str]:
    """The names of the kit's recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def sweep(name: str) -> Sweep:
    """The kit's recipe `name`. ValueError: what is wrong with the name or the file."""
    if name not in names():
        raise ValueError(f"There is no sweep {name!r}; there are {', '.join(names())}.")
    return read(RECIPES / f"{name}.toml")


def read(file: Path) -> Sweep:
    """A recipe file. ValueError: what is wrong with it."""
    try:
        asked = tomllib.loads(file.read_text())
        common = {key: asked[key] for key in ("data", "recipe", "decoder")}
        rows = tuple(row_of(described, common) for described in asked["row"])
        for row in rows:
            check(row)
        sweep = Sweep(file.stem, asked["about"], rows, tuple(asked["seeds"]), asked.get("rival"))
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file} is no recipe of a sweep: {error!r}; labkit/studies/recipe.py says how one is written."
        ) from error
    row_names = [row.name for row in rows]
    if len(set(row_names)) < len(row_names) or sweep.rival not in (None, *row_names):
        raise ValueError(f"{file}: each row needs a name of its own, and the rival must be one of them.")
    return sweep


def check(row: Row) -> None:
    """Build what a training of this row would be built of; ValueError, KeyError or TypeError: it can't be."""
    method_of(row.method)
    Recipe(**row.training(row.rates[0], 0).recipe)
    if row.decoder not in DECODERS:
        raise ValueError(f"row {row.name!r} has no decoder of {', '.join(DECODERS)}")
    if row.data["organ"] not in ORGANS:
        raise ValueError(f"row {row.name!r} has no organ of {', '.join(ORGANS)}")


def row_of(described: dict, common: dict) -> Row:
    """One `[[row]]`, over what holds for all rows."""
    rates = tuple({key: rate} for key in RATES for rate in described.get(key, ()))
    if not rates:
        raise ValueError(f"row {described['name']!r} has no learning rates; give it lr or head_lr")
    return Row(
        name=described["name"],
        method=described["method"],
        data=common["data"] | described.get("data", {}),
        recipe=common["recipe"] | described.get("recipe", {}),
        decoder=described.get("decoder", common["decoder"]),
        rates=rates,
    )


def method_of(described: dict[str, dict]) -> Method | tuple[Method, ...]:
    """{"lora": {"r": 8}} -> LoRA(r=8); two names: both."""

    def setting(value):
        if value == "none":  # TOML has no null
            return None
        return tuple(value) if isinstance(value, list) else value

    methods = tuple(
        METHODS[name](**{key: setting(value) for key, value in settings.items()})
        for name, settings in described.items()
    )
    return methods if len(methods) > 1 else methods[0]
