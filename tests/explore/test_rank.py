"""RankExplorer on the deltas that the kit carries: what it shows is the update cut to the rank it names."""

import numpy as np
import pytest
import torch

from labkit.explore import deltas
from labkit.explore.rank import LAYERS, RankExplorer

SOURCES = {"DyLoRA": "rank-dylora", "full": "rank-full"}


@pytest.fixture
def explorer(ct, monkeypatch):
    monkeypatch.setenv("LABKIT_HEADLESS", "1")
    return RankExplorer([ct], SOURCES)


def by_hand(rank, layers, source="rank-dylora"):
    """The same network, its matrices made without labkit.updates.low_rank."""
    from safetensors.torch import load_file

    tensors = {name: t.float() for name, t in load_file(deltas.place(source)).items()}
    model = deltas.start().eval()
    own = dict(model.named_parameters())
    places = {"q": ("attn.qkv", 0), "k": ("attn.qkv", 1), "v": ("attn.qkv", 2), "o": ("attn.proj", 0)}
    places |= {"fc1": ("mlp.fc1", 0), "fc2": ("mlp.fc2", 0)}
    with torch.no_grad():
        for name, tensor in tensors.items():
            if name.startswith("rest:") and (rank or not name.startswith("rest:backbone.")):
                own[name.removeprefix("rest:")].copy_(tensor)
            if name.startswith("rest:backbone.norm."):
                own[name.removeprefix("rest:")].copy_(tensor)
        for block in range(4):
            for layer in layers:
                path, part = places[layer]
                B, A = tensors[f"B:{block}.{layer}"], tensors[f"A:{block}.{layer}"]
                weight = own[f"backbone.blocks.{block}.{path}.weight"]
                weight[part * len(B) : (part + 1) * len(B)] += B[:, :rank] @ A[:rank]
    return model


@pytest.mark.parametrize("rank, layers", [(0, "all six"), (1, "all six"), (16, "all six"), (5, "q and v")])
def test_a_rank_shows_the_first_terms_of_the_update(explorer, middle, ct, rank, layers):
    explorer.rank.value, explorer.layers.value = rank, layers
    found = explorer.segment(explorer.choice(), 0, 1)
    expected = middle(by_hand(rank, LAYERS[layers]), ct)
    assert (found == expected).mean() > 0.999  # rounding may turn a tie


def test_another_source_has_its_own_ranks(explorer):
    assert explorer.rank.max == 16
    explorer.source.value = "rank-full"
    assert explorer.rank.max == 32


def test_the_words_name_rank_source_and_numbers(explorer):
    explorer.rank.value = 4
    assert "Rank 4 of 16, DyLoRA, all six: " in explorer.describe()
    assert f"{4 * 4 * (4 * 768 + 2 * 1344):,} numbers" in explorer.describe()
    explorer.compare.value = True
    assert explorer.describe().startswith("Linear probe")
    assert explorer.rank.disabled and explorer.source.disabled and explorer.layers.disabled
    explorer.compare.value = False
    assert not explorer.rank.disabled and not explorer.layers.disabled


def test_the_spectrum_falls_and_is_that_of_the_layers_in_sight(explorer):
    all_six = explorer.singular_values()
    assert (np.diff(all_six) <= 1e-6).all() and len(all_six) == 16
    explorer.layers.value = "q and v"
    assert not np.allclose(explorer.singular_values(), all_six)
    exact = [torch.linalg.svdvals(one.at(16))[:16] for one in explorer.parts()]
    expected = torch.stack(exact).square().mean(0).sqrt().numpy()
    np.testing.assert_allclose(explorer.singular_values(), expected, rtol=1e-3, atol=1e-5)


def test_moving_back_and_forth_leaves_no_trace(explorer):
    first = explorer._compute((explorer.choice(), 0, 1))[0]
    for rank in (16, 0, 7):
        explorer.rank.value = rank
    explorer.rank.value = 1
    assert np.array_equal(explorer._compute((explorer.choice(), 0, 1))[0], first)


def test_the_static_picture_has_the_probe_and_ranks_up_to_the_last(explorer):
    names = list(explorer.shown())
    assert names == ["linear probe", "rank 0", "rank 1", "rank 2", "rank 4", "rank 8", "rank 16"]
    assert "rank 16: kidney" in explorer.static().alt


def test_in_quick_mode_the_still_has_a_few_of_them(explorer, monkeypatch):
    assert explorer.in_still() == explorer.shown()
    monkeypatch.setenv("LABKIT_QUICK", "1")
    assert list(explorer.in_still()) == ["linear probe", "rank 0"]
    assert "rank 0: kidney" in (told := explorer.static().alt) and "rank 1" not in told
