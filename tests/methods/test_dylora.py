import copy

import pytest
import torch
from torch import nn

from labkit.methods import BitFit, DyLoRA, Head, LoRA, VPTDeep
from labkit.methods.dylora import DyLoRALinear, at_rank, truncate
from labkit.tuning import bypass, delta, load, merge, save, tune

TARGETS = ("q", "v", "fc1")


@pytest.fixture
def new(vit):
    """Tuned by a DyLoRA whose B is no longer zero."""

    def tuned(**settings):
        model = tune(copy.deepcopy(vit), DyLoRA(targets=TARGETS, **settings)).eval()
        for layer in layers(model):
            nn.init.normal_(layer.B, std=0.3)
        return model

    return tuned


@pytest.fixture
def x():
    return torch.randn(2, 4, 32, 32)


def layers(model):
    return [layer for layer in model.modules() if isinstance(layer, DyLoRALinear)]


def backward(model, x, seed):
    model.zero_grad()
    torch.manual_seed(seed)
    model.train()(x).square().mean().backward()
    return {name: p.grad.clone() for name, p in delta(model).items()}


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("b", [1, 3, 8])
def test_cut_to_b_it_is_lora_of_rank_b_with_the_same_weights(new, vit, x, b, rescale):
    model = new(alpha=4.0, rescale=rescale)
    lora = tune(copy.deepcopy(vit), LoRA(b, 4.0 if rescale else 4.0 * b / 8, TARGETS)).eval()
    for name, layer in model.named_modules():
        if isinstance(layer, DyLoRALinear):
            lora.get_submodule(name).A.data.copy_(layer.A[:, :b])
            lora.get_submodule(name).B.data.copy_(layer.B[..., :b])
    with at_rank(model, b):
        torch.testing.assert_close(model(x), lora(x), rtol=1e-5, atol=1e-5)
    assert b == 8 or not torch.allclose(model(x), lora(x), atol=1e-2), (
        "outside the context every rank is used"
    )
    cut = truncate(copy.deepcopy(model), b)
    assert torch.equal(cut(x), lora(x)) and cut.tuned_by == lora.tuned_by
    assert delta(cut).keys() == delta(lora).keys() and not layers(cut)


def test_rank_0_is_the_pretrained_network(new, x):
    model = new()
    with bypass(model):
        expected = model(x)
    with at_rank(model, 0):
        assert torch.equal(model(x), expected)
    cut = truncate(model, 0)
    assert torch.equal(cut(x), expected) and cut.tuned_by == Head()


def test_one_rank_more_adds_one_term_and_changes_none(new):
    model = new(alpha=4.0)
    layer, updates = layers(model)[-1], []
    for b in range(9):
        with at_rank(model, b):
            updates.append(layer.weight - layer.original.weight)
    for b in range(8):
        term = 0.5 * layer.B[0, :, b : b + 1] @ layer.A[0, b : b + 1]
        torch.testing.assert_close(updates[b + 1] - updates[b], term, rtol=1e-4, atol=1e-5)


def test_training_at_rank_b_touches_the_first_b_ranks_and_all_of_them(new, x):
    model = new()
    before = [(layer.A.clone(), layer.B.clone()) for layer in layers(model)]
    optimizer = torch.optim.Adam(delta(model).values(), lr=1e-2)
    with at_rank(model, 3):
        for _ in range(2):
            backward(model, x, seed=0)
            optimizer.step()
    for layer, (A, B) in zip(layers(model), before, strict=True):
        assert torch.equal(layer.A[:, 3:], A[:, 3:]) and torch.equal(layer.B[..., 3:], B[..., 3:])
        assert (layer.A[:, :3] != A[:, :3]).any(-1).all() and (layer.B[..., :3] != B[..., :3]).any(1).all()


def used(model, gradients):
    """How many ranks have a gradient, in each layer."""
    B = [g for name, g in gradients.items() if name.endswith(("qkv.B", "fc1.B"))]
    assert len(B) == len(layers(model))
    return {int(g.any(1).any(0).sum()) for g in B}


def test_a_step_draws_one_rank_for_all_layers_and_in_time_every_rank(new, x):
    model, drawn = new(), []
    for seed in range(60):
        ranks = used(model, backward(model, x, seed))
        assert len(ranks) == 1
        drawn += ranks
    assert set(drawn) == set(range(1, 9))


def test_a_steps_seed_decides_its_rank_and_gradient_to_the_bit(new, x):
    model = new()
    first = [backward(copy.deepcopy(model), x, seed) for seed in (3, 4, 5)]
    backward(model, x, 9)
    for seed, expected in zip((3, 4, 5), first, strict=True):
        again = backward(model, x, seed)
        assert all(torch.equal(again[name], expected[name]) for name in expected)


def test_gradient_checkpointing_computes_again_with_the_same_rank(new, x):
    model = new(dropout=0.2)
    plain = [backward(model, x, seed) for seed in range(4)]
    assert len({used(model, gradients).pop() for gradients in plain}) > 1
    model.backbone.set_grad_checkpointing()
    for seed, expected in enumerate(plain):
        again = backward(model, x, seed)
        for name in expected:
            torch.testing.assert_close(again[name], expected[name], rtol=1e-4, atol=1e-6)


def test_nothing_is_drawn_in_evaluation_or_at_a_chosen_rank(new, x):
    model, before = new(), torch.get_rng_state()
    model(x)
    with at_rank(model.train(), 2):
        model(x)
    truncate(model, 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_merged_is_the_rank_asked_for_whatever_a_step_drew(new, x):
    model = new()
    backward(model, x, 0)
    assert layers(model)[0].rank.drawn < 8
    expected = copy.deepcopy(model).eval()(x)
    torch.testing.assert_close(merge(model).eval()(x), expected, rtol=1e-4, atol=1e-4)
    cut = new()
    with at_rank(cut, 2):
        expected = cut(x)
        merge(cut)
    torch.testing.assert_close(cut(x), expected, rtol=1e-4, atol=1e-4)


def test_a_cut_model_is_saved_and_loaded_as_lora(new, vit, x, tmp_path):
    cut = truncate(new(), 4)
    save(cut, tmp_path / "delta")
    again = load(tune(copy.deepcopy(vit), LoRA(4, 4.0, TARGETS), seed=1), tmp_path / "delta")
    assert torch.equal(again.eval()(x), cut(x))


def test_in_a_tuple_only_its_part_is_cut(vit, x):
    model = tune(copy.deepcopy(vit), (BitFit(), DyLoRA(), VPTDeep())).eval()
    for layer in layers(model):
        nn.init.normal_(layer.B, std=0.3)
    with at_rank(model, 2):
        expected = model(x)
    assert not torch.allclose(model(x), expected, atol=1e-3)
    assert torch.equal(truncate(model, 2)(x), expected)
    assert model.tuned_by == (BitFit(), LoRA(2, 2.0), VPTDeep())


def test_a_copy_has_a_rank_of_its_own(new, x):
    model = new()
    other, expected = copy.deepcopy(model), model(x)
    with at_rank(other, 1):
        assert torch.equal(model(x), expected)


def test_the_rank_comes_back_after_an_error(new, x):
    model = new()
    expected = model(x)
    with pytest.raises(KeyError), at_rank(model, 1):
        raise KeyError
    assert torch.equal(model(x), expected)


@pytest.mark.parametrize("b", [-1, 9, 2.5])
def test_refuses_a_rank_it_does_not_have(new, b):
    with pytest.raises(ValueError, match="from 0 to 8"), at_rank(new(), b):
        pass


def test_refuses_to_cut_what_is_no_dylora(vit):
    with pytest.raises(ValueError, match="no DyLoRA layers"):
        truncate(tune(copy.deepcopy(vit), LoRA()), 2)
    with pytest.raises(ValueError, match="at least 1"):
        tune(copy.deepcopy(vit), DyLoRA(r=0))
