import copy

import pytest
import torch

from labkit.segmenter import segmenter


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def pretrained():
    """The laptop's segmenter with its bundled weights; ask for a fresh copy of it with `fresh`."""
    return segmenter()


@pytest.fixture
def fresh(pretrained):
    return lambda: copy.deepcopy(pretrained)


@pytest.fixture
def volumes():
    """Two volumes of three slices: (B, S, C, H, W)."""
    return torch.randn(2, 3, 4, 96, 96)
