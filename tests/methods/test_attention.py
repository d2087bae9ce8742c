import copy
from dataclasses import dataclass
from typing import ClassVar

import pytest
import timm
import torch
from torch import nn

from labkit.methods import BitFit, LongLoRA, LoRA, PrefixTuning, PromptTuning, VPTDeep, VPTShallow
from labkit.methods.attention import attention_to_prompts, innermost
from labkit.methods.prefix import FreePrefix
from labkit.networks.anatomy import block_paths, blocks, swap
from labkit.tuning import bypass, count, delta, tune

BODIES = pytest.mark.parametrize("body", ["vit", "swin"])
PROMPTS = pytest.mark.parametrize("method", [PromptTuning(), VPTShallow(), VPTDeep(), PrefixTuning(mid=8)])


@pytest.fixture
def new(body, vit, swin):
    return lambda: copy.deepcopy({"vit": vit, "swin": swin}[body])


def tokens(backbone, size=2):
    """What the first block gets."""
    x = backbone.patch_embed(torch.randn(size, 4, 32, 32))
    return backbone._pos_embed(x) if hasattr(backbone, "blocks") else x


def prefixed(attention, n):
    return FreePrefix(attention, 0, P=nn.Parameter(torch.randn(n, 2 * attention.proj.out_features)))


@BODIES
def test_no_prefix_is_the_pretrained_network(new):
    before, after, x = new().eval(), new().eval(), torch.randn(2, 4, 32, 32)
    for path in block_paths(after.backbone):
        swap(after.backbone, f"{path}.attn", lambda attention: prefixed(attention, 0))
    torch.testing.assert_close(after(x), before(x), rtol=1e-5, atol=1e-5)


@BODIES
def test_is_softmax_over_prefix_and_tokens(new, body):
    block = blocks(new().backbone)[1]  # of a Swin, one with shifted windows
    heads, d_h, n = 2, 16, 5
    x = torch.randn(8, 16, 32)  # of a Swin, four windows of two images
    wide = prefixed(block.attn, n).eval()
    P_k, P_v = (p.unflatten(-1, (heads, d_h)).transpose(0, 1) for p in wide.P.chunk(2, -1))
    for i in range(len(x)):
        q, k, v = (t.unflatten(-1, (heads, d_h)).transpose(0, 1) for t in block.attn.qkv(x[i]).chunk(3, -1))
        own = q @ k.mT / d_h**0.5
        if body == "swin":
            own = own + block.attn._get_rel_pos_bias()[0] + block.attn_mask[i % 4]
        share = torch.cat([q @ P_k.mT / d_h**0.5, own], -1).softmax(-1)
        mixed = share[..., :n] @ P_v + share[..., n:] @ v
        expected = block.attn.proj(mixed.transpose(0, 1).flatten(1))
        kwargs = dict(mask=block.attn_mask) if body == "swin" else {}
        torch.testing.assert_close(wide(x, **kwargs)[i], expected, rtol=1e-4, atol=1e-5)


@BODIES
@pytest.mark.parametrize("number", [0, 1])
def test_share_of_a_prompt_is_what_its_value_weighs(number, new):
    """With W_o = 1 and no MLP, a value that grows by 1 moves each token by the share it pays."""
    backbone, n, d, d_h = new().backbone.eval(), 3, 32, 16
    block = blocks(backbone)[number]
    block.attn = prefixed(block.attn, n)
    nn.init.eye_(block.attn.original.proj.weight)
    nn.init.zeros_(block.mlp.fc2.weight)
    x = tokens(backbone)
    shares, before = attention_to_prompts(block, x), block(x)
    assert shares.shape == (2, 2, x[0].numel() // d, n)
    for head in range(2):
        for j in range(n):
            after = copy.deepcopy(block)
            after.attn.P.data[j, d + head * d_h] += 1
            moved = (after(x) - before).reshape(2, -1, d)[..., head * d_h]
            torch.testing.assert_close(shares[:, head, :, j], moved, rtol=1e-4, atol=1e-5)


@BODIES
@PROMPTS
def test_shares_are_seen_in_every_block(method, new):
    backbone = tune(new(), method).backbone.eval()
    x = tokens(backbone)
    stages = [backbone.blocks] if hasattr(backbone, "blocks") else backbone.layers
    for stage in stages:
        x = getattr(stage, "downsample", nn.Identity())(x)
        for block in getattr(stage, "blocks", stage):
            shares = attention_to_prompts(block, x)
            heads = innermost(innermost(block).attn).num_heads
            assert shares.shape == (2, heads, x[0].numel() // x.shape[-1], 10)
            assert (shares > 0).all() and (shares.sum(-1) < 1).all()
            x = block(x)


@BODIES
def test_a_block_without_prompts_is_refused(new):
    backbone = new().backbone
    with pytest.raises(ValueError, match="sees no prompts"):
        attention_to_prompts(blocks(backbone)[0], tokens(backbone))


@BODIES
@PROMPTS
def test_learns_beside_biases_and_lora_and_leaves_again(method, new):
    x = torch.randn(2, 3, 4, 32, 32)
    model = tune(new(), (BitFit(), LoRA(), method))
    alone = [count(tune(new(), m)).inserted for m in (LoRA(), method)]
    assert count(model).inserted == sum(alone)
    loss = model(x).square().mean()
    loss.backward()
    assert all(p.grad is not None for p in delta(model).values())
    torch.optim.Adam(delta(model).values(), 1e-2).step()
    assert not torch.equal(model(x).square().mean(), loss)


class Doubled(nn.Module):
    def __init__(self, original):
        super().__init__()
        self.original = original

    def forward(self, x, **kwargs):
        return 2 * self.original(x, **kwargs)


@dataclass(frozen=True)
class Doubling:
    """A method that wraps all attentions and all blocks."""

    family: ClassVar[str] = "add"

    def inject(self, backbone):
        for path in block_paths(backbone):
            swap(backbone, f"{path}.attn", Doubled)
            swap(backbone, path, Doubled)


@BODIES
@PROMPTS
def test_finds_its_place_inside_what_was_added_before(method, new):
    x = torch.randn(2, 4, 32, 32)
    model, plain = tune(new(), (method, Doubling())).eval(), new().eval()
    only = tune(new(), Doubling()).eval()
    assert not torch.allclose(model(x), only(x), rtol=1e-3)
    with bypass(model):
        assert torch.equal(model(x), plain(x))
    assert count(model).inserted == count(tune(new(), method)).inserted


@BODIES
def test_two_prefixes_on_one_attention_are_refused(new):
    with pytest.raises(ValueError, match="choose one"):
        tune(new(), (VPTDeep(), PrefixTuning()))


SMALL = dict(img_size=32, patch_size=8, in_chans=4, num_classes=0, embed_dim=32, depth=4, num_heads=2)
WRONG = [  # what these methods would compute is not what the backbone computes
    ("vit_tiny_patch16_224", SMALL | dict(qk_norm=True), "q_norm, k_norm"),
    ("vit_tiny_patch16_224", SMALL | dict(scale_attn_norm=True), "Attention of a Block with norm"),
    (
        "swinv2_tiny_window8_256",
        dict(img_size=64, window_size=4, depths=(1, 1, 1, 1)),
        "SwinTransformerV2Block",
    ),
    ("cait_xxs24_224", dict(depth=2), "TalkingHeadAttn"),
    ("beit_base_patch16_224", dict(embed_dim=32, depth=2, num_heads=2), "Beit|BEiT|of a Block"),
    ("eva02_tiny_patch14_224", dict(depth=2), "EvaAttention|EvaBlock"),
]


@pytest.mark.parametrize("name, settings, said", WRONG, ids=[f"{w[0]}-{w[2]}" for w in WRONG])
@pytest.mark.parametrize("method", [VPTDeep(n=3), PrefixTuning(n=3)], ids=lambda m: type(m).__name__)
def test_an_attention_that_would_be_computed_wrongly_is_refused_when_tuning(name, settings, said, method):
    backbone = timm.create_model(name, **settings)
    before = {n: type(m) for n, m in backbone.named_modules()}
    with pytest.raises(ValueError, match=rf"({said}).* would be computed wrongly .*choose another backbone"):
        tune(backbone, method)
    assert {n: type(m) for n, m in backbone.named_modules()} == before


@pytest.mark.parametrize("method", [PromptTuning(n=3), VPTShallow(n=3)], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("name, settings, said", WRONG[2:], ids=[w[0] for w in WRONG[2:]])
def test_prompts_that_travel_refuse_windows_and_positions_they_do_not_know(name, settings, said, method):
    with pytest.raises(ValueError, match="would be computed wrongly"):
        tune(timm.create_model(name, **settings), method)


@pytest.mark.parametrize("norms", ["qk_norm", "scale_attn_norm"])
def test_prompts_that_travel_let_a_vit_compute_its_own_norms(norms):
    backbone = timm.create_model("vit_tiny_patch16_224", **SMALL, **{norms: True}).eval()
    for p in backbone.parameters():
        nn.init.normal_(p, std=0.3)
    plain = copy.deepcopy(backbone.blocks[0])
    block, x = tune(backbone, PromptTuning(n=3)).blocks[0], torch.randn(2, 17, 32)
    expected = plain(torch.cat([block.prompts.expand(2, -1, -1), x], 1))[:, 3:]
    torch.testing.assert_close(block(x), expected)


def test_long_lora_refuses_a_gate():
    backbone = timm.create_model("vit_tiny_patch16_224", **SMALL)
    backbone.blocks[1].attn.gate = nn.Linear(32, 32)
    with pytest.raises(ValueError, match="with gate would be computed wrongly"):
        tune(backbone, LongLoRA())
