import copy

import pytest
import timm
import torch
from torch import nn

from labkit.methods import LNLoRA, LoRA
from labkit.methods.ln_lora import LNLoRALinear
from labkit.training.fit import Recipe, parameter_groups
from labkit.tuning import delta, merge, tune

SIX = ("q", "k", "v", "o", "fc1", "fc2")


def filled(original, parts, of, r=3, alpha=6.0):
    layer = LNLoRALinear(original, parts, of, r, alpha, dropout=0.0)
    for p in (layer.B, layer.gamma, layer.beta):
        nn.init.normal_(p)
    return layer


def test_is_lora_of_the_output_of_a_layernorm():
    qkv, x = nn.Linear(6, 18), 5 + 3 * torch.randn(2, 4, 6)
    layer = filled(qkv, (0, 2), 3)
    q, k, v = (layer(x) - qkv(x)).split(6, -1)
    for part, found in ((0, q), (1, v)):
        norm = nn.LayerNorm(6)
        norm.weight.data, norm.bias.data = layer.gamma[part, 0], layer.beta[part, :, 0]
        expected = 6.0 / 3 * norm(x) @ layer.A[part].T @ layer.B[part].T
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not k.any()


def test_does_not_see_how_large_its_input_is():
    linear, x = nn.Linear(6, 6), torch.randn(4, 6)
    layer = filled(linear, (0,), 1)
    torch.testing.assert_close(layer(x) - linear(x), layer(100 * x) - linear(100 * x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("r, targets, expected", [(8, ("q", "v"), 331_776), (16, SIX, 2_820_096)])
def test_counts_on_a_vit_b16(r, targets, expected):
    with torch.device("meta"):
        vit = timm.create_model("vit_base_patch16_224", num_classes=0)
        LNLoRA(r, targets=targets).inject(vit.requires_grad_(False))
    assert sum(p.numel() for p in delta(vit).values()) == expected


def test_no_matrix_does_the_same(vit):
    """What it adds is no linear function of x, so a refusal to merge is right."""
    linear, x = nn.Linear(6, 6), torch.randn(4, 6)
    layer = filled(linear, (0,), 1)
    with torch.no_grad():
        doubled = layer(2 * x) - linear(2 * x) - 2 * (layer(x) - linear(x))
    assert doubled.abs().max() > 0.1
    with pytest.raises(ValueError, match="can't be merged: what LNLoRA did"):
        merge(tune(copy.deepcopy(vit), LNLoRA()))


def test_draws_the_A_of_lora(vit):
    plain, normed = tune(copy.deepcopy(vit), LoRA()), tune(copy.deepcopy(vit), LNLoRA())
    for name, p in delta(plain).items():
        assert torch.equal(p, delta(normed)[name])


def test_refuses_rank_0(vit):
    with pytest.raises(ValueError, match="LNLoRA's rank"):
        tune(copy.deepcopy(vit), LNLoRA(r=0))


def test_weight_decay_leaves_the_norms_alone_and_takes_A_and_B(vit):
    model = tune(copy.deepcopy(vit), LNLoRA())
    names = {id(p): name.split(".")[-1] for name, p in model.backbone.named_parameters()}
    decays = {
        names.get(id(p)): g["weight_decay"] for g in parameter_groups(model, Recipe()) for p in g["params"]
    }
    assert decays["gamma"] == decays["beta"] == 0 < decays["A"] == decays["B"]
