"""What a reader sees of a widget without a kernel, or without a browser."""

from __future__ import annotations

import os

import ipywidgets as widgets

from labkit.explore import plots


def headless() -> bool:
    """Whether there is no browser (LABKIT_HEADLESS=1), as where notebooks are tested or printed."""
    return os.environ.get("LABKIT_HEADLESS") == "1"


class Shown(widgets.VBox):
    """A widget with an `image`, which `describe()` puts into words. A reader without a kernel sees these two;
    without a browser it is the picture that `static()` gives."""

    image: widgets.Image

    def describe(self) -> str:
        """What the image shows, in words."""
        raise NotImplementedError

    def static(self) -> plots.Picture:
        """The picture for a reader without a browser."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **kwargs):
        if headless():
            return self.static()._repr_mimebundle_()
        bundle = super()._repr_mimebundle_(**kwargs)
        picture, metadata = plots.Picture(self.image.value, self.describe())._repr_mimebundle_()
        return bundle | {key: picture[key] for key in ("image/png", "text/plain")}, metadata
