import numpy as np
import pytest
import torch

from labkit.phantoms.kidney import LABEL_NAMES
from labkit.scans.case import BRATS_CHANNELS, BRATS_LABELS, Case
from labkit.scans.hounsfield import WINDOW_HU
from labkit.scans.slices import classes_of, to_volume


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
def ct():
    """The same for networks that learned kidneys: one channel, in HU."""
    rng = np.random.default_rng(0)
    label = np.zeros((3, 96, 96), np.uint8)
    label[1, 30:50, 30:50], label[1, 50:58, 30:50] = 1, 2
    image = rng.normal(0, 60, (1, *label.shape)).astype(np.float32)
    image[:, label == 1] += 150
    return Case("small CT", image, label, (3.0,) * 3, ("CT",), dict(LABEL_NAMES), window_hu=WINDOW_HU)


@pytest.fixture(scope="session")
def middle():
    """What a network makes of the middle slice of a case, without an explorer: label values (96, 96)."""

    @torch.inference_mode()
    def segmented(model, case):
        classes = model(to_volume(case).image[1][None])[0].argmax(0).numpy()
        return np.asarray(classes_of(case), np.uint8)[classes]

    return segmented
