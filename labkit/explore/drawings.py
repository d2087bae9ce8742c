"""Drawings that labs return to: a transformer's block, and where adapters go. Nothing here is measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from labkit.explore.pictures import ORANGE, SKY_BLUE, unit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MATRICES = ("q", "k", "v", "o", "fc1", "fc2")


def transformer_block(
    tokens: int = 144, width: int = 384, hidden: int = 960, heads: int = 6, marked: Sequence[str] = ()
) -> Figure:
    """A block of a ViT (Dosovitskiy et al., 2021, arXiv:2010.11929) from left to right, with the shape of
    what flows and of each matrix, (rows, columns) as in y = W x. `marked` matrices, those that a method
    changes, are orange.

    ValueError: a name that none of the six matrices has.
    """
    if unknown := set(marked) - set(MATRICES):
        raise ValueError(f"A block has no matrix {sorted(unknown)}; mark some of {', '.join(MATRICES)}.")
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    square, flow = f"({width}, {width})", f"({tokens}, {width})"
    figure = Figure(figsize=(11, 3.9), layout="constrained")
    panel = figure.subplots()
    panel.set(xlim=(-0.4, 15.2), ylim=(-2.5, 2.9))
    panel.set_axis_off()

    def box(x: float, y: float, text: str, colour=(235, 235, 235)) -> None:
        style = {"boxstyle": "round,pad=0.25", "facecolor": unit(colour), "edgecolor": "black"}
        panel.text(x, y, text, ha="center", va="center", fontsize=9, bbox=style)

    def arrow(start: tuple[float, float], end: tuple[float, float]) -> None:
        """From one box's middle, behind it, to the next one's edge."""
        style = {"arrowstyle": "->", "color": "0.35", "shrinkA": 0, "shrinkB": 0}
        panel.annotate("", end, start, arrowprops=style, zorder=0)

    def matrix(x: float, y: float, name: str, shape: str) -> None:
        box(x, y, f"{name}\n{shape}", ORANGE if name in marked else SKY_BLUE)

    for y, name in ((1.3, "q"), (0.0, "k"), (-1.3, "v")):
        arrow((1.6, 0), (2.95, y))
        matrix(3.5, y, name, square)
        arrow((3.5, y), (5.3, 0.35 * y))
    edges = ((-0.2, 1.3), (6.0, 7.35), (7.9, 8.97), (9.1, 9.63), (9.9, 10.65), (11.2, 11.9), (12.2, 12.65))
    for start, end in (*edges, (13.2, 14.17), (14.3, 15.1)):
        arrow((start, 0), (end, 0))
    box(1.6, 0, "norm")
    box(6.0, 0, f"attention,\n{heads} heads:\n{tokens} x {tokens}\nweights each")
    matrix(7.9, 0, "o", square)
    box(9.1, 0, "+")
    box(9.9, 0, "norm")
    matrix(11.2, 0, "fc1", f"({hidden}, {width})")
    box(12.2, 0, "GELU")
    matrix(13.2, 0, "fc2", f"({width}, {hidden})")
    box(14.3, 0, "+")
    for start, end in ((0.6, 9.1), (9.4, 14.3)):
        panel.plot([start, start, end], [0, 2.2, 2.2], color="0.35", linewidth=1, zorder=0)
        arrow((end, 2.2), (end, 0.22))
        panel.text((start + end) / 2, 2.3, "skip", ha="center", fontsize=9, color="0.35")
    for x, words in ((-0.2, f"in\n{flow}"), (9.5, flow), (15.0, f"out\n{flow}")):
        panel.text(x, -0.55, words, ha="center", va="top", fontsize=9)
    panel.text(5.0, -2.3, "attention: every token reads the others", ha="center", fontsize=10)
    panel.text(12.1, -2.3, "MLP: every token by itself", ha="center", fontsize=10)
    keys = {"a matrix": SKY_BLUE, "no matrix": (235, 235, 235)} | ({"changed": ORANGE} if marked else {})
    patches = [Patch(facecolor=unit(c), edgecolor="black", label=text) for text, c in keys.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=3, frameon=False)
    return figure


def adapter_places() -> Figure:
    """The stream x, a frozen layer F, and where three kinds of adapters a read and write: sequential (Houlsby
    et al., 2019, arXiv:1902.00751), parallel (He et al., 2022, arXiv:2110.04366), and after the block."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    frozen, new = (221, 221, 221), ORANGE
    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = dict(zip(("sequential", "parallel", "after the block"), figure.subplots(1, 3), strict=True))

    def box(panel, at: tuple[float, float], text: str, colour) -> None:
        style = {"boxstyle": "round,pad=0.45", "facecolor": unit(colour), "edgecolor": "black"}
        panel.text(*at, text, bbox=style, ha="center", va="center", fontsize=10)

    def path(panel, *points: tuple[float, float]) -> None:
        """A line through points, behind all boxes, with an arrow at its end."""
        panel.plot(*zip(*points, strict=True), color="0.35", linewidth=1, zorder=0)
        style = {"arrowstyle": "->", "color": "0.35", "shrinkA": 0, "shrinkB": 0}
        panel.annotate("", points[-1], points[-2], arrowprops=style, zorder=0)

    def join(panel, y: float) -> None:
        style = {"boxstyle": "circle,pad=0.15", "facecolor": "white"}
        panel.text(0, y, "+", bbox=style, ha="center", va="center")

    for name, panel in panels.items():
        panel.set(xlim=(-0.6, 3), ylim=(-0.3, 4.9), title=name)
        panel.set_axis_off()
        path(panel, (0, -0.2), (0, 4.8))
        panel.text(-0.2, 0, "x", ha="right")
        path(panel, (0, 0.2), (1.1, 0.2), (1.1, 0.65))
        box(panel, (1.1, 0.95), "F", frozen)
    panel = panels["sequential"]
    path(panel, (1.1, 1.2), (1.1, 2.35))
    box(panel, (1.1, 2.7), "a", new)
    path(panel, (1.1, 1.75), (0.2, 1.75))
    path(panel, (1.1, 3), (1.1, 3.7), (0.2, 3.7))
    join(panel, 1.75), join(panel, 3.7)
    panel = panels["parallel"]
    path(panel, (1.1, 0.2), (2.3, 0.2), (2.3, 0.65))
    box(panel, (2.3, 0.95), "s · a", new)
    path(panel, (1.1, 1.2), (1.1, 2.2), (0.2, 2.2))
    path(panel, (2.3, 1.2), (2.3, 3.2), (0.2, 3.2))
    join(panel, 2.2), join(panel, 3.2)
    panel = panels["after the block"]
    path(panel, (1.1, 1.2), (1.1, 1.75), (0.2, 1.75))
    path(panel, (0, 2.3), (1.1, 2.3), (1.1, 2.65))
    box(panel, (1.1, 2.95), "a", new)
    path(panel, (1.1, 3.2), (1.1, 3.9), (0.2, 3.9))
    join(panel, 1.75), join(panel, 3.9)
    keys = {"frozen layer": frozen, "adapter, learns": new}
    patches = [Patch(facecolor=unit(c), edgecolor="black", label=text) for text, c in keys.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=2, frameon=False)
    return figure
