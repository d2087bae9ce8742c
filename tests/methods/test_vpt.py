import copy

import pytest
import torch
from torch import nn

from labkit.methods.prefix import FreePrefix
from labkit.methods.vpt import TokenPrefix, VPTDeep, VPTShallow
from labkit.networks.anatomy import blocks
from labkit.networks.backbones import load_backbone
from labkit.tuning import count, tune


def prompted(block, x, P):
    """The paper's words: put prompts in front, run the block, throw away what it computes for them."""
    return block(torch.cat([P.expand(len(x), -1, -1), x], 1))[:, len(P) :]


def as_prefix(block, P):
    """The keys and values that prompts become: (n, 2d)."""
    return block.attn.qkv(block.norm1(P)).chunk(3, -1)[1:]


def test_deep_prompts_stand_before_a_block_and_leave_after_it(fresh):
    model, x = fresh().eval(), torch.randn(2, 144, 384)
    plain = copy.deepcopy(model)
    tune(model, VPTDeep(n=7))
    for block, untouched in zip(blocks(model.backbone), blocks(plain.backbone), strict=True):
        expected = prompted(untouched, x, block.attn.prompts)
        torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-5)


def test_deep_prompts_are_a_prefix_tied_to_the_block(fresh):
    model = tune(fresh(), VPTDeep(n=7)).eval()
    free = copy.deepcopy(model)
    for block in blocks(free.backbone):
        tied = block.attn
        block.attn = tied.original
        P = nn.Parameter(torch.cat(as_prefix(block, tied.prompts), -1))
        block.attn = FreePrefix(block.attn, 0, P=P)
    x = torch.randn(2, 4, 96, 96)
    torch.testing.assert_close(free(x), model(x), rtol=1e-5, atol=1e-5)


def test_on_a_swin_a_prompt_is_one_more_token_of_every_window(swin):
    """In one window that is the whole map: attention of PyTorch over prompts and patches."""
    block = copy.deepcopy(blocks(swin.backbone)[2]).eval()  # 4 x 4 patches, one window
    nn.init.zeros_(block.attn.relative_position_bias_table)
    wide = TokenPrefix(block.attn, block.norm1, n=9, d=64, bound=0.5)
    x = torch.randn(2, 16, 64)
    P = block.norm1(wide.prompts)
    q, k, v = block.attn.qkv(torch.cat([P.expand(2, -1, -1), x], 1)).chunk(3, -1)
    mixed = torch.nn.MultiheadAttention(64, 4, bias=False, batch_first=True)
    mixed.in_proj_weight.data = torch.eye(64).repeat(3, 1)
    mixed.out_proj.weight.data = torch.eye(64)
    expected = block.attn.proj(mixed(q, k, v, need_weights=False)[0][:, 9:])
    torch.testing.assert_close(wide(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("swap", ["order", "scale"])
def test_neither_the_place_nor_the_length_of_deep_prompts_matters(swap, fresh):
    model, x = tune(fresh(), VPTDeep()).eval(), torch.randn(2, 4, 96, 96)
    before = model(x)
    for block in blocks(model.backbone):
        P = block.attn.prompts.data
        block.attn.prompts.data = P.flip(0) if swap == "order" else 10 * P
    torch.testing.assert_close(model(x), before, rtol=1e-3, atol=1e-3)


def test_starts_within_the_bound_of_its_paper(fresh):
    for method in (VPTDeep(n=50), VPTShallow(n=50)):
        model = tune(fresh(), method)
        (P, *_) = [p for name, p in model.named_parameters() if name.endswith("prompts")]
        bound = (6 / (3 * 8 * 8 + 384)) ** 0.5
        assert 0.99 * bound < P.abs().max() <= bound


@pytest.mark.parametrize(
    "method, name, parameters",
    [
        (VPTShallow(), "vit_b16", 7_680),
        (VPTShallow(), "swin_t", 960),
        (VPTDeep(), "vit_b16", 92_160),
        (VPTDeep(), "swin_t", 28_800),
    ],
)
def test_ten_prompts_of_the_paper_sized_networks(method, name, parameters):
    with torch.device("meta"):
        backbone = load_backbone(name, weights=None)
        assert count(tune(backbone, method)).inserted == parameters


@pytest.mark.parametrize("method", [VPTDeep(n=0), VPTShallow(n=0)])
def test_refuses_no_prompts(method, fresh):
    with pytest.raises(ValueError, match="at least 1"):
        tune(fresh(), method)
