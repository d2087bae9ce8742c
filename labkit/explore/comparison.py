"""MethodComparison: the trained deltas of one kind on one patient, beside each other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import cache

import ipywidgets as widgets
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from safetensors import safe_open
from torch import nn

from labkit.explore import deltas, pictures, plots
from labkit.explore.explorer import LOOK, PATIENTS, Explorer
from labkit.explore.lazy import Networks, waiting
from labkit.explore.live import LivePicture
from labkit.explore.shown import headless
from labkit.metrics import dice_by_region, mean_present
from labkit.scans.case import Case
from labkit.training.evaluate import predict
from labkit.tuning import count, tune
from labkit.updates.low_rank import Ranked

KINDS = {"kidneys: single slices, linear head": "", "brains: runs of slices, light decoder": "volumes-"}
BOTH, FIRST, SECOND = 1, 2, 3
WHO = {BOTH: "wrong in A and B", FIRST: "wrong in A alone", SECOND: "wrong in B alone"}
WHO_COLOURS = {BOTH: pictures.WINE, FIRST: pictures.SAND, SECOND: pictures.INDIGO}  # no label has them
SIDE_PX = 210  # of each of six pictures: two rows fit below the controls and the points

NEAR_PX = 25  # a click this close to a point means it
APART_PX = 14  # of a number of two digits from the next, and from a point
AROUND = ((0, -1), (0, 1), (1, 0), (-1, 0))


def kinds() -> dict[str, tuple[str, ...]]:
    """The deltas in data/deltas by kind; those of one kind had equal patients and equal batches."""
    there = [name for name in deltas.DELTAS if deltas.place(name).is_file()]
    longest_first = sorted(KINDS.values(), key=len, reverse=True)
    of = {name: next(start for start in longest_first if name.startswith(start)) for name in there}
    found = {kind: tuple(n for n in there if of[n] == start) for kind, start in KINDS.items()}
    return {kind: names for kind, names in found.items() if len(names) > 1}  # one can't be compared


def trained(name: str) -> nn.Module:
    """The network of a delta, also of one that is kept as factors: then with the whole update."""
    if name.startswith("rank-"):
        update = deltas.update(name)
        return Ranked(deltas.start(deltas.named(name).organ), update).at(update.rank).eval()
    return deltas.network(name)


@cache
def learned(name: str) -> int:
    """How many numbers the training of a delta changed, the head's included."""
    if name.startswith("rank-"):  # its file holds the change in other numbers than those that learned
        made = deltas.named(name)
        return count(tune(deltas.start(made.organ), made.method)).tuned
    with safe_open(deltas.existing(deltas.place(name)), "pt") as file:
        return sum(math.prod(file.get_slice(tensor).get_shape()) for tensor in file.keys())


def mean_dice(found: np.ndarray, truth: np.ndarray, label_names: Mapping[int, str]) -> float:
    """Mean Dice of the regions that are there, of a whole patient or of a slice."""
    return mean_present(list(dice_by_region(found, truth, label_names).values()))


class MethodComparison(Explorer):
    """Each trained network is a point: Dice of the patient against the numbers that learned.

    Two of them, A and B, are shown with their errors, and with where only one of them errs. At first they are
    the two whose Dice in the slice in sight is closest; a click on a point makes it A. `of_kind` names the
    deltas to choose from; by default they are those that the kit carries. Each kind brings test patients of
    its own organ, unless `cases` are given: then these are shown to every kind.
    """

    title = "Tuning methods on one patient"

    def __init__(
        self, cases: Sequence[Case] | None = None, of_kind: dict[str, tuple[str, ...]] | None = None
    ) -> None:
        self.of_kind = kinds() if of_kind is None else of_kind
        if not self.of_kind or min(map(len, self.of_kind.values())) < 2:
            raise ValueError(
                "A comparison needs two trained deltas of a kind; make them with `labkit deltas`."
            )
        self.given = cases
        self.networks = Networks(trained)
        self.found: dict[tuple[str, int], np.ndarray] = {}  # whole patients, (S, H, W)
        self._dice: dict[tuple[str, int], float] = {}
        self._drawn, self._who, self._changing = (), (None, None), False
        names = next(iter(self.of_kind.values()))
        with waiting(f"Opening the comparison: patients and {len(names)} networks"):
            self._meet(self._patients(names))
            first, second = self._closest(names)
        self.kind = widgets.Dropdown(options=list(self.of_kind), description="Trained on", **LOOK)
        look = {"rows": max(map(len, self.of_kind.values())), "style": {"description_width": "1.2em"}}
        look["layout"] = {"width": "15em"}
        self.method = widgets.Select(options=_numbered(names), value=first, description="A", **look)
        self.other = widgets.Select(options=_numbered(names), value=second, description="B", **look)
        self.points = LivePicture()
        self.points.clicked(self._point_clicked)
        self.kind.observe(self._another_kind, "value")
        self._open(self.cases, (self.method, self.other))
        inputs, legend = self.children[0].children
        pair = widgets.HBox([self.method, self.other])
        inputs.children = [self.kind, pair, *inputs.children[2:]]
        wrap = {
            "layout": {"flex_flow": "row wrap"}
        }  # on a screen of usual size A and B lie below, in one view
        above, below = widgets.HBox([inputs, self.points], **wrap), widgets.HBox([self.image, legend], **wrap)
        self.children = [above, below, *(one for one in self.children[1:] if one is not self.image)]

    def _patients(self, names: Sequence[str]) -> Sequence[Case]:
        self.organ = deltas.named(names[0]).organ
        return (
            deltas.patients(self.organ, "test", PATIENTS) if self.given is None else self._known(self.given)
        )

    def _closest(self, names: Sequence[str]) -> tuple[str, str]:
        """The two whose mean Dice is closest in the slice that the first patient is opened at."""
        case, index = self.cases[0], self.first_slice(0)
        dice = {}
        for name in names:
            found, _ = super()._compute((name, 0, index))
            dice[name] = mean_dice(found, case.label[index], case.label_names)
        return min(itertools.combinations(names, 2), key=lambda pair: abs(dice[pair[0]] - dice[pair[1]]))

    def _legend(self) -> str:
        return super()._legend() + pictures.legend_html(WHO, WHO_COLOURS)

    def choice(self) -> str:
        return self.method.value

    def nearby(self) -> list[str]:
        return list(self.of_kind[self.kind.value])

    def network(self, choice: str, own: int) -> nn.Module:
        return self.networks[choice][own]

    def ready(self, choice: str) -> bool:
        return choice in self.networks

    def context(self, choice: str) -> int:
        return deltas.DELTAS[choice].recipe.slices

    def volume(self, name: str, patient: int, own: int = 0) -> np.ndarray:
        """What a network finds in a whole patient, read in runs as it was trained: label values (S, H, W)."""
        if (name, patient) not in self.found:
            run = self.context(name)
            self.found[name, patient] = predict(
                self.network(name, own), self.volumes[patient], run if run > 1 else 16
            )
        return self.found[name, patient]

    def dice(self, name: str, patient: int) -> float:
        """Mean Dice of a network's regions over a whole patient."""
        if (name, patient) not in self._dice:
            case = self.cases[patient]
            self._dice[name, patient] = mean_dice(self.volume(name, patient), case.label, case.label_names)
        return self._dice[name, patient]

    def whole(self, choice: str, patient: int) -> np.ndarray | None:
        return self.found.get((choice, patient))

    def _compute(self, key: tuple, own: int = 0) -> tuple[np.ndarray, None]:
        name, patient, index = key
        return self.volume(name, patient, own)[index], None

    def _wanted(self) -> list[tuple]:
        """Every network on this patient, then on the others."""
        now = self.patient.value
        order = sorted(range(len(self.cases)), key=lambda patient: patient != now)
        names = [name for name in self.nearby() if self.ready(name)]
        return [(name, patient, self.slice.value) for patient in order for name in names]

    def _came(self, key: tuple) -> None:
        if key[1] == self.patient.value:
            self._draw_points()

    def _another_kind(self, _=None) -> None:
        names = self.nearby()
        self._changing = True
        self.ahead.stop()
        with waiting(f"Patients and {len(names)} networks"):
            self._meet(self._patients(names))
            for name in names:
                self.networks[name]  # made here, for what computes ahead makes none
        self.legend.value = self._legend()
        self.patient.options = self._names()
        self._place_slice()
        self.method.options, self.other.options = _numbered(names), _numbered(names)
        self.method.value, self.other.value = names[:2]
        self._changing = False
        self._moved()

    def _moved(self, _=None) -> None:
        if not self._changing:
            super()._moved()
            if not headless():  # the still draws them when it knows all of them
                self._draw_points()

    # Pictures and words

    def who(self, patient: int) -> np.ndarray:
        """Where A, B or both are wrong: 0 or a key of WHO for each voxel (S, H, W)."""
        pair = (self.method.value, self.other.value, patient)
        if self._who[0] != pair:
            truth = self.cases[patient].label
            a, b = (self.volume(name, patient) != truth for name in pair[:2])
            found = np.select([a & b, a, b], [BOTH, FIRST, SECOND]).astype(np.uint8)
            self._who = (pair, found)
        return self._who[1]

    def picture(self) -> np.ndarray:
        """A's segmentation, the truth and A's errors above B's segmentation, who errs, and B's errors."""
        patient, index = self.patient.value, self.slice.value
        case, (black, white) = self.cases[patient], self.ranges[patient]
        look = dict(black=black, white=white, pixel_mm=case.spacing_mm[1:])
        look["px_per_mm"] = pictures.px_scale(case, SIDE_PX)
        clear = look | {"opacity": 0.9}  # bright tissue would make these colours alike
        colours, truth = pictures.label_colours(case.label_names), case.label[index]
        a, b = (self.segment(one.value, patient, index) for one in (self.method, self.other))
        errors = [(pictures.difference(found, truth), pictures.DIFFERENCE_COLOURS) for found in (a, b)]
        rows = (
            {f"A: {self.method.value}": (a, colours), "truth": (truth, colours), "errors of A": errors[0]},
            {
                f"B: {self.other.value}": (b, colours),
                "who errs": (self.who(patient)[index], WHO_COLOURS),
                "errors of B": errors[1],
            },
        )
        drawn = [
            pictures.beside(
                {
                    name: pictures.annotate(
                        pictures.slice_image(
                            case.image[-1, index], *of, **(look if of[1] is colours else clear)
                        ),
                        pictures.PLANES["axial"],
                        look["px_per_mm"],
                    )
                    for name, of in row.items()
                }
            )
            for row in rows
        ]
        return np.concatenate(drawn)

    def scores(self) -> dict[str, float]:
        """Mean Dice of the patient in sight by each network that has been computed."""
        patient = self.patient.value
        return {n: self.dice(n, patient) for n in self.nearby() if self.whole(n, patient) is not None}

    def _draw_points(self) -> None:
        with self.points.hold_sync():
            self.points.value, self.points.alt = pictures.png(self.scatter()), self.points_in_words()

    def points_in_words(self) -> str:
        """All points that are there, by name."""
        points = (f"{name} {learned(name):,}, {value:.3f}" for name, value in self.scores().items())
        return f"Numbers learned and mean Dice: {', '.join(points)}."

    def _point_clicked(self, x: float, y: float) -> None:
        """The point there, if one is, becomes A."""
        _, plain, at = self._drawn
        x, y = x * plain.shape[1], y * plain.shape[0]
        distance = {name: math.dist((x, y), place) for name, place in at.items()}
        if distance and min(distance.values()) <= NEAR_PX:
            self.method.value = min(distance, key=distance.get)

    def scatter(self) -> np.ndarray:
        """All points that are there, numbered as in the lists; A in a circle, B in a square."""
        scores, patient = self.scores(), self.patient.value
        key = (self.kind.value, patient, tuple(scores))
        if self._drawn[:1] != (key,):
            self._drawn = (key, *_scatter(self.cases[patient].name, self.nearby(), scores))
        _, plain, at = self._drawn
        drawn = Image.fromarray(plain)
        pen = ImageDraw.Draw(drawn)
        style = dict(outline=pictures.VERMILLION, width=3)
        pair = [name for name in (self.method.value, self.other.value) if name in at]
        middle = np.mean([at[name][0] for name in pair]) if pair else 0
        for letter, name, ring in zip("AB", pair, (pen.ellipse, pen.rectangle), strict=False):
            x, y = at[name]
            ring((x - 9, y - 9, x + 9, y + 9), **style)
            away = -20 if x < middle or (x == middle and letter == "A") else 20
            pen.text((x + away, y), letter, anchor="mm", fill="black", font=ImageFont.load_default(16))
        return np.asarray(drawn)

    def words(self, choice: str) -> str:
        patient = self.patient.value
        other = self.other.value
        dice = [self.dice(name, patient) for name in (choice, other)]
        wrong = np.bincount(self.who(patient).ravel(), minlength=4)
        all_wrong = max(int(wrong[1:].sum()), 1)
        return (
            f"A, {choice}: {learned(choice):,} numbers learned, mean Dice of the patient {dice[0]:.3f}. "
            f"B, {other}: {learned(other):,}, {dice[1]:.3f}. Of {wrong[1:].sum():,} voxels that at least one "
            f"has wrong, {wrong[BOTH]:,} ({wrong[BOTH] / all_wrong:.0%}) are wrong in both, "
            f"{wrong[FIRST]:,} in A alone, {wrong[SECOND]:,} in B alone. A in this slice and patient:"
        )

    def shown(self) -> dict[str, str]:
        return {f"{i}. {name}": name for i, name in enumerate(self.nearby(), start=1)}

    def static(self) -> plots.Picture:
        """The points, A and B, and every network on the slice in sight."""
        every = plots.on_white(super().static().data)
        pair = np.asarray(plots.on_white(pictures.png(self.picture())))
        keys = [
            pictures.legend_row(pictures.DIFFERENCES, pictures.DIFFERENCE_COLOURS, pair.shape[1], "errors:"),
            pictures.legend_row(WHO, WHO_COLOURS, pair.shape[1], "who errs:"),
        ]
        rows = [self.scatter(), pair, *keys, np.asarray(every)]
        page = np.full((sum(map(len, rows)), max(row.shape[1] for row in rows), 3), 255, np.uint8)
        top = 0
        for row in rows:
            page[top : top + len(row), : row.shape[1]] = row
            top += len(row)
        return plots.Picture(pictures.png(page), f"{self.points_in_words()} {self.describe()}")


def _numbered(names: Sequence[str]) -> list[tuple[str, str]]:
    return [(f"{i}. {name}", name) for i, name in enumerate(names, start=1)]


def _scatter(patient: str, names: Sequence[str], dice: dict[str, float]) -> tuple[np.ndarray, dict]:
    """A picture of Dice against numbers learned, and the pixel (x, y) of each point."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.7, 2.9), layout="constrained", dpi=100)
    axis, words = figure.subplots(1, 2, width_ratios=(10, 9))
    for i, name in enumerate(names, start=1):
        value = f"{dice[name]:.3f}" if name in dice else "being computed"
        words.text(
            0, 1 - i / (len(names) + 1), f"{i:2}  {name}: {learned(name):,}; {value}", va="center", fontsize=8
        )
        if name in dice:
            axis.plot(learned(name), dice[name], "o", color=pictures.unit(pictures.BLUE))
    words.set_axis_off()
    words.set_title("learned; mean Dice", fontsize=9)
    axis.set(xscale="log", xlabel="numbers that learned, with the head", ylabel="mean Dice")
    axis.set_title(patient, fontsize=9)
    axis.margins(0.2)  # room for the letters of A and B
    axis.grid(alpha=0.3)
    drawn = plots.on_white(plots.figure_png(figure))
    at = {name: axis.transData.transform((learned(name), value)) for name, value in dice.items()}
    at = {name: (float(x), drawn.height - float(y)) for name, (x, y) in at.items()}
    pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(13)
    for name, place in label_places(at).items():
        pen.text(place, str(names.index(name) + 1), anchor="mm", fill="black", font=font)
    return np.asarray(drawn), at


def label_places(points: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """A pixel (x, y) beside each point for its number, so that none lies on another or on a point."""
    places: dict[str, tuple[float, float]] = {}
    for name, (x, y) in points.items():
        taken = [*points.values(), *places.values()]
        around = ((x + r * dx, y + r * dy) for r in (15, 22, 30) for dx, dy in AROUND)
        room = {place: min(math.dist(place, other) for other in taken) for place in around}
        places[name] = next((p for p, free in room.items() if free >= APART_PX), max(room, key=room.get))
    return places
