import copy

import pytest
import torch

from labkit.methods import LoRA
from labkit.methods.prefix import PrefixMLP, PrefixTuning, keep
from labkit.networks.anatomy import blocks
from labkit.networks.backbones import load_backbone
from labkit.tuning import count, delta, load, save, tune

BODIES = pytest.mark.parametrize("body", ["vit", "swin"])


@pytest.fixture
def new(body, vit, swin):
    return lambda: copy.deepcopy({"vit": vit, "swin": swin}[body])


def test_mlp_is_that_of_peft_with_copied_weights():
    peft = pytest.importorskip("peft")
    config = peft.PrefixTuningConfig(
        num_virtual_tokens=5, token_dim=8, num_layers=3, encoder_hidden_size=16, prefix_projection=True
    )
    config.num_attention_heads = 2
    theirs = peft.PrefixEncoder(config)
    ours = PrefixMLP([8] * 3, n=5, mid=16)
    ours.P.data = theirs.embedding.weight.data
    ours.fc1.load_state_dict(theirs.transform[0].state_dict())
    ours.fc2.load_state_dict(theirs.transform[2].state_dict())
    stacked = torch.cat([ours(layer) for layer in range(3)], -1)
    torch.testing.assert_close(stacked, theirs(torch.arange(5)))


@BODIES
def test_each_block_gets_its_own_part_and_width(new):
    backbone = tune(new(), PrefixTuning(n=3, mid=8)).backbone
    parts = [block.attn.mlp(block.attn.layer) for block in blocks(backbone)]
    mlp = blocks(backbone)[0].attn.mlp
    torch.testing.assert_close(torch.cat(parts, -1), mlp.fc2(torch.tanh(mlp.fc1(mlp.P))))
    for block, part in zip(blocks(backbone), parts, strict=True):
        assert part.shape == (3, 2 * block.norm1.normalized_shape[0])
        k, v = block.attn.keys_values()
        assert torch.equal(torch.cat([t[0].transpose(0, 1).flatten(1) for t in (k, v)], -1), part)


@BODIES
@pytest.mark.parametrize("beside", [False, True])
def test_kept_is_the_same_function_without_the_mlp(beside, new, tmp_path):
    method = PrefixTuning(n=3, mid=8)
    model, x = tune(new(), (method, LoRA()) if beside else method).eval(), torch.randn(2, 4, 32, 32)
    before, widths = model(x), [block.norm1.normalized_shape[0] for block in blocks(model.backbone)]
    added = count(tune(new(), LoRA())).inserted if beside else 0
    assert keep(model) is model
    torch.testing.assert_close(model(x), before)
    assert count(model).inserted == 3 * 2 * sum(widths) + added
    assert not any("mlp" in name for name in delta(model.backbone))
    model(x).sum().backward()
    assert all(p.grad is not None for p in delta(model).values())
    save(model, tmp_path / "kept.safetensors")
    directly = PrefixTuning(n=3, mid=None)
    again = tune(new(), (directly, LoRA()) if beside else directly, seed=1).eval()
    assert torch.equal(load(again, tmp_path / "kept.safetensors")(x), model(x))


@pytest.mark.parametrize("name, trained, kept", [("vit_b16", 9_857_024, 184_320), ("swin_t", None, 57_600)])
def test_counts_of_the_paper_sized_networks(name, trained, kept):
    with torch.device("meta"):
        backbone = load_backbone(name, weights=None)
        model = tune(backbone, PrefixTuning(n=10, mid=512))
        assert trained is None or count(model).inserted == trained
        assert count(keep(model)).inserted == kept


def test_only_a_prefix_with_an_mlp_can_be_kept(vit):
    for method in (LoRA(), PrefixTuning(mid=None)):
        with pytest.raises(ValueError, match="no prefix with an MLP"):
            keep(tune(copy.deepcopy(vit), method))


@pytest.mark.parametrize("wrong", [dict(n=0), dict(mid=0)])
def test_refuses_what_makes_no_sense(wrong, vit):
    with pytest.raises(ValueError, match="at least 1"):
        tune(copy.deepcopy(vit), PrefixTuning(**wrong))
