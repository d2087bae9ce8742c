"""An update read at a rank is what the equation says, whatever it was made by."""

import copy

import pytest
import torch
from torch import nn

from labkit.methods import DyLoRA, FacTTT, LNLoRA, LoRA
from labkit.methods.dylora import truncate
from labkit.networks.anatomy import LINEARS
from labkit.tuning import delta, tune
from labkit.updates.low_rank import (
    Factors,
    Ranked,
    difference,
    load_update,
    of_lora,
    ordered,
    save_update,
    spectrum,
)


@pytest.fixture
def x():
    return torch.randn(2, 4, 32, 32)


def moved(model, std=0.05):
    for p in delta(model).values():
        nn.init.normal_(p, std=std)
    return model.eval()


@pytest.fixture
def lora(vit):
    return moved(tune(copy.deepcopy(vit), LoRA(r=3, alpha=6, targets=tuple(LINEARS))))


def test_at_full_rank_a_lora_update_is_the_tuned_network(vit, lora, x):
    ranked = Ranked(copy.deepcopy(vit), of_lora(lora))
    torch.testing.assert_close(ranked.at(3)(x), lora(x), rtol=1e-3, atol=1e-4)


def test_at_rank_0_it_is_the_pretrained_backbone_with_the_trained_head(vit, lora, x):
    ranked = Ranked(copy.deepcopy(vit), of_lora(lora))
    ranked.at(3)
    bare = copy.deepcopy(vit).eval()
    for part in ("decoder", "backbone.norm"):
        bare.get_submodule(part).load_state_dict(lora.get_submodule(part).state_dict())
    torch.testing.assert_close(ranked.at(0)(x), bare(x))


def test_a_rank_between_uses_the_first_terms_and_only_the_layers_asked_for(vit, lora):
    ranked = Ranked(copy.deepcopy(vit), of_lora(lora))
    block = ranked.at(2, layers=("v", "fc2")).backbone.blocks[1]
    theirs, frozen = lora.backbone.blocks[1], vit.backbone.blocks[1]
    q, k, v = (block.attn.qkv.weight - frozen.attn.qkv.weight).chunk(3)
    assert not q.any() and not k.any()
    layer = theirs.attn.qkv
    torch.testing.assert_close(v, 2 * layer.B[2, :, :2] @ layer.A[2, :2], rtol=1e-4, atol=1e-6)
    assert torch.linalg.matrix_rank(block.mlp.fc2.weight - frozen.mlp.fc2.weight, rtol=1e-4) == 2


def test_ordering_changes_the_terms_and_not_their_sum(lora):
    update = of_lora(lora)
    again = ordered(update)
    for name, one in update.factors.items():
        torch.testing.assert_close(again.factors[name].at(3), one.at(3), rtol=1e-3, atol=1e-5)
        sizes = again.factors[name].B.norm(dim=0)
        torch.testing.assert_close(sizes, torch.linalg.svdvals(one.at(3))[:3], rtol=1e-3, atol=1e-6)


def test_a_dylora_with_another_scale_at_every_rank_is_refused_until_it_is_cut(vit, x):
    model = moved(tune(copy.deepcopy(vit), DyLoRA(r=3, rescale=True)))
    with pytest.raises(ValueError, match=r"rescale=False.*truncate"):
        of_lora(model)
    ranked = Ranked(copy.deepcopy(vit), of_lora(truncate(model, 2)))
    torch.testing.assert_close(ranked.at(2)(x), model(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", [FacTTT(r=2), LNLoRA(r=2)])
def test_a_layer_with_parts_that_is_no_lora_has_no_factors(vit, method):
    assert not of_lora(tune(copy.deepcopy(vit), method)).factors


def test_the_spectrum_is_that_of_the_whole_product():
    one = Factors(torch.randn(40, 5), torch.randn(5, 30))
    torch.testing.assert_close(spectrum(one), torch.linalg.svdvals(one.at(5))[:5], rtol=1e-4, atol=1e-4)


def test_full_tunings_change_cut_to_its_full_rank_is_full_tuning(vit, x):
    tuned = copy.deepcopy(vit).eval()
    for p in tuned.parameters():
        p.data += 0.02 * torch.randn_like(p)
    ranked = Ranked(copy.deepcopy(vit), difference(tuned, vit, rank=32))
    torch.testing.assert_close(ranked.at(32)(x), tuned(x), rtol=1e-2, atol=1e-3)
    before = (ranked.at(4)(x) - tuned(x)).norm()
    assert (ranked.at(24)(x) - tuned(x)).norm() < before


def test_an_update_comes_back_from_its_file(lora, tmp_path):
    update = of_lora(lora)
    save_update(update, tmp_path / "u.safetensors", "a test")
    again = load_update(tmp_path / "u.safetensors")
    assert again.factors.keys() == update.factors.keys() and again.rest.keys() == update.rest.keys()
    for name, one in update.factors.items():
        torch.testing.assert_close(again.factors[name].at(3), one.at(3), rtol=1e-2, atol=1e-3)
