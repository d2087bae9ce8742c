import numpy as np
import pytest
import torch

from labkit.scans.case import BRATS_CHANNELS, BRATS_LABELS, Case
from labkit.scans.slices import to_volume


@pytest.fixture(scope="session")
def case():
    """A small patient of three slices, so that a test need not make one; the middle one has a label."""
    rng = np.random.default_rng(0)
    label = np.zeros((3, 96, 96), np.uint8)
    label[1, 30:50, 30:50] = 4
    label[1, 50:54, 30:50], label[1, 54:58, 30:50] = 1, 2  # every region is there
    image = rng.uniform(1, 2, (4, *label.shape)).astype(np.float32)
    return Case("small", image, label, (2.0,) * 3, BRATS_CHANNELS, dict(BRATS_LABELS))


@pytest.fixture(scope="session")
def middle(case):
    """What a network makes of the middle slice of `case`, without an explorer: label values (96, 96)."""

    @torch.inference_mode()
    def segmented(model):
        classes = model(to_volume(case).image[1][None])[0].argmax(0).numpy()
        return np.asarray([0, 1, 2, 4], np.uint8)[classes]

    return segmented
