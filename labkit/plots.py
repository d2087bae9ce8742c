"""Pictures: arrays in, image bytes or a matplotlib Figure out; nothing here displays or asks a model."""

from __future__ import annotations

import base64
import html
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from labkit.data.case import Case
from labkit.metrics import dice, regions_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Colour = tuple[int, int, int]  # red, green, blue, 0 to 255

# Okabe and Ito, 2008, "Color Universal Design": told apart with any common colour blindness. Neighbours in
# this order also differ in lightness, so that they survive a grey print.
VERMILLION, SKY_BLUE, YELLOW, PURPLE = (213, 94, 0), (86, 180, 233), (240, 228, 66), (204, 121, 167)
GREEN, ORANGE, BLUE = (0, 158, 115), (230, 159, 0), (0, 114, 178)
PALETTE: tuple[Colour, ...] = (VERMILLION, SKY_BLUE, YELLOW, PURPLE, GREEN, ORANGE, BLUE)

RIGHT, MISSED, ADDED, CONFUSED = 0, 1, 2, 3
DIFFERENCES = {MISSED: "missed", ADDED: "too much", CONFUSED: "wrong label"}
DIFFERENCE_COLOURS = {MISSED: BLUE, ADDED: ORANGE, CONFUSED: GREEN}  # none of the first three labels'

REGION_NAMES = {"ET": "enhancing tumour", "WT": "whole tumour", "TC": "tumour core"}
SIDE_PX = 480  # the longest side of a volume in the viewer


@dataclass(frozen=True)
class Plane:
    """A way to cut a volume (S, H, W): the axis cut across, and the letter at each side of the picture."""

    axis: int
    top: str
    bottom: str
    left: str
    right: str

    def cut(self, volume: np.ndarray, index: int) -> np.ndarray:
        """The slice (rows, columns) as it is looked at: head or face up, the patient's right on the left."""
        slice_ = np.take(volume, index, axis=self.axis)
        return slice_ if self.axis == 0 else slice_[::-1]  # the first axial slice is the lowest

    def pixel_mm(self, spacing_mm: Sequence[float]) -> tuple[float, float]:
        """Height and width of a voxel in the picture."""
        return tuple(mm for axis, mm in enumerate(spacing_mm) if axis != self.axis)


PLANES = {
    "axial": Plane(0, "A", "P", "R", "L"),
    "coronal": Plane(1, "S", "I", "R", "L"),
    "sagittal": Plane(2, "S", "I", "A", "P"),
}


# What a picture needs to know of a case


def label_colours(label_names: Mapping[int, str]) -> dict[int, Colour]:
    """A colour per label, the smallest label first; from the eighth on they repeat in a lighter shade."""
    rounds = [divmod(i, len(PALETTE)) for i in range(len(label_names))]
    shades = [tuple(255 - (255 - c) // 2**turn for c in PALETTE[i]) for turn, i in rounds]
    return dict(zip(sorted(label_names), shades, strict=True))


def checked(case: Case, prediction: np.ndarray) -> np.ndarray:
    """`prediction` as uint8 (S, H, W), when it is a label volume of this case.

    ValueError: another shape, no whole numbers, or labels that the case does not know.
    """
    prediction = np.asarray(prediction)
    if prediction.shape != case.label.shape:
        raise ValueError(f"the prediction has shape {prediction.shape} but {case.name} {case.label.shape}; "
                         "give one label per voxel, on the same grid")  # fmt: skip
    if prediction.dtype.kind not in "biu":
        raise ValueError(f"a prediction holds integer labels, not {prediction.dtype}; take the argmax of "
                         "logits and turn it into the case's labels")  # fmt: skip
    known = sorted({0, *case.label_names})
    strange = sorted(set(np.unique(prediction).tolist()) - set(known))
    if strange:
        raise ValueError(f"the prediction holds label {strange[0]} but {case.name} knows {known}; turn class "
                         "numbers back into the case's labels")  # fmt: skip
    return prediction.astype(np.uint8)


def difference(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Where two label arrays disagree, and how: one of RIGHT, MISSED, ADDED, CONFUSED per voxel."""
    result = np.full(truth.shape, CONFUSED, np.uint8)
    result[(prediction == 0)] = MISSED
    result[(truth == 0)] = ADDED
    result[prediction == truth] = RIGHT
    return result


def dice_of(case: Case, prediction: np.ndarray) -> dict[str, float]:
    """Dice per region over the whole volume, 0 to 1."""
    return {
        name: dice(np.isin(prediction, labels), np.isin(case.label, labels))
        for name, labels in regions_of(case.label_names).items()
    }


def scores(case: Case, prediction: np.ndarray) -> str:
    """The same in one line: "ET 0.71, WT 0.85, TC 0.80"."""
    return ", ".join(f"{name} {value:.2f}" for name, value in dice_of(case, prediction).items())


def fullest(label: np.ndarray, axis: int = 0) -> int:
    """The slice across `axis` with most labelled voxels; the middle one if there are none."""
    counts = (label > 0).sum(axis=tuple(a for a in range(label.ndim) if a != axis))
    return int(counts.argmax()) if counts.any() else label.shape[axis] // 2


def intensity_range(image: np.ndarray) -> tuple[float, float]:
    """What is shown as black and as white: the 1st and the 99.8th percentile of what is no background."""
    background = image.flat[0]
    inside = image[image != background]
    low, high = np.percentile(inside if inside.size else image, (1, 99.8))
    low = min(low, float(background))  # a background of 0 stays black
    return float(low), float(high if high > low else low + 1)


# One slice as an image


def slice_image(
    image: np.ndarray,
    label: np.ndarray | None = None,
    colours: Mapping[int, Colour] | None = None,
    *,
    black: float,
    white: float,
    pixel_mm: tuple[float, float] = (1.0, 1.0),
    px_per_mm: float = 3.0,
    opacity: float = 0.5,
    contours: bool = False,
) -> np.ndarray:
    """One slice (rows, columns) in grey, with its labels in colour, as (h, w, 3) uint8 in true proportions.

    The image is interpolated; labels keep their voxels' edges. `contours` paints only their borders.
    """
    rows, columns = (max(1, round(n * mm * px_per_mm)) for n, mm in zip(image.shape, pixel_mm, strict=True))
    scaled = np.clip((image - black) * (255 / (white - black)), 0, 255).astype(np.uint8)
    grey = np.asarray(Image.fromarray(scaled).resize((columns, rows), Image.Resampling.BILINEAR))
    picture = np.repeat(grey[..., None], 3, axis=2)
    if label is None or not label.any() or opacity <= 0:
        return picture
    label = np.asarray(Image.fromarray(label).resize((columns, rows), Image.Resampling.NEAREST))
    where = border(label) if contours else label > 0
    table = np.zeros((256, 3), np.float32)
    for value, colour in (colours or {}).items():
        table[value] = colour
    mixed = (1 - opacity) * picture[where] + opacity * table[label[where]]
    picture[where] = np.round(mixed).astype(np.uint8)
    return picture


def border(label: np.ndarray, px: int = 2) -> np.ndarray:
    """The outermost `px` pixels of every label in an array (h, w)."""
    wide = np.pad(label, px)
    h, w = label.shape
    shifts = ((0, px), (px, 0), (px, 2 * px), (2 * px, px))
    return (label > 0) & np.any([wide[i : i + h, j : j + w] != label for i, j in shifts], axis=0)


def annotate(picture: np.ndarray, plane: Plane, px_per_mm: float) -> np.ndarray:
    """The same picture with the patient's directions at its sides and a scale bar in mm."""
    h, w = picture.shape[:2]
    drawn = Image.fromarray(picture)
    pen = ImageDraw.Draw(drawn)
    style = {"font": _font(), "fill": (255, 255, 255), "stroke_width": 2, "stroke_fill": (0, 0, 0)}
    pen.text((w / 2, 4), plane.top, anchor="ma", **style)
    pen.text((w / 2, h - 4), plane.bottom, anchor="md", **style)
    pen.text((5, h / 2), plane.left, anchor="lm", **style)
    pen.text((w - 5, h / 2), plane.right, anchor="rm", **style)
    bar_mm = max((mm for mm in (1, 2, 5, 10, 20, 50, 100) if mm * px_per_mm < w / 3), default=1)
    right, bottom, long = w - 10, h - 10, bar_mm * px_per_mm
    pen.rectangle((right - long - 1, bottom - 4, right + 1, bottom + 1), fill=(0, 0, 0))
    pen.rectangle((right - long, bottom - 3, right, bottom), fill=(255, 255, 255))
    pen.text((right - long / 2, bottom - 7), f"{bar_mm} mm", anchor="md", **style)
    return np.asarray(drawn)


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=15)


def png(picture: np.ndarray) -> bytes:
    """A picture (h, w, 3) uint8 as PNG; compressed little, for speed."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "png", compress_level=1)
    return file.getvalue()


# Figures


def contrasts(case: Case, slice: int | None = None) -> Figure:
    """Every channel of one axial slice, above without and below with the outlines of its labels."""
    index = _slice(case, slice)
    colours = label_colours(case.label_names)
    figure, axes = _panels(2, len(case.channels), case, f"{case.name}, axial slice {index}")
    for column, name in enumerate(case.channels):
        axes[0][column].set_title(name)
        _show_slice(axes[0][column], case, index, column)
        _show_slice(axes[1][column], case, index, column, case.label, colours, contours=True)
    legend(figure, case.label_names, colours)
    return figure


def comparison(
    case: Case, predictions: Mapping[str, np.ndarray], slice: int | None = None, channel: int = -1
) -> Figure:
    """One axial slice, its truth, and each prediction with its Dice over the whole volume."""
    index, colours = _slice(case, slice), label_colours(case.label_names)
    title = f"{case.name}, axial slice {index}; Dice of the whole volume"
    figure, (axes,) = _panels(1, 2 + len(predictions), case, title)
    _show_slice(axes[0], case, index, channel)
    axes[0].set_title(case.channels[channel])
    _show_slice(axes[1], case, index, channel, case.label, colours)
    axes[1].set_title("truth")
    for panel, (name, prediction) in zip(axes[2:], predictions.items(), strict=True):
        prediction = checked(case, prediction)
        _show_slice(panel, case, index, channel, prediction, colours)
        panel.set_title(f"{name}\n{scores(case, prediction)}")
    legend(figure, case.label_names, colours)
    return figure


def overview(case: Case, prediction: np.ndarray | None = None, channel: int = -1) -> Figure:
    """All that the viewer can show, as one picture: three planes where the label is fullest."""
    colours = label_colours(case.label_names)
    keys = [case.label_names, colours]
    layers = {case.channels[channel]: (), "truth": (case.label, colours)}
    title = case.name
    if prediction is not None:
        prediction = checked(case, prediction)
        layers["prediction"] = (prediction, colours)
        layers["difference"] = (difference(prediction, case.label), DIFFERENCE_COLOURS)
        keys += [DIFFERENCES, DIFFERENCE_COLOURS]
        title += f"\nDice of the whole volume: {scores(case, prediction)}"
    figure, axes = _panels(3, len(layers), case, title)
    for plane, panels in zip(PLANES, axes, strict=True):
        index = fullest(case.label, PLANES[plane].axis)
        for panel, (layer, content) in zip(panels, layers.items(), strict=True):
            _show_slice(panel, case, index, channel, *content, plane=plane)
            panel.set_title(layer if plane == "axial" else "")
        panels[0].set_ylabel(f"{plane} {index}")
    legend(figure, *keys)
    return figure


def curves(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Loss per step, and validation Dice where it was looked at, of histories from `training.fit`."""
    from matplotlib.figure import Figure

    measured = any("validation_dice" in row for rows in histories.values() for row in rows)
    figure = Figure(figsize=(9 if measured else 5, 3.4), layout="constrained")
    panels = figure.subplots(1, 1 + measured, squeeze=False)[0]
    for i, (name, rows) in enumerate(histories.items()):
        colour = _unit((BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY_BLUE, (0, 0, 0))[i % 7])
        style = {"color": colour, "linestyle": ("-", "--", "-.", ":")[i % 4], "label": name}
        steps, loss = [row["step"] for row in rows], [row["loss"] for row in rows]
        panels[0].plot(steps, loss, color=colour, alpha=0.2, linewidth=0.8)
        panels[0].plot(steps, _smoothed(loss), **style)
        if measured:
            looks = [(row["step"], row["validation_dice"]) for row in rows if "validation_dice" in row]
            panels[1].plot(*zip(*looks, strict=True) if looks else ([], []), marker="os^Dv"[i % 5], **style)
    for panel, title in zip(panels, ("training loss (thick: smoothed)", "validation Dice"), strict=False):
        panel.set(title=title, xlabel="step")
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    panels[-1].legend(frameon=False)
    return figure


def legend(figure: Figure, *names_and_colours: Mapping) -> None:
    """Colours and words below a figure: names, colours, and more such pairs if there are any."""
    from matplotlib.patches import Patch

    pairs = zip(names_and_colours[::2], names_and_colours[1::2], strict=True)
    patches = [
        Patch(facecolor=_unit(colours[v]), edgecolor="black", linewidth=0.5, label=text)
        for names, colours in pairs
        for v, text in sorted(names.items())
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(len(patches), 3), frameon=False)


def legend_html(names: Mapping[int, str], colours: Mapping[int, Colour]) -> str:
    """The same for a notebook: a swatch and a word per label."""
    swatch = "display:inline-block;width:1em;height:1em;border:1px solid #555;background:rgb"
    items = (
        f"<li><span aria-hidden='true' style='{swatch}{colours[value]}'></span> {html.escape(text)}</li>"
        for value, text in sorted(names.items())
    )
    plain = "list-style:none;margin:0;padding:0;line-height:1.4"
    return f"<ul aria-label='legend' style='{plain}'>{''.join(items)}</ul>"


# Figures in a notebook


@dataclass(frozen=True, repr=False)
class Picture:
    """An image that a notebook shows, with words for whoever can't see it."""

    data: bytes  # PNG
    alt: str

    def __repr__(self) -> str:
        return self.alt

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict[str, str], dict]:
        # JupyterLab reads no alternative text with image/png, other readers show no image inside HTML
        encoded = base64.b64encode(self.data).decode()
        source = f"data:image/png;base64,{encoded}"
        page = f'<img alt="{html.escape(self.alt)}" src="{source}" style="max-width:100%">'
        bundle = {"text/html": page, "image/png": encoded, "text/plain": self.alt}
        return bundle, {"image/png": {"alt": self.alt}}


def show(figure: Figure, alt: str) -> Picture:
    """A figure as a cell's last value; `alt` says in words what it shows. ValueError: no words."""
    if not alt.strip():
        raise ValueError("show() needs an alt text; say in one sentence what the figure shows")
    data = figure_png(figure)
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close(figure)  # or the notebook would show it a second time, without the words
    return Picture(data, alt)


def figure_png(figure: Figure, dpi: int = 100) -> bytes:
    """A figure as PNG."""
    file, small = io.BytesIO(), io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi, facecolor="white")
    Image.open(file).convert("RGB").save(small, "png", optimize=True)  # notebooks carry every figure twice
    return small.getvalue()


# Helpers of the figures


def _slice(case: Case, index: int | None) -> int:
    index = fullest(case.label) if index is None else index
    if not 0 <= index < len(case.label):
        raise ValueError(f"{case.name} has axial slices 0 to {len(case.label) - 1}, not {index}")
    return index


def _panels(rows: int, columns: int, case: Case, title: str):
    """A figure and its axes (rows, columns); it says "synthetic" when the case is."""
    from matplotlib.figure import Figure

    if case.synthetic and "synthetic" not in title:
        title += " (synthetic)"
    figure = Figure(figsize=(max(2.6 * columns, 5.2), 2.6 * rows + 1.3), layout="compressed")
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(rows, columns, squeeze=False)
    for panel in axes.flat:
        panel.set(xticks=[], yticks=[])
        panel.title.set_fontsize(10)
    return figure, axes


def _show_slice(panel, case, index, channel, label=None, colours=None, contours=False, plane="axial") -> None:
    view = PLANES[plane]
    black, white = intensity_range(case.image[channel])
    px_per_mm = px_scale(case, side=300)
    picture = slice_image(
        view.cut(case.image[channel], index),
        None if label is None else view.cut(label, index),
        colours,
        black=black,
        white=white,
        pixel_mm=view.pixel_mm(case.spacing_mm),
        px_per_mm=px_per_mm,
        opacity=1.0 if contours else 0.6,
        contours=contours,
    )
    panel.imshow(annotate(picture, view, px_per_mm))


def px_scale(case: Case, side: int = SIDE_PX) -> float:
    """Pixels per mm that make the longest side of the volume `side` pixels long."""
    return side / max(n * mm for n, mm in zip(case.label.shape, case.spacing_mm, strict=True))


def _smoothed(values: Sequence[float], share: float = 0.1) -> np.ndarray:
    """The mean of the last tenth of all steps, at every step."""
    width = max(1, round(len(values) * share))
    total = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - width)
    return (total[ends] - total[starts]) / (ends - starts)


def _unit(colour: Colour) -> tuple[float, ...]:
    return tuple(c / 255 for c in colour)
