import numpy as np
import pytest
import torch

from labkit.scans.case import Case
from labkit.scans.slices import to_volume


@pytest.fixture(scope="session")
def case():
    """A small patient of three slices, so that a test need not make one; the middle one has a label."""
    rng = np.random.default_rng(0)
    label = np.zeros((3, 96, 96), np.uint8)
    label[1, 30:50, 30:50] = 4
    image = rng.uniform(1, 2, (4, *label.shape)).astype(np.float32)
    return Case("small", image, label, (2.0,) * 3, ("T1", "T1ce", "T2", "FLAIR"), {1: "a", 2: "b", 4: "c"})


@pytest.fixture(scope="session")
def middle(case):
    """What a network makes of the middle slice of `case`, without an explorer: label values (96, 96)."""

    @torch.inference_mode()
    def segmented(model):
        classes = model(to_volume(case).image[1][None])[0].argmax(0).numpy()
        return np.asarray([0, 1, 2, 4], np.uint8)[classes]

    return segmented
