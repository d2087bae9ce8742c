"""One patient as every data source of labkit returns it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labkit.scans.preprocessing import Preprocessing

# as in BraTS 2019 to 2021, and in the digital brains
BRATS_CHANNELS = ("T1", "T1ce", "T2", "FLAIR")
BRATS_LABELS = {1: "necrotic and non-enhancing core", 2: "oedema", 4: "enhancing tumour"}


@dataclass(frozen=True)
class Case:
    """Image and labels of one patient on one grid.

    Slices are axial, first slice lowest; in a slice, row 0 is anterior and column 0 is the patient's right
    (the radiological view: the patient's right on the viewer's left).
    """

    name: str
    image: np.ndarray  # (C, S, H, W) float32, raw intensities, but for `window_hu`
    label: np.ndarray  # (S, H, W) uint8, the source's own label values
    spacing_mm: tuple[float, float, float]  # of S, H, W
    channels: tuple[str, ...]  # one name per image channel
    label_names: dict[int, str]  # what each label value above 0 is
    synthetic: bool = False
    window_hu: tuple[float, float] | None = None  # what CT was cut off at
    resampled_mm: tuple[float, float, float] | None = None  # of S, H, W, if the scan was on another grid

    @property
    def preprocessing(self) -> Preprocessing:
        """How the case was prepared, and what is in it: what a network that learns from it is bound to."""
        window_hu = None if self.window_hu is None else tuple(self.window_hu)
        return Preprocessing(self.channels, self.label_names, window_hu, self.resampled_mm)
