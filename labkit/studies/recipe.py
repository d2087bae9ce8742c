"""Recipes of sweeps: one question, and the trainings that answer it.

A recipe is a TOML file: `data`, `recipe`, `decoder` and `rival` hold for every row unless a `[[row]]` says
otherwise. A row names its method, `method = {lora = {r = 8}}` (several are combined), and learning rates
under `lr` (or `head_lr`, for what tunes nothing but the head). The rate that does best on the validation
patients with the first seed is trained with the other seeds too; only those trainings enter the table. Give
three rates, so that the best can lie between two others: a best one at the edge of its grid is marked in the
table.

`network = {backbone = "vit_b16", weights = "FILE"}` is for all rows; without it they have the laptop's.

Controls are rows: `weights = "random"` freezes a backbone that never saw an image, and
`method = {threshold = {}}` needs no network, rate or seed (`labkit.training.threshold`).
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from labkit.methods import METHODS
from labkit.networks.segmenter import DECODERS
from labkit.scans.folders import digest
from labkit.training.fit import Recipe
from labkit.training.quick import quick
from labkit.tuning import Method

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RECIPES = Path(__file__).with_name("recipes")
RATES = ("lr", "head_lr")
THRESHOLD = {"threshold": {}}
WEIGHTS = ("pretrained", "random")
# part of every training's key: raised when a change of the code changes what trainings give
REVISION = 1
ORGANS = ("brain", "kidney", "folder")  # labkit.phantoms.ORGAN.ORGAN_patients, or scans of one's own


@dataclass(frozen=True)
class Training:
    """All that decides a training's numbers, as JSON can hold it."""

    method: dict[str, dict]  # settings by name in METHODS
    data: dict  # organ, ghosts, how many patients to train, validate and test on; a folder's digest
    decoder: str
    weights: str  # of the backbone: "pretrained" or "random"
    recipe: dict  # of `training.fit.Recipe`, rate and seed included
    revision: int = REVISION
    quick: bool = False  # made in quick mode: a few steps on a few patients
    # another backbone than the laptop's: its name, and the file of its weights with that file's digest
    network: dict = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Twelve hexadecimal digits of what the recipe says: whoever changes a recipe gets new trainings, not
        old numbers, and two recipes share what is the same in both."""
        return sha256(json.dumps(self.described, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def described(self) -> dict:
        """The fields by name. The laptop's network is not named: keys are older than the choice."""
        return {name: value for name, value in vars(self).items() if name != "network" or value}


@dataclass(frozen=True)
class Row:
    """A line of the table: what is trained on what, and at which rates."""

    name: str
    method: dict[str, dict]
    data: dict
    recipe: dict  # but for the rate and the seed
    decoder: str
    weights: str
    rates: tuple[dict, ...]  # {"lr": 1e-3} or {"head_lr": 2e-3}; of the threshold, the one {}
    rival: str | None  # the row that this one is compared with
    network: dict = field(default_factory=dict)  # as in Training

    @property
    def is_threshold(self) -> bool:
        """Whether this is the control without a network."""
        return self.method == THRESHOLD

    def training(self, rate: dict, seed: int) -> Training:
        """This row at one of its rates, with one seed."""
        recipe = {} if self.is_threshold else {**self.recipe, **rate, "seed": seed}
        return Training(
            self.method, self.data, self.decoder, self.weights, recipe, quick=quick(), network=self.network
        )


@dataclass(frozen=True)
class Sweep:
    """A recipe file."""

    name: str
    about: str
    rows: tuple[Row, ...]
    seeds: tuple[int, ...]

    def seeds_of(self, row: Row) -> tuple[int, ...]:
        """The seeds that a row is trained with: a threshold draws no numbers."""
        return self.seeds[:1] if row.is_threshold else self.seeds

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


def sweep(name: str, scans: Path | None = None) -> Sweep:
    """The kit's recipe `name`, or that of a file of one's own, of the patients in `scans` if they are given.

    ValueError: what is wrong with the name or the file.
    """
    if own(name):
        if not Path(name).is_file():
            raise ValueError(f"There is no file {name}; a recipe is written as those of {RECIPES}.")
        return read(Path(name), scans)
    if name not in names():
        raise ValueError(
            f"There is no sweep {name!r}; there are {', '.join(names())}, and a file of yours, NAME.toml."
        )
    return read(RECIPES / f"{name}.toml", scans)


def own(name: str) -> bool:
    """Whether a recipe's name is a file of one's own."""
    return name.endswith(".toml")


def read(file: Path, scans: Path | None = None) -> Sweep:
    """A recipe file, TOML or the same as JSON; `data.digest` becomes that of the folder `scans`, if one is
    given: other patients are other trainings. ValueError: what is wrong with the file."""
    try:
        parse = json.loads if file.suffix == ".json" else tomllib.loads
        asked = parse(file.read_text(encoding="utf-8"))
        if scans is not None:
            asked["data"] = asked["data"] | {"digest": digest(scans)}
        sweep = sweep_of(asked, file.stem)
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file} is no recipe of a sweep: {error!r}; labkit/studies/recipe.py says how one is written."
        ) from error
    row_names = [row.name for row in sweep.rows]
    rivals = {row.rival for row in sweep.rows} - {None}
    if len(set(row_names)) < len(row_names) or not rivals <= set(row_names):
        raise ValueError(f"{file}: each row needs a name of its own, and a rival must be one of them.")
    return sweep


def sweep_of(asked: dict, name: str) -> Sweep:
    """What a recipe file says, once parsed. ValueError, KeyError or TypeError: it can't be built."""
    common = {key: asked[key] for key in ("data", "recipe", "decoder")}
    common |= {"rival": asked.get("rival"), "network": asked.get("network", {})}
    rows = tuple(row_of(described, common) for described in asked["row"])
    for row in rows:
        check(row)
    return Sweep(name, asked["about"], rows, tuple(asked["seeds"]))


def check(row: Row) -> None:
    """Build what a training of this row would be built of; ValueError, KeyError or TypeError: it can't be."""
    if not row.is_threshold:
        method_of(row.method)
        Recipe(**row.training(row.rates[0], 0).recipe)
    if row.weights not in WEIGHTS:
        raise ValueError(f"row {row.name!r} has no weights of {', '.join(WEIGHTS)}")
    if row.decoder not in DECODERS:
        raise ValueError(f"row {row.name!r} has no decoder of {', '.join(DECODERS)}")
    if not row.network.keys() <= {"backbone", "weights", "digest"}:
        raise ValueError(f"a network has a backbone and weights, not {', '.join(row.network)}")
    if row.data["organ"] not in ORGANS:
        raise ValueError(f"row {row.name!r} has no organ of {', '.join(ORGANS)}")


def row_of(described: dict, common: dict) -> Row:
    """One `[[row]]`, over what holds for all rows."""
    rates = tuple({key: rate} for key in RATES for rate in described.get(key, ()))
    if described["method"] == THRESHOLD:
        rates = ({},)
    if not rates:
        raise ValueError(f"row {described['name']!r} has no learning rates; give it lr or head_lr")
    return Row(
        name=described["name"],
        method=described["method"],
        data=common["data"] | described.get("data", {}),
        recipe=common["recipe"] | described.get("recipe", {}),
        decoder=described.get("decoder", common["decoder"]),
        weights=described.get("weights", "pretrained"),
        rates=rates,
        rival=described.get("rival", common["rival"]),
        network=common["network"],
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
