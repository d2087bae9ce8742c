"""What an explorer makes only when it is looked at, and what that leaves of the student's random numbers."""

import contextlib
import importlib
import threading
import time

import pytest
import torch

from labkit.explore import lazy
from labkit.explore.comparison import MethodComparison
from labkit.explore.lazy import Networks, twin, waiting
from labkit.explore.page import EXPLORERS
from labkit.networks.segmenter import _laptops


def linear(name):
    """Networks that differ in their second layer alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 2)).eval()
    torch.nn.init.constant_(made[1].weight, float(name))
    return made


def test_a_network_is_made_when_it_is_looked_at_and_once():
    made = []
    networks = Networks(lambda name: made.append(name) or linear(name))
    assert made == [] and "1" not in networks
    one, two = networks["1"]
    assert networks["1"] == (one, two) and made == ["1"] and "1" in networks
    assert one is not two and one[0] is not two[0], "each thread has hooks and settings of its own"


def test_equal_weights_lie_in_memory_once_and_others_stay_as_they_are():
    networks = Networks(linear)
    every = [model for name in ("1", "2") for model in networks[name]]
    assert len({model[0].weight.data_ptr() for model in every}) == 1
    assert len({model[1].weight.data_ptr() for model in every}) == 2
    assert (networks["1"][0][1].weight == 1).all() and (networks["2"][1][1].weight == 2).all()


def test_a_twin_has_memory_of_its_own_for_what_is_called_its_own():
    model = linear("1")
    other = twin(model, lambda name: name == "1.weight")
    assert other[0].weight.data_ptr() == model[0].weight.data_ptr()
    other[1].weight.data.zero_()
    assert (model[1].weight == 1).all()


def opened(name, case, ct):
    made = getattr(importlib.import_module(f"labkit.explore.{name}"), EXPLORERS[name])
    return made([case if made.organ == "brain" else ct])


@pytest.mark.parametrize("name", ["rank", "prompts", "adapters", "prune", "bits", "med_tuning"])
def test_patients_of_another_kind_are_refused_before_they_are_read(name, case, ct):
    made = getattr(importlib.import_module(f"labkit.explore.{name}"), EXPLORERS[name])
    wrong = ct if made.organ == "brain" else case
    with pytest.raises(ValueError, match=f"has {len(wrong.channels)} channels; .* know a {made.organ} in "):
        made([wrong])


@pytest.fixture
def drawing(monkeypatch):
    """Names of the threads in which somebody set torch's random numbers aside, or anew."""
    threads, fork, seed = set(), torch.random.fork_rng, torch.manual_seed

    @contextlib.contextmanager
    def forked(*args, **kwargs):
        threads.add(threading.current_thread() is threading.main_thread())
        with fork(*args, **kwargs):
            yield

    def seeded(*args):
        threads.add(threading.current_thread() is threading.main_thread())
        return seed(*args)

    _laptops.cache_clear()  # a network that is only copied draws nothing
    monkeypatch.setattr(torch.random, "fork_rng", forked)
    monkeypatch.setattr(torch, "manual_seed", seeded)
    return threads


@pytest.mark.parametrize("name", [*EXPLORERS, "comparison"])
def test_opened_and_at_rest_it_leaves_the_student_s_random_numbers(name, case, ct, monkeypatch, drawing):
    """Another thread that set them aside, even to put them back, would take them from a cell that runs."""
    monkeypatch.setenv("LABKIT_HEADLESS", "")
    before = torch.get_rng_state()
    if name == "comparison":
        made = MethodComparison([ct], {"two": ("probe", "prompts-deep-1")})
    else:
        made = opened(name, case, ct)
    assert drawing == {True}, "the test would see it"
    made.ahead.finish()
    assert drawing == {True} and torch.equal(before, torch.get_rng_state())
    assert made.ahead.values
    made.let_go()


@pytest.mark.parametrize("name", ["prompts", "adapters", "med_tuning"])
def test_only_what_is_in_sight_is_made_at_first(name, case, ct, monkeypatch):
    monkeypatch.setenv("LABKIT_HEADLESS", "")
    made = opened(name, case, ct)
    made.ahead.finish()
    shown = {"prompts": {"prompts-deep-10"}, "adapters": {"adapter-attn-mlp-48"}}
    assert made.networks.keys() == shown.get(name, {"volumes-med_tuning", "volumes-lora"})
    made.let_go()


def test_a_line_says_what_is_waited_for_after_a_while_and_goes_away(monkeypatch, capsys):
    monkeypatch.setattr(lazy, "TOLD_AFTER_SECONDS", 0.05)
    with waiting("patients and networks"):
        time.sleep(0.3)
        assert "patients and networks ..." in capsys.readouterr().err
    after = capsys.readouterr().err
    assert after.endswith("\r") and not after.strip(), "it was wiped out"
    with waiting("no time at all"):
        pass
    assert "no time" not in capsys.readouterr().err


def test_what_goes_wrong_meanwhile_is_told_and_the_line_goes_away(monkeypatch, capsys):
    monkeypatch.setattr(lazy, "TOLD_AFTER_SECONDS", 0.01)
    with pytest.raises(ValueError, match="nothing there"), waiting("patients"):
        time.sleep(0.1)
        raise ValueError("nothing there")
    told = capsys.readouterr().err.split("\r")
    assert "patients ..." in told[1] and not told[-1].strip()
