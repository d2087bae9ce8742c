"""Full scale at a small size, and in a process of its own as a user meets it."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from labkit.phantoms.brain import brain_patient
from labkit.scans.slices import to_volume
from labkit.training.full_scale import crop, peak_memory, smoke_test


def test_a_crop_is_a_cube_around_the_labels_inside_the_volume():
    volume = to_volume(brain_patient(0))
    small = crop(volume, 48)
    assert small.image.shape == (48, 4, 48, 48) and small.case.image.shape == (4, 48, 48, 48)
    assert np.array_equal(small.target.numpy() > 0, small.case.label > 0)
    assert small.target.any() and small.image.abs().sum() > 0
    assert crop(volume, 90).target.shape == (80, 90, 90), "an axis of 80 is taken whole"


def test_peak_memory_sees_what_was_there_only_for_a_while():
    with peak_memory("cpu") as before:
        torch.zeros(1).sum()
    with peak_memory("cpu") as after:
        much = torch.ones(2**26)  # 0.25 GiB
        for _ in range(20):
            much.sum()
        del much
    assert 0.2 < after[0] - before[0] < 0.35


def test_what_cannot_be_built_is_said_in_a_sentence():
    with pytest.raises(ValueError, match="no method 'lorra'; choose one of"):
        next(smoke_test("vit_b16", "upernet", "lorra"))
    with pytest.raises(ValueError, match="no decoder 'swin_unet' for vit_b16"):
        next(smoke_test("vit_b16", "swin_unet"))


def labkit_train(*options):
    return subprocess.run([sys.executable, "-m", "labkit", "train", *options], capture_output=True, text=True)


def proved(answer):
    built, trained, labelled = answer.stdout.splitlines()
    assert "random weights" in built
    assert re.search(r"loss \d\.\d\d and \d\.\d\d, peak memory \d+\.\d GiB; checkpoint of", trained)
    assert re.search(r"^8 x 192 x 192 voxels labelled .*: \d+\.\d s, peak memory", labelled)


@pytest.mark.slow
def test_the_laptops_network_passes_the_smoke_test():
    proved(labkit_train("--smoke"))


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "decoder"), [("vit_b16", "upernet"), ("swin_t", "swin_unet")])
def test_the_networks_of_med_tuning_pass_the_smoke_test(backbone, decoder):
    proved(labkit_train("--backbone", backbone, "--decoder", decoder, "--method", "med_tuning", "--smoke"))


def test_a_smoke_test_takes_no_scans_and_a_training_needs_some(tmp_path):
    for options, said in ((("--smoke", "--data", tmp_path), "leave --data"), ((), "--data, or try")):
        answer = labkit_train(*map(str, options))
        assert answer.returncode == 2 and said in " ".join(answer.stderr.split()).replace("│ ", "")
