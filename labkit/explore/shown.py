"""What all widgets of ours share: what is seen without a kernel or a browser, and who makes room for whom."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
from collections.abc import Hashable, Sequence

import ipywidgets as widgets

from labkit.explore import plots
from labkit.explore.live import LivePicture

OPEN: dict[Hashable, Shown] = {}
AGAIN = "run this cell again (Shift+Enter)"
STILL = f"A still picture. To move it, {AGAIN} in JupyterLab"
PAGE = "; or make a page of it that moves in any browser: <code>labkit explorer {0} --out {0}.html</code>"
# JupyterLab marks what has lost its kernel by this class
LOST = f"""<style>
.labkit-lost {{ display: none; border-left: 4px solid #d55e00; padding: 0.2em 0.8em; }}
.jupyter-widgets-disconnected .labkit-lost {{ display: block; }}
</style><div class="labkit-lost" role="alert">This no longer moves, for its kernel is gone: {AGAIN}.</div>"""


def _inside(widget: widgets.Widget) -> list[widgets.Widget]:
    """A widget and all that lie in it."""
    return [widget, *(found for child in getattr(widget, "children", ()) for found in _inside(child))]


def headless() -> bool:
    """Whether there is no browser (LABKIT_HEADLESS=1), as where notebooks are tested or printed."""
    return os.environ.get("LABKIT_HEADLESS") == "1"


def _give_back() -> None:
    """Hand what was freed back to the system, where its C library keeps it otherwise (glibc's does)."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def cell() -> tuple[Hashable, int | None]:
    """The cell that runs now (file and line where nobody says which) and the number of its run."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == "labkit":
        frame = frame.f_back
    here = (frame.f_code.co_filename, frame.f_lineno)
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        return here, None
    message = getattr(shell, "parent_header", None) or {}  # JupyterLab names the cell in it
    return message.get("metadata", {}).get("cellId") or here, shell.execution_count


class Shown(widgets.VBox):
    """A widget with an `image`, which `describe()` puts into words. A reader without a kernel sees these two;
    without a browser it is the picture that `static()` gives."""

    image: LivePicture
    page_name = ""  # of `labkit explorer`, for those that can be a page

    def __init__(self, children: Sequence[widgets.Widget]) -> None:
        super().__init__([*children, widgets.HTML(LOST)])

    def __new__(cls, *args, **kwargs):
        """A new one takes the place of the one that shows the same, before it fills memory of its own: the
        cell was run again, and whatever holds the old one (IPython's `Out` does) would hold its networks."""
        which = cls.shows(*args, **kwargs)
        if which in OPEN:
            OPEN.pop(which).let_go()
        made = super().__new__(cls, *args, **kwargs)
        made._bare = frozenset(vars(made))
        OPEN[which] = made
        return made

    @classmethod
    def shows(cls, *args, **kwargs) -> Hashable:
        """Of those that show the same, one is open at a time. By default: one of each class."""
        return cls

    def let_go(self) -> None:
        """Close it, end what it computes ahead, and free all that it holds."""
        if hasattr(self, "ahead"):
            self.ahead.stop()
        for widget in _inside(self):
            widget.unobserve_all()
            widget.close()
        for name in vars(self).keys() - self._bare - {"_bare"}:
            delattr(self, name)
        _give_back()

    def describe(self) -> str:
        """What the image shows, in words."""
        raise NotImplementedError

    def static(self) -> plots.Picture:
        """The picture for a reader without a browser."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **kwargs):
        still = self.static() if headless() else plots.Picture(self.image.value, self.describe())
        picture, metadata = still._repr_mimebundle_()
        also = PAGE.format(self.page_name) if self.page_name else ""
        picture["text/html"] += f"<p><small>{STILL}{also}.</small></p>"
        return picture if headless() else super()._repr_mimebundle_(**kwargs) | picture, metadata
