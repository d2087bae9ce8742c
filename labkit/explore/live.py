"""A picture in a notebook with words for screen readers, moved by a wheel and asked by a click.

`ipywidgets.Image` knows none of the three; anywidget (https://anywidget.dev) brings the few lines of
JavaScript beside this file into JupyterLab, without a network. They also give the handles of the sliders
around the picture the names that stand beside them, which ipywidgets leaves out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anywidget
import ipywidgets as widgets
import traitlets


class LivePicture(anywidget.AnyWidget):
    """A PNG `value` and what it shows in words, `alt`.

    A notch of the wheel over it moves `index` by one between 0 and `last`; at an end the page scrolls on.
    Where `last` is 0, no wheel is taken.
    """

    _esm = Path(__file__).with_name("live.js")
    value = traitlets.Bytes().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    index = traitlets.Int(0).tag(sync=True)
    last = traitlets.Int(0).tag(sync=True)
    clickable = traitlets.Bool(False).tag(sync=True)

    def __init__(self) -> None:
        super().__init__(layout={"flex": "none", "align_self": "flex-start"})

    def follow(self, slider: widgets.IntSlider) -> None:
        """The wheel moves this slider, which begins at 0."""
        traitlets.dlink((slider, "max"), (self, "last"))
        traitlets.link((slider, "value"), (self, "index"))

    def clicked(self, told: Callable[[float, float], None]) -> None:
        """Tell of each click where it was: shares of width and height, 0 to 1, from the upper left."""
        self.clickable = True
        self.on_msg(lambda _widget, said, _buffers: told(*said["click"]))
