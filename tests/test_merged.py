"""Merged and bypassed are states that every verb knows, and what is set aside follows the model."""

import copy
import pickle

import pytest
import torch
from safetensors.torch import load_file

from labkit.methods import (
    AdapterBias,
    BitFit,
    DyLoRA,
    FacTTK,
    FacTTT,
    LongLoRA,
    LoRA,
    LoRAPlus,
    VPTDeep,
)
from labkit.training.cost import measure
from labkit.training.fit import Recipe, parameter_groups
from labkit.tuning import bypass, count, delta, load, merge, save, tune, unmerge, wrappers

FOLDED = [LoRA(), LoRAPlus(), DyLoRA(), FacTTT(), FacTTK(), AdapterBias(), LongLoRA(), (BitFit(), LoRA())]
EVERY = pytest.mark.parametrize("method", FOLDED, ids=str)
REFUSALS = {
    "save": lambda model, folder: save(model, folder / "file"),
    "load": lambda model, folder: load(model, folder / "before"),
    "measure": lambda model, folder: measure(model, torch.randn(1, 4, 32, 32)),
    "optimise": lambda model, folder: parameter_groups(model, Recipe()),
}


@pytest.fixture
def x():
    return torch.randn(2, 4, 32, 32)


@pytest.fixture
def trained(vit):
    def make(method):
        model = tune(copy.deepcopy(vit), method).eval()
        with torch.no_grad():
            for p in delta(model).values():
                p.add_(0.05 * torch.randn_like(p))
        return model

    return make


@EVERY
def test_a_second_merge_changes_nothing(method, trained, x):
    """peft's _test_merge_layers_is_idempotent: merge, merge again; and the way back is still there."""
    model = trained(method)
    before, was = copy.deepcopy(model.state_dict()), model(x)
    once = copy.deepcopy(merge(model).state_dict())
    twice = merge(model).state_dict()
    assert all(torch.equal(tensor, once[name]) for name, tensor in twice.items())
    unmerge(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(model(x), was)


@EVERY
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_merged(method, number, trained):
    """peft's _test_merge_layers_nan, whose safe_merge raises a ValueError and leaves the model alone."""
    model = trained(method)
    name, wrapper = next(
        (name, wrapper)
        for name, wrapper in wrappers(model)
        if list(wrapper.parameters(recurse=False)) or hasattr(wrapper, "factors")
    )
    mine = [p for p in wrapper.parameters() if p.requires_grad and p.ndim > 1] or list(wrapper.parameters())
    mine[0].data.flatten()[0] = number
    paths = [path for path, _ in wrappers(model)]
    with pytest.raises(ValueError, match=r"can't be merged: .* NaN or infinite"):
        merge(model)
    assert [path for path, _ in wrappers(model)] == paths and not getattr(model, "merged_from", [])


def test_the_layer_that_is_not_finite_is_named(trained):
    model = trained(LoRA())
    model.backbone.blocks[2].attn.qkv.B.data[0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"backbone\.blocks\.2\.attn\.qkv can't be merged: weight holds"):
        merge(model)


@pytest.mark.parametrize("verb", REFUSALS)
@pytest.mark.parametrize("method", [LoRA(), (BitFit(), LoRA())], ids=str)
def test_while_merged_each_verb_that_needs_the_delta_refuses(verb, method, trained, tmp_path):
    model = trained(method)
    save(model, tmp_path / "before")
    merge(model)
    with pytest.raises(ValueError, match=r"is merged.*call unmerge|is merged.*unmerge\(model\)"):
        REFUSALS[verb](model, tmp_path)
    assert not (tmp_path / "file").exists()
    save(unmerge(model), tmp_path / "file")
    before, after = (load_file(tmp_path / name) for name in ("before", "file"))
    assert before.keys() == after.keys() and all(torch.equal(t, after[n]) for n, t in before.items())


@EVERY
def test_merging_changes_no_count(method, trained):
    model = trained(method)
    before = count(model)
    assert before.inserted and count(merge(model)) == before == count(unmerge(model))


@pytest.mark.parametrize("verb", REFUSALS)
def test_inside_bypass_they_refuse_too(verb, trained, tmp_path):
    model = trained(VPTDeep(n=2))
    save(model, tmp_path / "before")
    with bypass(model), pytest.raises(ValueError, match="leave the `with` block"):
        REFUSALS[verb](model, tmp_path)
    assert not (tmp_path / "file").exists()
    save(model, tmp_path / "file")


def test_a_merged_model_is_not_bypassed_nor_a_bypassed_one_merged(trained, x):
    model = trained(LoRA())
    with pytest.raises(ValueError, match=r"merged.*unmerge\(model\) before bypass"), bypass(merge(model)):
        pass
    unmerge(model)
    with bypass(model), pytest.raises(ValueError, match="nothing to merge"):
        merge(model)
    assert wrappers(model)


def test_bypass_in_a_bypass_ends_with_the_outer_one(trained):
    model = trained(LoRA())
    with bypass(model):
        with bypass(model):
            assert not wrappers(model)
        assert not wrappers(model)
        with pytest.raises(ValueError, match="nothing to merge"):
            merge(model)
    assert wrappers(model) and count(model).tuned


@pytest.mark.parametrize("method", [LoRA(dropout=0.5), LongLoRA(dropout=0.5)], ids=str)
def test_the_mode_follows_what_was_set_aside(method, trained, x):
    model = trained(method)
    was = model(x)
    model.train()
    merge(model).eval()
    unmerge(model)
    assert not any(m.training for m in model.modules()), "no dropout in evaluation"
    assert torch.equal(model(x), was)
    merge(model).train()
    assert all(m.training for m in unmerge(model).modules())
    merge(model.eval())
    assert not any(m.training for m in model.modules()), "nor does merging itself change it"


def test_the_mode_follows_a_bypass(trained):
    model = trained(LoRA(dropout=0.5))
    with bypass(model):
        model.train()
    assert all(m.training for m in model.modules())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("method", [*FOLDED, (LoRA(targets=("fc2",)), AdapterBias())], ids=str)
def test_the_type_of_numbers_follows(method, dtype, trained, x):
    model = trained(method)
    straight = copy.deepcopy(model).to(dtype)
    merge(model).to(dtype)
    unmerge(model)
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert torch.equal(model(x.to(dtype)), straight(x.to(dtype)))


def test_the_type_of_numbers_follows_a_bypass(trained, x):
    model = trained(VPTDeep(n=2))
    with bypass(model):
        model.double()
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    model(x.double())


def test_the_device_follows(trained):
    model = merge(trained(LoRA())).to("meta")
    assert {p.device.type for p in unmerge(model).parameters()} == {"meta"}


def test_there_and_back_in_half_precision_w0_is_kept_to_the_bit(trained):
    model = trained(LoRA())
    was = model.backbone.blocks[0].attn.qkv.original.weight.clone()
    merge(model).half().float()
    assert torch.equal(unmerge(model).backbone.blocks[0].attn.qkv.original.weight, was)


@EVERY
def test_a_merged_model_may_be_copied_and_pickled(method, trained, x):
    model = trained(method)
    was = model(x)
    for again in (copy.deepcopy(merge(model)), pickle.loads(pickle.dumps(model))):
        assert torch.equal(unmerge(again)(x), was)


def test_nothing_is_left_behind_where_a_bypassed_computation_fails(trained, x):
    model = trained(LoRA())
    with pytest.raises(RuntimeError), bypass(model):
        model(x[:, :1])
    assert wrappers(model) and count(model).tuned
