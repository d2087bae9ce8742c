"""What every method must keep, whatever its paper: one test per promise, over all of METHODS."""

from dataclasses import replace

import pytest
import torch

from labkit.methods import METHODS
from labkit.tuning import bypass, count, delta, load, merge, save, tune, wrappers

OTHERWISE = {"scratch", "vpt_deep"}  # do not start as the pretrained network, as their papers have it
MERGEABLE = {"lora"}
EVERY = pytest.mark.parametrize("name", METHODS)


def learn(model, volumes, steps=3):
    optimizer = torch.optim.Adam(delta(model).values(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        model(volumes).square().mean().backward()
        optimizer.step()
    return model


@EVERY
def test_starts_as_the_pretrained_network_or_declares_that_it_does_not(name, fresh, volumes):
    before = fresh().eval()(volumes)
    after = tune(fresh(), METHODS[name]()).eval()(volumes)
    assert torch.equal(before, after) == (name not in OTHERWISE)


@EVERY
def test_only_the_delta_learns_and_all_of_it_does(name, fresh, volumes):
    model = tune(fresh(), METHODS[name]())
    before = {n: p.clone() for n, p in model.named_parameters()}
    learn(model, volumes)
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == delta(model).keys()


@EVERY
def test_a_volume_does_not_see_its_neighbour_in_the_batch(name, fresh, volumes):
    model = tune(fresh(), METHODS[name]()).eval()
    other = volumes.clone()
    other[0] += torch.randn_like(other[0])
    assert torch.equal(model(volumes)[1], model(other)[1])


@EVERY
def test_a_saved_delta_restores_a_fresh_model_to_the_bit(name, fresh, volumes, tmp_path):
    model = learn(tune(fresh(), METHODS[name]()), volumes)
    save(model, tmp_path / "delta.safetensors")
    again = load(tune(fresh(), METHODS[name]()), tmp_path / "delta.safetensors")
    assert torch.equal(model.eval()(volumes), again.eval()(volumes))


@EVERY
def test_another_methods_file_is_refused_by_name(name, fresh, tmp_path):
    save(tune(fresh(), METHODS[name]()), tmp_path / "delta.safetensors")
    other = METHODS["head" if name != "head" else "lora"]()
    with pytest.raises(ValueError, match=type(METHODS[name]()).__name__):
        load(tune(fresh(), other), tmp_path / "delta.safetensors")


@EVERY
def test_runs_under_bfloat16(name, fresh, volumes):
    model = tune(fresh(), METHODS[name]())
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(volumes).float().square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in delta(model).values())


@EVERY
def test_gradient_checkpointing_changes_nothing(name, fresh, volumes):
    model = tune(fresh(), METHODS[name]())
    model(volumes).square().mean().backward()
    plain = {n: p.grad.clone() for n, p in delta(model).items()}
    model.zero_grad()
    model.backbone.set_grad_checkpointing()
    model(volumes).square().mean().backward()
    for n, p in delta(model).items():
        torch.testing.assert_close(p.grad, plain[n], rtol=1e-4, atol=1e-6)


@EVERY
def test_bypass_shows_the_pretrained_network_and_puts_everything_back(name, fresh, volumes):
    model = tune(fresh(), METHODS[name]()).eval()
    expected = fresh().eval()(volumes) if wrappers(model) else model(volumes)
    if wrappers(model):
        for p in delta(model.backbone.blocks).values():
            torch.nn.init.normal_(p, std=0.1)
    tuned, paths = model(volumes), [n for n, _ in wrappers(model)]
    with bypass(model):
        assert not wrappers(model)
        assert torch.equal(model(volumes), expected)
    assert [n for n, _ in wrappers(model)] == paths
    assert torch.equal(model(volumes), tuned)


@EVERY
def test_merged_is_the_same_function_with_plain_names(name, fresh, volumes):
    model = tune(fresh(), METHODS[name]()).eval()
    plain = {n: type(m) for n, m in fresh().named_modules()}
    if wrappers(model) and name not in MERGEABLE:
        with pytest.raises(ValueError, match="can't be merged"):
            merge(model)
        assert wrappers(model), "a refused merge must not have begun"
        return
    learn(model, volumes)
    before = model.eval()(volumes)
    merge(model)
    torch.testing.assert_close(model(volumes), before, rtol=1e-4, atol=1e-4)
    assert {n: type(m) for n, m in model.named_modules()} == plain


@EVERY
def test_is_counted_as_its_paper_counts(name, fresh):
    model = fresh()
    d, L, everything = 384, 4, sum(p.numel() for p in model.parameters())
    only_head = sum(p.numel() for p in model.decoder.parameters()) + 2 * d
    inserted = {"vpt_deep": 10 * d * L, "lora": L * 2 * 8 * 2 * d}.get(name, 0)
    tuned = everything if name in ("full", "scratch") else only_head + inserted
    counted = count(tune(model, METHODS[name]()))
    assert (counted.tuned, counted.inserted, counted.pretrained) == (tuned, inserted, everything)


@EVERY
def test_a_model_can_be_tuned_only_once(name, fresh):
    model = tune(fresh(), METHODS[name]())
    with pytest.raises(ValueError, match="already tuned by"):
        tune(model, METHODS[name]())


def test_methods_are_values(fresh):
    assert METHODS["lora"]() == METHODS["lora"](r=8)
    assert replace(METHODS["lora"](), r=2) != METHODS["lora"]()
