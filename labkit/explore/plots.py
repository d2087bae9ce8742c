"""Figures: cases, predictions and histories in, a matplotlib Figure out; nothing here displays or trains."""

from __future__ import annotations

import base64
import html
import io
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from labkit.explore.pictures import (
    BLUE,
    DIFFERENCE_COLOURS,
    DIFFERENCES,
    GREEN,
    INK,
    ORANGE,
    PLANES,
    PURPLE,
    SKY_BLUE,
    VERMILLION,
    annotate,
    checked,
    difference,
    fullest,
    intensity_range,
    label_colours,
    px_scale,
    slice_image,
    unit,
)
from labkit.metrics import dice_by_region
from labkit.scans.case import Case

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Figures


def contrasts(case: Case, slice: int | None = None) -> Figure:
    """Every channel of one axial slice, above without and below with the outlines of its labels."""
    index = _slice(case, slice)
    colours = label_colours(case.label_names)
    figure, axes = _panels(2, len(case.channels), case, f"{case.name}, axial slice {index}")
    for column, name in enumerate(case.channels):
        axes[0][column].set_title(name, fontsize=10)
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
    axes[0].set_title(case.channels[channel], fontsize=10)
    _show_slice(axes[1], case, index, channel, case.label, colours)
    axes[1].set_title("truth", fontsize=10)
    for panel, (name, prediction) in zip(axes[2:], predictions.items(), strict=True):
        prediction = checked(case, prediction)
        _show_slice(panel, case, index, channel, prediction, colours)
        panel.set_title(f"{name}\n{scores(case, prediction)}", fontsize=10)
    legend(figure, case.label_names, colours)
    return figure


def multiples(case: Case, slice: int, found: Mapping[str, np.ndarray], channel: int = -1) -> Figure:
    """One axial slice: its truth and some segmentations (H, W) of it, each under its name and its Dice."""
    index, colours = _slice(case, slice), label_colours(case.label_names)
    columns = min(4, 1 + len(found))
    title = f"{case.name}, axial slice {index}; Dice of this slice"
    figure, axes = _panels(-(-(1 + len(found)) // columns), columns, case, title)
    panels = list(axes.flat)
    _show_slice(panels[0], case, index, channel, case.label, colours)
    panels[0].set_title("truth", fontsize=10)
    for panel, (name, label) in zip(panels[1:], found.items(), strict=False):
        volume = np.zeros_like(case.label)
        volume[index] = label
        _show_slice(panel, case, index, channel, volume, colours)
        dices = dice_by_region(label, case.label[index], case.label_names)
        panel.set_title(f"{name}\n{in_words(dices)}", fontsize=10)
    for panel in panels[1 + len(found) :]:
        panel.set_axis_off()
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
    sides_mm = [
        np.multiply(view.cut(case.label, 0).shape, view.pixel_mm(case.spacing_mm)) for view in PLANES.values()
    ]
    figure, axes = _panels(3, len(layers), case, title, [height / width for height, width in sides_mm])
    for plane, panels in zip(PLANES, axes, strict=True):
        index = fullest(case.label, PLANES[plane].axis)
        for panel, (layer, content) in zip(panels, layers.items(), strict=True):
            _show_slice(panel, case, index, channel, *content, plane=plane)
            panel.set_title(layer if plane == "axial" else "", fontsize=10)
        panels[0].set_ylabel(f"{plane} {index}")
    legend(figure, *keys)
    return figure


def scores(case: Case, prediction: np.ndarray) -> str:
    """Dice per region of the whole volume in one line: "ET 0.71, WT 0.85, TC 0.80"."""
    return in_words(dice_by_region(prediction, case.label, case.label_names))


def in_words(dices: Mapping[str, float]) -> str:
    """ "ET 0.71, WT 0.85"; a region that is not there has no Dice, and that is said."""
    return ", ".join(
        f"{name} not there" if math.isnan(value) else f"{name} {value:.2f}" for name, value in dices.items()
    )


def errors(found: np.ndarray, truth: np.ndarray, pixel_mm: Sequence[float]) -> str:
    """What is wrong in labels (H, W) in words: "missed 1.2 cm², too much 0.3 cm²", or "no error"."""
    areas = np.bincount(difference(found, truth).ravel(), minlength=4) * np.prod(pixel_mm) / 100
    return (
        ", ".join(f"{text} {areas[k]:.1f} cm²" for k, text in DIFFERENCES.items() if areas[k]) or "no error"
    )


def curves(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Loss per step, and validation Dice where it was looked at, of histories from `training.fit`."""
    from matplotlib.figure import Figure

    measured = any("validation_dice" in row for rows in histories.values() for row in rows)
    figure = Figure(figsize=(10.5 if measured else 6.5, 3.4), layout="constrained")
    panels = figure.subplots(1, 1 + measured, squeeze=False)[0]
    for i, (name, rows) in enumerate(histories.items()):
        colour = unit((BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY_BLUE, (0, 0, 0))[i % 7])
        style = {"color": colour, "linestyle": ("-", "--", "-.", ":")[i % 4], "label": name}
        steps, loss = [row["step"] for row in rows], [row["loss"] for row in rows]
        panels[0].plot(steps, loss, color=colour, alpha=0.2, linewidth=0.8)
        panels[0].plot(steps, _smoothed(loss), **style)
        if measured:
            looks = [(row["step"], row["validation_dice"]) for row in rows if "validation_dice" in row]
            panels[1].plot(*zip(*looks, strict=True) if looks else ([], []), marker="os^Dv"[i % 5], **style)
    named = {"training loss (thick: smoothed)": "loss", "validation Dice": "Dice"}
    for panel, (title, score) in zip(panels, named.items(), strict=False):
        panel.set(title=title, xlabel="step", ylabel=score)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    lines = panels[-1].get_legend_handles_labels()
    figure.legend(*lines, loc="outside right upper", frameon=False)  # inside it would lie on the curves
    return figure


def patients_by_row(found: Mapping[str, np.ndarray], what: str) -> Figure:
    """Scores (seeds, regions, patients) of the rows of a table, the best on top: a grey dot for each patient
    (the mean over seeds and the regions he has), a blue mark for each seed. `what` is said below the axis."""
    from matplotlib.figure import Figure

    rows = sorted(found.items(), key=lambda item: np.nanmean(item[1], axis=(0, 2)).mean())
    figure = Figure(figsize=(8, 1.4 + 0.4 * len(rows)), layout="constrained")
    axis = figure.subplots()
    for height, (_, scores) in enumerate(rows):
        patients, seeds = np.nanmean(scores, axis=(0, 1)), np.nanmean(scores, axis=2).mean(1)
        axis.plot(patients, [height] * len(patients), "o", color="grey", alpha=0.5)
        axis.plot(seeds, [height] * len(seeds), "D", color=unit(BLUE), markersize=5)
    axis.set(xlabel=what, yticks=range(len(rows)), yticklabels=[name for name, _ in rows])
    axis.set_ylim(-0.6, max(len(rows), 1) - 0.4)
    axis.spines[["top", "right"]].set_visible(False)
    if not rows:
        axis.text(0.5, 0.5, "no row is there yet", ha="center", transform=axis.transAxes)
    return figure


def token_maps(
    case: Case,
    slice: int,
    maps: Mapping[str, np.ndarray],
    what: str,
    top: float,
    token: tuple[int, int] | None = None,
    channel: int = -1,
) -> Figure:
    """One axial slice, then maps (rows, columns) of a value of its tokens, all from 0 to `top` and with the
    outlines of the labels; a dot marks one token (row, column). `what` says what the values are."""
    from matplotlib.figure import Figure

    index, colours = _slice(case, slice), label_colours(case.label_names)
    height, width = case.label[index].shape
    size = 1.9 if len(maps) > 3 else 2.6
    figure = Figure(figsize=(size * (1 + len(maps)) + 1, size + 1.2), layout="constrained")
    first, *panels = figure.subplots(1, 1 + len(maps))
    black, white = intensity_range(case.image[channel])
    whole = (0, width, height, 0)
    first.imshow(case.image[channel, index], cmap="gray", vmin=black, vmax=white, extent=whole)
    first.set_title(f"{case.channels[channel]}, slice {index}", fontsize=10)
    for panel, (name, values) in zip(panels, maps.items(), strict=True):
        drawn = panel.imshow(values, cmap="viridis", vmin=0, vmax=top, extent=whole)
        panel.set_title(name, fontsize=10)
    for panel in (first, *panels):
        for value in case.label_names:
            if (outline := case.label[index] == value).any():
                x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
                panel.contour(x, y, outline, levels=[0.5], colors=[unit(colours[value])])
        if token is not None:
            row, column = (
                (place + 0.5) * side for place, side in zip(token, _token_sides(case, maps), strict=True)
            )
            panel.plot(column, row, "o", color="white", markeredgecolor="black")
        panel.set(xticks=[], yticks=[])
    figure.colorbar(drawn, ax=panels, label=what, shrink=0.8, extend="max")
    legend(figure, case.label_names, colours)
    return figure


def _token_sides(case: Case, maps: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Height and width of a token in pixels."""
    rows, columns = next(iter(maps.values())).shape
    return case.label.shape[1] / rows, case.label.shape[2] / columns


def legend(figure: Figure, *names_and_colours: Mapping) -> None:
    """Colours and words below a figure: names, colours, and more such pairs if there are any."""
    from matplotlib.patches import Patch

    pairs = zip(names_and_colours[::2], names_and_colours[1::2], strict=True)
    patches = [
        Patch(facecolor=unit(colours[v]), edgecolor="black", linewidth=0.5, label=text)
        for names, colours in pairs
        for v, text in sorted(names.items())
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(len(patches), 3), frameon=False)


def fit_legend(figure: Figure) -> Figure:
    """The figure with its `legend` in at most three columns, and in as few as keep it inside the figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(figure).get_renderer()
    (old,) = figure.legends
    handles, words = old.legend_handles, [text.get_text() for text in old.texts]
    for columns in range(min(len(handles), 3), 0, -1):
        figure.legends[-1].remove()
        place = {"loc": "outside lower center", "ncols": columns, "frameon": False}
        new = figure.legend(handles=handles, labels=words, **place)
        if new.get_window_extent(renderer).width <= figure.bbox.width:
            break
    return figure


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
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    _for_any_ground(figure)
    figure.set(dpi=dpi, facecolor="none")
    canvas, file = FigureCanvasAgg(figure), io.BytesIO()
    canvas.draw()  # once; savefig would draw twice, first only to lay out the axes
    Image.fromarray(np.asarray(canvas.buffer_rgba())).save(file, format="PNG")
    return file.getvalue()


def on_white(png: bytes) -> Image.Image:
    """A PNG of `figure_png` as RGB, as a light page shows it."""
    figure = Image.open(io.BytesIO(png)).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", figure.size, "white"), figure).convert("RGB")


def _for_any_ground(figure: Figure) -> None:
    """Outside its axes a figure has no ground of its own, and words in a grey that is read on white and on
    black; inside, black stays on white."""
    from matplotlib.text import Text

    outside = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for axis in figure.axes:
        own = [text for text in axis.texts if axis.axison or text.get_bbox_patch()]  # they have a ground
        texts = [one for one in axis.get_children() if isinstance(one, Text)]
        outside += [text for text in texts if not any(text is one for one in own)]
        outside += [axis.xaxis.label, axis.yaxis.label, axis.xaxis.offsetText, axis.yaxis.offsetText]
        axis.tick_params(which="both", color=INK, labelcolor=INK)
    for text in outside:
        if text.get_color() in ("black", "k"):
            text.set_color(INK)


# Helpers of the figures


def _slice(case: Case, index: int | None) -> int:
    index = fullest(case.label) if index is None else index
    if not 0 <= index < len(case.label):
        raise ValueError(f"{case.name} has axial slices 0 to {len(case.label) - 1}, not {index}")
    return index


def _panels(rows: int, columns: int, case: Case, title: str, heights: Sequence[float] = ()):
    """A figure and its axes (rows, columns), each row `heights` times as high as a panel is wide, 1 if it is
    not said; the title says "synthetic" when the case is."""
    from matplotlib.figure import Figure

    if case.synthetic and "synthetic" not in title:
        title += " (synthetic)"
    heights = heights or [1.0] * rows
    size = (max(2.6 * columns, 5.2), 2.6 * sum(heights) + 0.3 * rows + 1.0)
    figure = Figure(figsize=size, layout="compressed")
    figure.get_layout_engine().set(h_pad=0.08)  # a title above a row keeps off what stands over it
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(rows, columns, squeeze=False, height_ratios=heights)
    for panel in axes.flat:
        panel.set(xticks=[], yticks=[])
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


def _smoothed(values: Sequence[float], share: float = 0.1) -> np.ndarray:
    """The mean of the last tenth of all steps, at every step."""
    width = max(1, round(len(values) * share))
    total = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - width)
    return (total[ends] - total[starts]) / (ends - starts)


# Differences and their intervals


def differences(panels: Mapping[str, Mapping[str, tuple[float, float]]], xlabel: str) -> Figure:
    """How far each row is from what its panel compares it with, as (mean, half the width of the interval): a
    panel for each title, its rows from top to bottom, and a mark of another kind where the interval leaves 0
    out. Panels need not have the same rows."""
    from matplotlib.figure import Figure

    rows = list(dict.fromkeys(name for panel in panels.values() for name in panel))[::-1]
    size = (3 + 3.2 * len(panels), 1.6 + 0.36 * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for axis, (title, apart) in zip(axes, panels.items(), strict=True):
        for name, (mean, half) in apart.items():
            colour, marker = (VERMILLION, "s") if abs(mean) > half else (BLUE, "o")
            axis.errorbar(mean, rows.index(name), xerr=half, fmt=marker, color=unit(colour), capsize=3)
        axis.axvline(0, color="grey", linewidth=0.8)
        axis.set(yticks=range(len(rows)), yticklabels=rows, title=title, xlabel=xlabel)
        axis.set_ylim(-0.6, len(rows) - 0.4)
        axis.title.set_fontsize(10)
    axes[0].plot([], [], "o", color=unit(BLUE), label="95 % interval holds 0")
    axes[0].plot([], [], "s", color=unit(VERMILLION), label="95 % interval leaves 0 out")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure
