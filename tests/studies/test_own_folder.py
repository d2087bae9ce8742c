from __future__ import annotations

import re
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from labkit.methods import Head, LoRA
from labkit.scans.case import Case
from labkit.scans.slices import to_volume
from labkit.studies.own_folder import affordable, check_alike, train_on_folder
from labkit.studies.table import markdown
from labkit.training.fit import Recipe, fresh
from labkit.tuning import delta


@pytest.fixture
def folder(tmp_path):
    """Six cases of different sizes, each with two labels, and an image without labels."""
    rng = np.random.default_rng(0)
    for room in ("imagesTr", "labelsTr"):
        (tmp_path / room).mkdir()
    for i in range(6):
        label = np.zeros((20 + i, 24, 3), np.uint8)
        label[4:12, 4:16], label[6:9, 6:10] = 1, 2
        image = (100 + 40 * label + rng.normal(0, 5, label.shape)).astype(np.float32)
        nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / "imagesTr" / f"p{i}.nii.gz")
        nib.save(nib.Nifti1Image(label, np.eye(4)), tmp_path / "labelsTr" / f"p{i}.nii.gz")
    (tmp_path / "imagesTr" / "broken.nii.gz").write_bytes(b"nothing")
    return tmp_path


def test_a_folder_becomes_a_row_for_the_method_and_for_each_baseline(folder, capsys):
    rows = train_on_folder(folder, "lora", steps=2, recipe=Recipe(batch_size=2))
    assert [row["method"] for row in rows] == ["scratch", "head", "lora"]
    for row in rows:
        one, two = row["label 1"], row["label 2"]
        assert 0 <= min(one, two) and row["mean"] == pytest.approx((one + two) / 2)
        assert (row["steps"], row["trained on"], row["tested on"]) == (2, 5, 1)
    scratch, head, lora = (row["tuned parameters"] for row in rows)
    assert scratch > lora > head
    told = capsys.readouterr().err
    assert re.search(r"left out: .*there is no label file; expected broken.nii.gz", told)
    assert all(f"{name}: " in told for name in ("scratch", "head", "lora"))  # in the bar


def test_an_unknown_method_is_answered_with_the_known_ones_before_anything_is_read(tmp_path):
    with pytest.raises(ValueError, match="no method 'lorra'; choose one of scratch, full, head"):
        train_on_folder(tmp_path / "nowhere", "lorra")
    with pytest.raises(ValueError, match="--method lora lora can't be: name at least one, and each once"):
        train_on_folder(tmp_path / "nowhere", ["lora", "lora"])


def case(name, channels=("x",), names=None):
    label = np.zeros((2, 8, 8), np.uint8)
    label[:, 2:5] = 1
    image = np.random.default_rng(0).random((len(channels), 2, 8, 8), np.float32)
    return Case(name, image, label, (1.0, 1.0, 1.0), channels, names or {1: "a"})


@pytest.mark.parametrize(
    "other",
    [
        case("odd", channels=("x", "y")),
        case("odd", names={1: "b"}),
        replace(case("odd"), window_hu=(-160, 304)),
        replace(case("odd"), resampled_mm=(1.0, 1.0, 1.0)),
    ],
)
def test_cases_that_differ_are_refused_by_name(other):
    with pytest.raises(ValueError, match="folder: odd has .* but one has"):
        check_alike([case("one"), case("two"), other], "folder")


def test_a_folder_without_a_readable_case_is_refused():
    with pytest.raises(ValueError, match="folder: no case of it can be read"):
        check_alike([], "folder")


def test_the_network_fits_the_case_and_its_start_the_seed():
    case_ = replace(case("p", channels=("x", "y")), label_names={1: "a", 3: "b", 7: "c"})
    a, b, c = (dict(delta(fresh(LoRA(), case_, seed))) for seed in (0, 0, 1))
    assert a["decoder.head.bias"].shape == (4 * 4,)
    assert all((a[n] == b[n]).all() for n in a)
    assert any(n.endswith(".A") and (a[n] != c[n]).any() for n in a)
    assert fresh(Head(), case_, 0).backbone.patch_embed.proj.in_channels == 2


def test_steps_and_seconds_both_limit_a_training_and_timing_it_leaves_the_model_alone():
    one = case("p")
    model = fresh(Head(), one, 0)
    before = {n: p.clone() for n, p in delta(model).items()}
    train, recipe = [to_volume(one)], Recipe(steps=150, batch_size=1)
    assert affordable(model, train, recipe, 7, None) == 7
    assert affordable(model, train, recipe, None, None) == 150
    assert affordable(model, train, recipe, 7, 1e6) == 7
    assert affordable(model, train, recipe, None, 1e-6) == 1
    assert 7 < affordable(model, train, recipe, None, 1e6)
    assert all((p == before[n]).all() for n, p in delta(model).items())


def test_the_table_is_markdown():
    assert markdown([dict(method="a", n=3, dice=0.5), dict(method="b", n=4, dice=2 / 3)]).splitlines() == [
        "| method | n | dice |",
        "| --- | --- | --- |",
        "| a | 3 | 0.500 |",
        "| b | 4 | 0.667 |",
    ]
