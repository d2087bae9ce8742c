import copy
import gc

import pytest
import torch

from labkit import threads
from labkit.networks.anatomy import feature_widths
from labkit.networks.decoders.light import LightDecoder
from labkit.networks.segmenter import Segmenter, segmenter

pytest_plugins = ["tiny_lab", "releases"]  # fixtures
threads.wait_briefly()  # kernels, as those that `labkit start` opens
gc.disable()  # until all tests are collected: what they import stays


def pytest_collection_finish():
    gc.freeze()  # a million objects that are not looked through again and again while tests run
    gc.enable()


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="run the labs as students do, not in quick mode")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def pretrained():
    """The laptop's segmenter with its bundled weights; ask for a fresh copy of it with `fresh`."""
    return segmenter()


@pytest.fixture(scope="session")
def vit():
    """A small ViT with random weights: four blocks of width 32 on 4 x 4 tokens."""
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    backbone = VisionTransformer(
        img_size=32,
        patch_size=8,
        in_chans=4,
        num_classes=0,
        class_token=False,
        global_pool="",
        embed_dim=32,
        depth=4,
        num_heads=2,
    )
    return Segmenter(backbone, LightDecoder(feature_widths(backbone), classes=3, channels=4, hidden=16))


@pytest.fixture(scope="session")
def swin():
    """A small Swin with random weights: two stages of two blocks, the second of each with shifted windows."""
    from timm.models.swin_transformer import SwinTransformer

    torch.manual_seed(0)
    backbone = SwinTransformer(
        img_size=32,
        patch_size=4,
        in_chans=4,
        num_classes=0,
        global_pool="",
        embed_dim=32,
        depths=(2, 2),
        num_heads=(2, 4),
        window_size=4,
        drop_path_rate=0.0,
    )
    return Segmenter(backbone, LightDecoder(feature_widths(backbone), classes=3, channels=4, hidden=16))


@pytest.fixture
def fresh(pretrained):
    return lambda: copy.deepcopy(pretrained)


@pytest.fixture
def volumes():
    """Two volumes of three slices: (B, S, C, H, W)."""
    return torch.randn(2, 3, 4, 96, 96)
