import copy

import pytest
import timm
import torch
from torch import nn

from labkit.methods import BitFit, FacTTK, FacTTT, VPTDeep
from labkit.methods.fact import FacTLinear, Tucker
from labkit.networks.anatomy import block_paths, width
from labkit.tuning import delta, load, save, tune

BOTH = pytest.mark.parametrize("method", [FacTTT(r=3, s=0.7), FacTTK(r=3, s=0.7)], ids=["tt", "tk"])


def tuned(model, method):
    model = tune(copy.deepcopy(model), method)
    for name, p in delta(model.backbone).items():
        if name.endswith(".V"):
            nn.init.normal_(p)
    return model.eval()


def whole_tensor(factors, s):
    """All updates, acting on row vectors, by the paper's sums: (slices, d, d)."""
    U, V = factors.U, factors.V
    if isinstance(factors, Tucker):
        return s * torch.einsum("it,tpq,jp,kq->ijk", factors.P, factors.C, U, V)
    return s * torch.einsum("ipq,jp,kq->ijk", factors.Sigma, U, V)


@BOTH
@pytest.mark.parametrize("body", ["vit", "swin"])
def test_every_update_is_its_slices_of_one_tensor_per_width(method, body, vit, swin):
    """In the order of the forward pass: 4 slices of attention, 4 beside each other, 4 above each other."""
    model = tuned({"vit": vit, "swin": swin}[body], method)
    backbone, used = model.backbone, {}
    for path in block_paths(backbone):
        block = backbone.get_submodule(path)
        d = width(block)
        T = whole_tensor(block.attn.qkv.factors, method.s)
        assert T.shape == (12 * {"vit": 4, "swin": 2}[body], d, d)
        q, k, v, o, *mlp = T[used.setdefault(d, 0) :][:12]
        used[d] += 12
        expected = {
            "attn.qkv": torch.cat([q, k, v], 1),
            "attn.proj": o,
            "mlp.fc1": torch.cat(mlp[:4], 1),
            "mlp.fc2": torch.cat(mlp[4:], 0),
        }
        for name, update in expected.items():
            layer = block.get_submodule(name)
            found = (layer.weight - layer.original.weight).T
            torch.testing.assert_close(found, update, rtol=1e-4, atol=1e-5, msg=f"{path}.{name}")


@BOTH
@pytest.mark.parametrize("targets", [("q", "v"), ("k",), ("q", "k", "v", "o", "fc1", "fc2")])
def test_cheap_forward_equals_the_equation(method, targets, vit):
    model = tuned(vit, type(method)(r=3, s=0.7, targets=targets))
    layers = [m for m in model.modules() if isinstance(m, FacTLinear)]
    for layer in layers:
        x = torch.randn(2, 5, layer.original.in_features)
        expected = nn.functional.linear(x, layer.weight, layer.bias)
        torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(layer.merged()(x), expected, rtol=1e-4, atol=1e-4)
    assert len(layers) == 4 * len({"q", "fc1", "fc2", "o"} & set(targets) or {"k"})


def test_on_q_and_v_leaves_k_as_it_was(vit):
    layer = tuned(vit, FacTTT(r=3, targets=("q", "v"))).backbone.blocks[1].attn.qkv
    q, k, v = (layer.weight - layer.original.weight).chunk(3)
    assert q.any() and v.any() and not k.any()


@pytest.mark.parametrize("method, expected", [(FacTTT(r=16), 61_440), (FacTTK(r=32), 86_528)])
def test_counts_on_a_vit_b16(method, expected):
    with torch.device("meta"):
        vit = timm.create_model("vit_base_patch16_224", num_classes=0)
        method.inject(vit.requires_grad_(False))
    assert sum(p.numel() for p in delta(vit).values()) == expected


@BOTH
def test_a_copy_shares_its_own_factors(method, vit):
    model = tuned(vit, method)
    blocks = copy.deepcopy(model).backbone.blocks
    assert blocks[0].attn.qkv.factors is blocks[3].mlp.fc2.factors
    assert blocks[0].attn.qkv.factors is not model.backbone.blocks[0].attn.qkv.factors


def test_tiny_is_tuned_in_its_attention_only(fresh):
    model = tune(fresh(), FacTTT(r=16))
    assert sum(p.numel() for p in delta(model.backbone).values()) == 2 * 384 * 16 + 4 * 4 * 16**2 + 2 * 384
    assert not isinstance(model.backbone.blocks[0].mlp.fc1, FacTLinear)
    with pytest.raises(ValueError, match="384 x 384 slices, but mlp.fc1 is 960 x 384; tune attention only"):
        tune(fresh(), FacTTT(targets=("q", "fc1")))


def test_works_in_a_tuple_and_is_saved(vit, tmp_path):
    methods, x = (BitFit(), FacTTK(r=3), VPTDeep()), torch.randn(1, 4, 32, 32)
    model = tuned(vit, methods)
    save(model, tmp_path / "delta")
    again = load(tune(copy.deepcopy(vit), methods, seed=1), tmp_path / "delta").eval()
    assert torch.equal(model(x), again(x))


def test_refuses_rank_0(vit):
    with pytest.raises(ValueError, match="FacT's rank"):
        tune(copy.deepcopy(vit), FacTTT(r=0))
