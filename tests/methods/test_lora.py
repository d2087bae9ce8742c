import copy

import pytest
import timm
import torch
from torch import nn

from labkit.methods.lora import LoRA, LoRALinear
from labkit.tuning import delta, tune


def filled(original, parts=(0,), of=1, r=3, alpha=6.0):
    layer = LoRALinear(original, parts, of, r, alpha, dropout=0.0)
    nn.init.normal_(layer.B)
    return layer


def test_adds_alpha_over_r_times_B_A_x():
    linear = nn.Linear(5, 7)
    layer, x = filled(linear), torch.randn(4, 5)
    torch.testing.assert_close(layer(x), linear(x) + 6.0 / 3 * x @ layer.A[0].T @ layer.B[0].T)


def test_on_q_and_v_leaves_k_as_it_was():
    qkv = nn.Linear(6, 18)
    layer, x = filled(qkv, (0, 2), 3), torch.randn(4, 6)
    q, k, v = (layer(x) - qkv(x)).split(6, -1)
    torch.testing.assert_close(q, 2 * x @ layer.A[0].T @ layer.B[0].T)
    torch.testing.assert_close(v, 2 * x @ layer.A[1].T @ layer.B[1].T)
    assert not k.any()


@pytest.mark.parametrize("parts, of", [((0,), 1), ((0, 2), 3), ((0, 1, 2), 3), ((1,), 3)])
def test_cheap_forward_equals_the_equation(parts, of):
    layer, x = filled(nn.Linear(6, 18), parts, of), torch.randn(4, 6)
    torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.weight, layer.bias))
    torch.testing.assert_close(layer(x), layer.merged()(x))


def test_update_has_rank_r():
    layer = filled(nn.Linear(32, 32), r=4)
    assert torch.linalg.matrix_rank(layer.weight - layer.original.weight, rtol=1e-5) == 4


def test_alpha_smaller_than_r_still_scales(fresh):
    model = tune(fresh(), LoRA(r=8, alpha=4))
    assert model.backbone.blocks[0].attn.qkv.scale == 0.5


def test_an_alpha_of_zero_is_taken_at_its_word(fresh):
    assert tune(fresh(), LoRA(alpha=0)).backbone.blocks[0].attn.qkv.scale == 0


def test_order_of_targets_does_not_matter(fresh):
    names = [list(delta(tune(fresh(), LoRA(targets=t)))) for t in (("q", "fc1", "v"), ("v", "q", "fc1"))]
    assert names[0] == names[1]


@pytest.mark.parametrize("wrong", [dict(r=0), dict(targets=("w",)), dict(targets=())])
def test_refuses_what_makes_no_sense(fresh, wrong):
    with pytest.raises(ValueError, match="LoRA"):
        tune(fresh(), LoRA(**wrong))


def test_computes_and_learns_what_peft_does(vit):
    peft = pytest.importorskip("peft")
    theirs = copy.deepcopy(vit.backbone)
    ours = tune(copy.deepcopy(vit), LoRA(r=4, alpha=6, targets=("o", "fc1", "fc2"))).backbone
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=["attn.proj", "mlp.fc1", "mlp.fc2"])
    peft.get_peft_model(theirs, config)  # changes it in place
    pairs = []
    for name, layer in ours.named_modules():
        if isinstance(layer, LoRALinear):
            other = theirs.get_submodule(name)
            pairs += [(layer.A, other.lora_A.default.weight), (layer.B, other.lora_B.default.weight)]
    assert len(pairs) == 4 * 3 * 2
    for mine, other in pairs:
        nn.init.normal_(mine, std=0.3)
        other.data.copy_(mine[0])
    x = torch.randn(2, 4, 32, 32)
    y, expected = ours(x), theirs(x)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    assert (y - vit.backbone(x)).abs().max() > 0.1
    y.square().mean().backward()
    expected.square().mean().backward()
    for mine, other in pairs:
        torch.testing.assert_close(mine.grad[0], other.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "r, targets, expected",
    [
        (8, ("q", "v"), 294_912),
        (4, ("q", "v"), 147_456),
        (8, ("q", "k", "v", "o"), 589_824),
        (8, ("q", "k", "v", "o", "fc1", "fc2"), 1_327_104),
    ],
)
def test_counts_on_a_vit_b16(r, targets, expected):
    with torch.device("meta"):
        vit = timm.create_model("vit_base_patch16_224", num_classes=0)
        LoRA(r, targets=targets).inject(vit.requires_grad_(False))
    assert sum(p.numel() for p in delta(vit).values()) == expected
