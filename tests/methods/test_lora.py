import pytest
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
