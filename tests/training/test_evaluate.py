"""Networks and the cases they are judged on: those they were made for, and no others."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from labkit.methods import Head
from labkit.scans.case import Case
from labkit.scans.slices import to_volume
from labkit.training.evaluate import evaluate, predict
from labkit.training.fit import fresh
from labkit.training.sliding_window import predict_windows


@pytest.fixture(scope="module")
def case():
    label = np.zeros((4, 16, 16), np.uint8)
    label[:, 4:9, 4:9], label[:, 6, 6] = 1, 2
    image = np.random.default_rng(0).random((2, *label.shape), np.float32)
    return Case("p", image, label, (1.0, 1.0, 1.0), ("T1", "CT"), {1: "rim", 2: "core"}, False, (-160, 304))


@pytest.fixture(scope="module")
def model(case):
    return fresh(Head(), case, 0, decoder="linear")


@pytest.mark.parametrize(
    "change, said",
    [
        (
            dict(channels=("CT", "T1")),
            "p does not fit this network: it has the channels CT, T1, but .* T1, CT",
        ),
        (dict(channels=("T2", "CT")), "the channels T2, CT"),
        (dict(label_names={1: "core", 2: "rim"}), "the labels 1 core, 2 rim, but .* 1 rim, 2 core"),
        (dict(label_names={1: "rim", 2: "core", 3: "cyst"}), "3 cyst, but"),
        (dict(window_hu=None), "the window of HU none"),
        (dict(resampled_mm=(2.0, 2.0, 2.0)), "the resampled spacing in mm 2.0, 2.0, 2.0"),
    ],
)
def test_a_network_is_refused_on_a_case_it_was_not_made_for(model, case, change, said):
    other = to_volume(replace(case, **change))
    for judge in (predict, predict_windows):
        with pytest.raises(ValueError, match=said):
            judge(model, other)
    with pytest.raises(ValueError, match=said):
        evaluate(model, [to_volume(case), other], hausdorff=False)


def test_a_case_like_those_it_was_made_for_is_judged_whatever_its_name_and_size(model, case):
    other = replace(case, name="q", image=case.image[:, :3], label=case.label[:3], spacing_mm=(2.0, 1.0, 1.0))
    rows = evaluate(model, [to_volume(case), to_volume(other)], hausdorff=False)
    assert {row["case"] for row in rows} == {"p", "q"}


def test_runs_are_as_long_as_asked_for_or_as_the_network_says_or_single_slices(case):
    lengths = []

    class Watching(torch.nn.Module):
        def forward(self, x):
            lengths.append(x.shape[1])
            return x

    volume, watching = to_volume(replace(case, label_names={1: "a", 2: "b"})), Watching()
    predict(watching, volume)
    watching.slices = 2
    predict(watching, volume)
    evaluate(watching, [volume], hausdorff=False)
    predict(watching, volume, slices=4)
    assert lengths == [1, 2, 2, 4]
