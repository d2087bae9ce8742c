import copy

import pytest
import torch

from labkit.methods import AdapterBias, BitFit, FacTTT, LoRA, LoRAPlus, VPTDeep
from labkit.methods.lora_plus import LoRAPlusLinear
from labkit.training.fit import Recipe, parameter_groups
from labkit.tuning import delta, tune


def peaks(model, recipe):
    rates = {id(p): group["peak"] for group in parameter_groups(model, recipe) for p in group["params"]}
    return {name: rates[id(p)] for name, p in delta(model).items()}


def test_the_optimizers_groups_give_B_the_ratio_times_the_rate_of_A(vit):
    model = tune(copy.deepcopy(vit), LoRAPlus(ratio=5.0, targets=("q", "v", "o", "fc1", "fc2")))
    found = peaks(model, Recipe(lr=1e-3, head_lr=7e-3))
    expected = {"A": 1e-3, "B": 5e-3}
    for name, peak in found.items():
        assert peak == pytest.approx(expected.get(name.split(".")[-1], 7e-3)), name
    assert {"A", "B"} < {name.split(".")[-1] for name in found}


def test_in_a_tuple_only_B_is_faster(vit):
    model = tune(copy.deepcopy(vit), (BitFit(), LoRAPlus(ratio=5.0), VPTDeep()))
    fast = {name for name, peak in peaks(model, Recipe(lr=1e-3, head_lr=2e-3)).items() if peak == 5e-3}
    assert fast == {name for name in delta(model) if name.endswith(".qkv.B")} and len(fast) == 4


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    "members",
    [(LoRAPlus(targets=("fc2",)), AdapterBias()), (LoRAPlus(), FacTTT(r=2)), (LoRAPlus(), LoRA())],
    ids=["adapter_bias", "fact", "lora"],
)
def test_wrapped_by_another_method_its_B_is_as_fast_and_nothing_else_is(members, turned, vit):
    model = tune(copy.deepcopy(vit), members[::-1] if turned else members)
    fast = {name for name, peak in peaks(model, Recipe(lr=1e-3)).items() if peak == pytest.approx(16e-3)}
    layers = {n for n, m in model.named_modules() if type(m) is LoRAPlusLinear}
    assert fast == {f"{name}.B" for name in layers} and len(fast) == 4


def test_a_step_of_adam_moves_B_farther_by_the_ratio(vit):
    model = tune(copy.deepcopy(vit), LoRAPlus(ratio=8.0))
    layer = model.backbone.blocks[0].attn.qkv
    layer.B.data += 0.01  # else A gets no gradient in the first step
    before = copy.deepcopy(layer)
    optimizer = torch.optim.Adam(parameter_groups(model, Recipe(weight_decay=0.0)), eps=1e-20)
    model(torch.randn(2, 4, 32, 32)).square().mean().backward()
    optimizer.step()
    a, b = (layer.A - before.A).abs().median().item(), (layer.B - before.B).abs().median().item()
    assert b / a == pytest.approx(8, rel=0.01)


def test_weights_and_function_are_those_of_lora(fresh, volumes):
    plain, plus = tune(fresh(), LoRA(r=4)), tune(fresh(), LoRAPlus(r=4))
    assert all(torch.equal(p, delta(plus)[name]) for name, p in delta(plain).items())
    assert torch.equal(plain.eval()(volumes), plus.eval()(volumes))


@pytest.mark.parametrize("wrong", [dict(ratio=0.0), dict(ratio=-2.0), dict(r=0)])
def test_refuses_what_makes_no_sense(fresh, wrong):
    with pytest.raises(ValueError, match="LoRAPlus"):
        tune(fresh(), LoRAPlus(**wrong))
