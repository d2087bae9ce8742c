"""The adapters: where they sit, what they compute, and how many parameters the papers' settings have."""

import copy

import pytest
import timm
import torch
from torch import nn

from labkit.methods import (
    Adapter,
    AdapterBias,
    AdapterDrop,
    AdaptFormer,
    BitFit,
    Compacter,
    LoRA,
    ParallelAdapter,
)
from labkit.methods.adapter_bias import ShiftedLinear
from labkit.methods.bottleneck import After, Beside, Bottleneck
from labkit.methods.compacter import KroneckerLinear, Rules
from labkit.tuning import count, delta, merge, tune, unmerge


@pytest.mark.parametrize(
    "method, parameters",
    [
        (Adapter(), 3_559_680),  # as the Med-Tuning paper's table
        (Adapter(m=64), 2_379_264),
        (AdaptFormer(), 1_189_632),
        (ParallelAdapter(), 1_189_632),
        (AdapterDrop(n=5, m=64), 1_387_904),
        (AdapterBias(), 46_092),
        (Compacter(), 57_088),
        (Compacter(where=("mlp",)), 28_576),
    ],
)
def test_on_a_vit_b16_it_has_as_many_parameters_as_published(method, parameters):
    with torch.device("meta"):
        vit = timm.create_model("vit_base_patch16_224", num_classes=0).requires_grad_(False)
        method.inject(vit)
    assert sum(p.numel() for p in delta(vit).values()) == parameters


@pytest.fixture
def small(vit):
    return lambda: copy.deepcopy(vit)


def random(module):
    for p in module.parameters():
        nn.init.normal_(p)
    return module


def test_a_sequential_adapter_reads_what_the_module_gives_out_a_parallel_one_what_it_takes_in():
    frozen, adapter, x = nn.Linear(6, 6), random(Bottleneck(6, 2, nn.GELU(), scale=3.0)), torch.randn(4, 6)
    y = frozen(x)

    def by_hand(z):
        hidden = nn.functional.gelu(z @ adapter.down.weight.T + adapter.down.bias)
        return 3 * (hidden @ adapter.up.weight.T + adapter.up.bias)

    torch.testing.assert_close(After(frozen, adapter)(x), y + by_hand(y))
    torch.testing.assert_close(Beside(frozen, adapter)(x), y + by_hand(x))


def test_adapters_sit_after_attention_and_mlp_and_before_the_residual_sum(small):
    model = tune(small(), Adapter()).double()  # what is drawn here may be large
    block = random(model.backbone.blocks[0])
    x = torch.randn(2, 16, 32, dtype=torch.float64)
    y = x + block.attn.original(block.norm1(x)) + block.attn.adapter(block.attn.original(block.norm1(x)))
    z = block.mlp.original(block.norm2(y))
    torch.testing.assert_close(block(x), y + z + block.mlp.adapter(z))


def test_adapter_drop_leaves_the_first_blocks_alone_and_ends_the_backward_pass_there(small):
    model = tune(small(), AdapterDrop(n=2))
    kinds = [type(block.attn) is After for block in model.backbone.blocks]
    assert kinds == [False, False, True, True]
    seen = []
    model.backbone.blocks[1].register_forward_hook(lambda _m, _i, out: seen.append(out.requires_grad))
    model.backbone.blocks[2].register_forward_hook(lambda _m, _i, out: seen.append(out.requires_grad))
    model(torch.randn(1, 4, 32, 32))
    assert seen == [False, True]


def test_adapter_bias_shifts_each_token_along_one_vector_by_an_amount_of_its_own():
    layer, h = random(ShiftedLinear(nn.Linear(12, 5))), torch.randn(3, 7, 12)
    shift = layer(h) - layer.original(h)  # (3, 7, 5)
    amount = torch.einsum("bnk,k->bn", h, layer.a) + layer.a0
    torch.testing.assert_close(shift, amount[..., None] * layer.v, rtol=1e-4, atol=1e-4)


def test_adapter_bias_is_a_change_of_rank_one():
    layer = random(ShiftedLinear(nn.Linear(12, 5)))
    assert torch.linalg.matrix_rank(layer.weight - layer.original.weight, rtol=1e-5) == 1
    torch.testing.assert_close(layer.merged()(torch.ones(1, 12)), layer(torch.ones(1, 12)))


def test_compacters_matrix_is_the_sum_of_its_kronecker_products():
    layer = random(KroneckerLinear(8, 12, Rules(4)))
    A, s, t = layer.rules.A, layer.s, layer.t
    explicit = sum(torch.kron(A[i], torch.outer(s[i], t[i])) for i in range(4))
    torch.testing.assert_close(layer.weight(), explicit)
    x = torch.randn(3, 8)
    torch.testing.assert_close(layer(x), x @ explicit.T + layer.bias)


def test_all_of_compacters_layers_share_one_set_of_rules(small):
    model = tune(small(), Compacter())
    again = copy.deepcopy(model)
    for one in (model, again):
        rules = {id(m.rules) for m in one.modules() if isinstance(m, KroneckerLinear)}
        assert len(rules) == 1 and sum(name.endswith("rules.A") for name in delta(one)) == 1


@pytest.mark.parametrize(
    "method, complaint",
    [
        (Adapter(m=0), "bottleneck of at least 1"),
        (Adapter(where=("ffn",)), "'attn', 'mlp' or both"),
        (AdapterDrop(n=4), "must be 0 to 3"),
        (Compacter(n=5), "cuts widths into n = 5 parts"),
        (Compacter(n=0), "at least 1 Kronecker product"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fresh, method, complaint):
    with pytest.raises(ValueError, match=complaint):
        tune(fresh(), method)


def test_a_tuple_is_injected_in_one_order_however_it_is_written(small):
    combined = (Adapter(), BitFit(), LoRA(), AdapterBias())
    one, other = (tune(small(), methods) for methods in (combined, combined[::-1]))
    assert list(delta(one)) == list(delta(other)) and one.tuned_by == (BitFit(), *one.tuned_by[1:])
    names = {name.rsplit(".", 1)[-1] for name in delta(one.backbone)}
    assert {"A", "B", "v", "bias"} <= names
    alone = [count(tune(small(), method)) for method in combined]
    assert count(one).inserted == sum(c.inserted for c in alone)


def test_changes_of_one_matrix_by_two_methods_merge_and_unmerge(small):
    model = tune(small(), (LoRA(targets=("fc2",)), AdapterBias())).eval()
    random(model.backbone.blocks)
    x = torch.randn(1, 4, 32, 32)
    before = model(x)
    torch.testing.assert_close(merge(model)(x), before, rtol=1e-3, atol=1e-3)
    assert torch.equal(unmerge(model)(x), before)


def test_the_same_method_twice_is_refused(small):
    with pytest.raises(ValueError, match="each only once"):
        tune(small(), (LoRA(), LoRA(r=2)))
