"""A viewer of one patient: three planes, every channel, truth, prediction and where they differ."""

from __future__ import annotations

import html
import math
from collections.abc import Hashable
from typing import ClassVar

import ipywidgets as widgets
import numpy as np

from labkit.explore import pictures, plots
from labkit.explore.live import LivePicture
from labkit.explore.shown import Shown, cell
from labkit.metrics import REGION_NAMES, dice_by_region
from labkit.scans.case import Case

OVERLAYS = ("truth", "prediction", "difference")


def viewer(case: Case, prediction: np.ndarray | None = None) -> Viewer:
    """A widget that shows a case, and a prediction (S, H, W) of its labels beside the truth.

    Every control works by keyboard; the wheel over the picture moves the slice. A click lays a cross: the
    words say what is there, and the other planes are opened at it; a click on the cross takes it away.
    Without a browser (LABKIT_HEADLESS=1) it is shown as one static picture.
    ValueError: a prediction that does not fit the case.
    """
    return Viewer(case, prediction)


class Viewer(Shown):
    """See `viewer`. Its controls are attributes; moving a slider repaints `image` and rewrites `words`."""

    made: ClassVar[dict[Hashable, tuple[int | None, int]]] = {}  # cell, patient: last run, how many in it

    def __init__(self, case: Case, prediction: np.ndarray | None = None) -> None:
        self.case = case
        self.prediction = None if prediction is None else pictures.checked(case, prediction)
        self.ranges = [pictures.intensity_range(channel) for channel in case.image]
        self.px_per_mm = pictures.px_scale(case)
        self.cross: tuple[int, int, int] | None = None  # a voxel (s, h, w); it moves along with the slice
        self._build()
        body = widgets.HBox([self.image, self._panel()], layout={"flex_flow": "row wrap"})
        super().__init__([self.heading, body])
        for control in (self.slice, self.channel, self.window, self.overlay, self.opacity, self.labels):
            control.observe(self._repaint, "value")
        self.plane.observe(self._turn, "value")
        self.image.follow(self.slice)
        self.image.clicked(self._clicked)
        self._turn()

    @classmethod
    def shows(cls, case: Case, prediction: np.ndarray | None = None) -> Hashable:
        """One for each cell and patient: run again, the cell may show another scan or prediction of the same.
        What one run shows of a patient, one after the other, stays."""
        where, run = cell()
        last, count = cls.made.get((where, case.name), (None, 0))
        count = count + 1 if run is not None and run == last else 0
        cls.made[where, case.name] = run, count
        return cls, where, case.name, count

    def _build(self) -> None:
        look = {"style": {"description_width": "6.5em"}, "layout": {"width": "23em"}}
        overlays = OVERLAYS if self.prediction is not None else OVERLAYS[:1]
        channels = [(name, i) for i, name in enumerate(self.case.channels)]
        self.heading = widgets.HTML(f"<strong>{html.escape(title(self.case))}</strong>")
        self.image = LivePicture()
        self.plane = widgets.Dropdown(options=list(pictures.PLANES), description="Plane", **look)
        self.slice = widgets.IntSlider(description="Slice", **look)
        self.channel = widgets.Dropdown(options=channels, description="Channel", **look)
        self.channel.value = channels[-1][1]
        self.window = widgets.IntRangeSlider(value=(0, 100), description="Contrast %", **look)
        self.overlay = widgets.Dropdown(options=overlays, description="Overlay", **look)
        self.channel.disabled, self.overlay.disabled = len(channels) == 1, len(overlays) == 1
        self.overlay.value = overlays[:2][-1]  # the prediction, if there is one
        self.opacity = widgets.IntSlider(value=50, description="Opacity %", **look)
        self.labels = widgets.Dropdown(options=["filled", "contours"], description="Labels", **look)
        self.legend, self.words = widgets.HTML(), widgets.HTML(layout={"width": "23em"})

    def _panel(self) -> widgets.VBox:
        looks = (self.channel, self.window, self.overlay, self.labels, self.opacity)
        table = [widgets.HTML(dice_table(self.case, self.prediction))] if self.prediction is not None else []
        parts = [self.plane, self.slice, *looks, self.legend, self.words, *table]
        return widgets.VBox(parts, layout={"margin": "0 0 0 1em"})

    def _turn(self, _=None) -> None:
        """Another plane: another number of slices, and the one of the cross or where the label is fullest."""
        axis = pictures.PLANES[self.plane.value].axis
        index = self.cross[axis] if self.cross else pictures.fullest(self.case.label, axis)
        self.slice.max = self.case.label.shape[axis] - 1
        self.slice.value = index
        self._repaint()

    def _clicked(self, x: float, y: float) -> None:
        """Lay the cross at a place of the picture, in shares of its width and height; there again: away."""
        plane = pictures.PLANES[self.plane.value]
        at = plane.voxel(self.case.label.shape, self.slice.value, x, y)
        near = self.cross and max(abs(a - b) for a, b in zip(self.cross, at, strict=True)) <= 1
        self.cross = None if near else at
        self._repaint()

    def _repaint(self, _=None) -> None:
        if self.cross:
            axis = pictures.PLANES[self.plane.value].axis
            self.cross = (*self.cross[:axis], self.slice.value, *self.cross[axis + 1 :])
        self.image.value = pictures.png(self.picture())
        self.image.alt = said = self.describe()
        # the words stand beside the picture, too, for whoever sees it, and are announced when they change
        self.words.value = f"<div role='status' style='line-height:1.4'>{html.escape(said)}</div>"
        if self.overlay.value == "difference":
            self.legend.value = pictures.legend_html(pictures.DIFFERENCES, pictures.DIFFERENCE_COLOURS)
        else:
            names = self.case.label_names
            self.legend.value = pictures.legend_html(names, pictures.label_colours(names))

    def picture(self) -> np.ndarray:
        """What the controls ask for, as (h, w, 3) uint8."""
        plane = pictures.PLANES[self.plane.value]
        low, high = self.ranges[self.channel.value]
        black, white = (low + (high - low) * percent / 100 for percent in self.window.value)
        label, colours = self._layer(plane)
        contours = self.labels.value == "contours"
        picture = pictures.slice_image(
            plane.cut(self.case.image[self.channel.value], self.slice.value),
            label,
            colours,
            black=black,
            white=max(white, black + 1e-6 * (high - low)),
            pixel_mm=plane.pixel_mm(self.case.spacing_mm),
            px_per_mm=self.px_per_mm,
            opacity=min(1, self.opacity.value / (50 if contours else 100)),  # thin lines need more of it
            contours=contours,
        )
        if self.cross:
            picture = pictures.crossed(picture, *plane.place(self.case.label.shape, self.cross))
        return pictures.annotate(picture, plane, self.px_per_mm)

    def _layer(self, plane: pictures.Plane) -> tuple[np.ndarray, dict[int, pictures.Colour]]:
        truth = plane.cut(self.case.label, self.slice.value)
        if self.overlay.value == "truth":
            return truth, pictures.label_colours(self.case.label_names)
        predicted = plane.cut(self.prediction, self.slice.value)
        if self.overlay.value == "prediction":
            return predicted, pictures.label_colours(self.case.label_names)
        return pictures.difference(predicted, truth), pictures.DIFFERENCE_COLOURS

    def describe(self) -> str:
        """The picture in words: where it lies, and how much of each label it shows."""
        plane = pictures.PLANES[self.plane.value]
        label, _ = self._layer(plane)
        names = pictures.DIFFERENCES if self.overlay.value == "difference" else self.case.label_names
        pixel_cm2 = np.prod(plane.pixel_mm(self.case.spacing_mm)) / 100
        counts = np.bincount(label.ravel(), minlength=256)
        seen = [f"{text} {counts[v] * pixel_cm2:.1f} cm²" for v, text in sorted(names.items()) if counts[v]]
        place_mm = self.slice.value * self.case.spacing_mm[plane.axis]
        return (
            f"{self.plane.value.capitalize()} slice {self.slice.value} of 0 to {self.slice.max} "
            f"({place_mm:g} mm from the first), {self.case.channels[self.channel.value]}. "
            f"{self.overlay.value.capitalize()}: {', '.join(seen) or 'nothing here'}.{self._at_the_cross()}"
        )

    def _at_the_cross(self) -> str:
        """What the image and the truth have there, in words."""
        if not self.cross:
            return ""
        value = self.case.image[self.channel.value][self.cross]
        label = self.case.label_names.get(int(self.case.label[self.cross]), "no label")
        return f" At the cross: {self.case.channels[self.channel.value]} {value:.4g}, {label}."

    def static(self) -> plots.Picture:
        """Three planes of image, truth, prediction and difference."""
        alt = f"{title(self.case)}. Three planes where the label is fullest: image and truth"
        if self.prediction is not None:
            alt += (
                ", prediction and difference. Dice of the whole volume: "
                f"{plots.scores(self.case, self.prediction)}"
            )
        return plots.show(plots.fit_legend(plots.overview(self.case, self.prediction)), alt + ".")


def title(case: Case) -> str:
    """The patient's name, and that it is synthetic if it is."""
    return case.name if not case.synthetic or "synthetic" in case.name else f"{case.name} (synthetic)"


def dice_table(case: Case, prediction: np.ndarray) -> str:
    """Dice per region over the whole volume, as an HTML table."""
    rows = "".join(
        f"<tr><th scope='row' style='text-align:left;padding-right:1em'>{html.escape(_in_words(name))}</th>"
        f"<td>{'not there' if math.isnan(value) else f'{value:.3f}'}</td></tr>"
        for name, value in dice_by_region(prediction, case.label, case.label_names).items()
    )
    return f"<table><caption style='text-align:left'>Dice, whole volume</caption>{rows}</table>"


def _in_words(region: str) -> str:
    words = REGION_NAMES.get(region)
    return f"{region} {words}" if words else region
