"""Whole scans by windows and mirrored, beside what can be computed by hand."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from labkit.phantoms.brain import brain_patients
from labkit.scans.slices import to_volume
from labkit.training.evaluate import predict
from labkit.training.precision import autocast
from labkit.training.sliding_window import class_probabilities, mirrors, predict_windows


class Voxelwise(nn.Module):
    """Two classes from each voxel's own two channels, and the shapes it was shown."""

    size = (8, 8)

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape))
        return x * 2


class Ramp(nn.Module):
    """What it says depends on where a voxel lies in its window: not the same for a mirrored scan."""

    size = (8, 8)

    def forward(self, x):
        ramp = torch.linspace(0, 1, x[0, :, 0].numel()).view_as(x[0, :, 0]).expand_as(x[:, :, 0])
        return torch.stack([x[:, :, 0], ramp], 2)


def test_windows_of_the_networks_size_cover_a_scan_of_any_size_and_change_nothing_voxelwise():
    model, image = Voxelwise(), torch.randn(7, 2, 19, 13)
    found = class_probabilities(model, image, slices=3, size=model.size, flips="SHW")
    torch.testing.assert_close(found, (2 * image).softmax(1))
    assert {shape[1:] for shape in model.seen} == {(3, 2, 8, 8)}


def test_a_scan_smaller_than_a_window_is_padded_and_comes_back_at_its_size():
    model, image = Voxelwise(), torch.randn(2, 2, 5, 6)
    found = class_probabilities(model, image, slices=4, size=model.size)
    torch.testing.assert_close(found, (2 * image).softmax(1))
    assert {shape[1:] for shape in model.seen} == {(4, 2, 8, 8)}


@pytest.mark.parametrize(("flips", "axes"), [("", [()]), ("W", [(), (3,)]), ("SH", [(), (0,), (2,), (0, 2)])])
def test_flips_are_the_mean_over_mirrored_scans_mirrored_back(flips, axes):
    model, image = Ramp(), torch.randn(4, 2, 8, 8)
    each = [model(image.flip(one)[None])[0].softmax(1).flip(one) for one in axes]
    found = class_probabilities(model, image, slices=4, flips=flips)
    torch.testing.assert_close(found, torch.stack(each).mean(0))


def test_three_flips_are_eight_different_scans():
    assert len(mirrors("SHW")) == len(set(mirrors("SHW"))) == 8


def test_overlapping_windows_are_averaged_with_most_weight_in_their_middle():
    model, image = Ramp(), torch.zeros(1, 2, 8, 12)
    found = class_probabilities(model, image, slices=1, size=(8, 8), overlap=0.5)
    one = model(torch.zeros(1, 1, 2, 8, 8))[0].softmax(1)
    torch.testing.assert_close(found[..., :4], one[..., :4])  # seen by the first window alone
    torch.testing.assert_close(found[..., 8:], one[..., 4:])
    left, right = found[..., 4:8] - one[..., 4:8], found[..., 4:8] - one[..., :4]
    assert (left.abs() < right.abs())[..., 0].all() and (left.abs() > right.abs())[..., 3].all()


def test_whole_slices_without_overlap_are_the_laptops_prediction(pretrained):
    model = copy.deepcopy(pretrained).eval()
    volume = to_volume(brain_patients("test", 1)[0])
    small = SimpleNamespace(case=volume.case, image=volume.image[30:46], target=volume.target[30:46])
    mine, laptops = predict_windows(model, small, slices=4, overlap=0), predict(model, small, slices=4)
    assert mine.dtype == np.uint8 and (mine == laptops).mean() > 0.999  # softmax may turn near ties
    with torch.no_grad(), autocast():
        logits = model(small.image[None, :4])[0].float()
    found = class_probabilities(model, small.image[:4], slices=4, overlap=0)
    torch.testing.assert_close(found, logits.softmax(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("how", "said"),
    [(dict(flips="X"), "flips='X'"), (dict(flips="WW"), "each at most"), (dict(overlap=1), "overlap=1")],
)
def test_what_makes_no_sense_is_said_in_a_sentence(how, said):
    with pytest.raises(ValueError, match=said):
        class_probabilities(Voxelwise(), torch.randn(2, 2, 8, 8), **how)
