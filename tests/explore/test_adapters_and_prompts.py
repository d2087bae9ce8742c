"""Adapter and prompt explorers on the deltas that the kit carries."""

import numpy as np
import pytest
import torch

from labkit.explore import deltas
from labkit.explore.adapters import AdapterExplorer
from labkit.explore.prompts import PromptExplorer
from labkit.tuning import bypass


@pytest.fixture
def adapters(ct, monkeypatch):
    monkeypatch.setenv("LABKIT_HEADLESS", "1")
    return AdapterExplorer([ct], {"both": "adapter-attn-mlp-48", "narrow": "adapter-attn-mlp-4"})


@pytest.fixture
def prompts(ct, monkeypatch):
    monkeypatch.setenv("LABKIT_HEADLESS", "1")
    return PromptExplorer([ct], {("deep", 0): "probe", ("deep", 10): "prompts-deep-10"})


def test_all_adapters_on_is_the_trained_network_and_all_off_the_bypassed_one(adapters, middle, ct):
    model = deltas.network("adapter-attn-mlp-48")
    assert np.array_equal(adapters.segment(adapters.choice(), 0, 1), middle(model, ct))
    for box in adapters.on:
        box.value = False
    with bypass(model):
        expected = middle(model, ct)
    assert np.array_equal(adapters.segment(adapters.choice(), 0, 1), expected)


def test_the_map_is_what_the_adapter_adds_over_what_is_there(adapters, middle, ct):
    model = deltas.network("adapter-attn-mlp-48")
    seen = {}
    block = model.backbone.blocks[3]
    for name, wrapper in (("attn", block.attn), ("mlp", block.mlp)):
        wrapper.register_forward_hook(lambda m, _i, out, name=name: seen.update({name: out}))
        wrapper.original.register_forward_hook(lambda m, _i, out, name=name: seen.update({f"{name}0": out}))
    middle(model, ct)
    shares = [(seen[n] - seen[f"{n}0"]).norm(dim=-1) / seen[f"{n}0"].norm(dim=-1) for n in ("attn", "mlp")]
    expected = torch.stack(shares).amax(0)[0].view(12, 12).numpy()
    np.testing.assert_allclose(adapters.tokens(), expected, rtol=1e-3, atol=1e-4)


def test_the_words_say_what_is_off(adapters):
    adapters.on[2].value = False
    assert "switched off in block 2" in adapters.describe() and "298,368 numbers" in adapters.describe()
    adapters.source.value = "adapter-attn-mlp-4"
    assert "298,368" not in adapters.describe()


def test_no_prompts_is_the_probe_and_ten_the_trained_network(prompts, middle, ct):
    assert prompts.number.value == 10 and not prompts.block.disabled and not prompts.head.disabled
    model = deltas.network("prompts-deep-10")
    assert np.array_equal(prompts.segment(prompts.choice(), 0, 1), middle(model, ct))
    prompts.number.value = 0
    assert np.array_equal(prompts.segment(prompts.choice(), 0, 1), middle(deltas.network("probe"), ct))
    assert not prompts.tokens().any() and "linear probe" in prompts.describe()
    assert prompts.block.disabled and prompts.head.disabled, "the map of no prompts is one"


def test_the_map_of_all_heads_is_the_mean_of_the_maps_of_each(prompts):
    mean, each = prompts.tokens(), []
    for head in range(6):
        prompts.head.value = head
        each.append(prompts.tokens())
    np.testing.assert_allclose(np.mean(each, 0), mean, rtol=1e-4)
    assert 0 < mean.min() and mean.max() < 1


def test_every_control_has_a_label(adapters, prompts):
    controls = (adapters.source, adapters.block, *adapters.on)
    controls += (prompts.depth, prompts.number, prompts.block, prompts.head)
    assert all(control.description for control in controls)


def test_static_pictures_show_several_networks(adapters, prompts):
    assert "block 3 off: kidney" in adapters.static().alt and "deep, n = 10: kidney" in prompts.static().alt
