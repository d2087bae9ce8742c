"""The button trains in a process of its own, can be stopped, and then shows what came out."""

import time

import pytest

from labkit.explore import deltas
from labkit.explore.retrain import Retrain


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_QUICK", "1")
    monkeypatch.setattr("labkit.explore.retrain.cache_dir", lambda: tmp_path)


def wait(retrain, seconds=120):
    end = time.monotonic() + seconds
    while retrain.button.disabled and time.monotonic() < end:
        time.sleep(0.1)
    assert not retrain.button.disabled


@pytest.mark.slow
def test_a_training_ends_with_a_delta_that_can_be_shown():
    told = []
    retrain = Retrain(lambda: "probe", lambda name, path: told.append((name, path)))
    retrain.start()
    assert retrain.button.disabled and not retrain.cancel.disabled
    wait(retrain)
    (name, path) = told[0]
    assert name == "probe" and retrain.bar.value == 3 and "trained" in retrain.words.value
    assert deltas.network("probe", path)


def test_a_training_that_is_stopped_changes_nothing(tmp_path):
    told = []
    retrain = Retrain(lambda: "probe", lambda *found: told.append(found))
    retrain.start()
    retrain.stop()
    wait(retrain)
    assert not told and "stopped" in retrain.words.value and not list(tmp_path.rglob("*.safetensors"))
