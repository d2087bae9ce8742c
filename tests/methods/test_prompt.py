import copy

import pytest
import torch
from torch import nn

from labkit.methods.prompt import (
    PromptedBlock,
    PromptedMerging,
    PromptedSwinBlock,
    PromptedWindows,
    PromptTuning,
)
from labkit.methods.vpt import VPTShallow
from labkit.networks.anatomy import blocks, features
from labkit.networks.backbones import load_backbone
from labkit.tuning import bypass, count, delta, tune

BODIES = pytest.mark.parametrize("body", ["vit", "swin"])


@pytest.fixture
def new(body, vit, swin):
    return lambda: copy.deepcopy({"vit": vit, "swin": swin}[body])


def test_a_vit_treats_prompts_as_register_tokens():
    """timm's own learnable tokens, in front of the first block and left out of the features."""
    from timm.models.vision_transformer import VisionTransformer

    settings = dict(
        img_size=32,
        patch_size=8,
        in_chans=4,
        num_classes=0,
        embed_dim=32,
        depth=4,
        num_heads=2,
        class_token=False,
    )
    settings |= dict(global_pool="")
    registers = VisionTransformer(reg_tokens=5, no_embed_class=True, **settings).eval()
    plain = VisionTransformer(**settings).eval()
    plain.load_state_dict({name: registers.state_dict()[name] for name in plain.state_dict()})
    prompted = tune(plain, PromptTuning(n=5))
    registers.reg_token.data[0] = prompted.blocks[0].prompts.data
    x = torch.randn(3, 4, 32, 32)
    ours, timms = features(prompted, x), features(registers, x)
    for mine, theirs in zip(ours, timms, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    for deepest in (ours[-1], timms[-1]):
        deepest.square().mean(0).max().backward()
    gradients = prompted.blocks[0].prompts.grad, registers.reg_token.grad[0]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def by_hand(block, E, P):
    """A Swin block with prompts, image by image, window by window: (H, W, d), (n, d) -> the same."""
    attention, (w, _), (s, _), n = block.attn, block.window_size, block.shift_size, len(P)
    H, W, d = E.shape
    mixed, of_prompts = torch.zeros_like(E), []
    for top in range(0, H, w):
        for left in range(0, W, w):
            at = [((i + s) % H, (j + s) % W) for i in range(top, top + w) for j in range(left, left + w)]
            wrapped = torch.tensor([(i < s and top > 0, j < s and left > 0) for i, j in at])
            apart = (wrapped[:, None] != wrapped[None]).any(-1)
            x = block.norm1(torch.cat([P, torch.stack([E[i, j] for i, j in at])]))
            heads = attention.qkv(x).unflatten(-1, (3, attention.num_heads, -1))
            q, k, v = heads.permute(1, 2, 0, 3)
            logits = q @ k.mT / q.shape[-1] ** 0.5
            logits[:, n:, n:] += attention._get_rel_pos_bias()[0] - 100 * apart
            out = attention.proj((logits.softmax(-1) @ v).transpose(0, 1).flatten(1))
            of_prompts.append(out[:n])
            for (i, j), row in zip(at, out[n:], strict=True):
                mixed[i, j] = row
    E, P = E + mixed, P + torch.stack(of_prompts).mean(0)
    return E + block.mlp(block.norm2(E)), P + block.mlp(block.norm2(P))


@pytest.mark.parametrize("number", [0, 1])
def test_a_swin_block_joins_prompts_to_each_window_and_averages_them(number, swin):
    """With prompts of its own for every image, as they are after a first block: no image sees another's."""
    block = copy.deepcopy(blocks(swin.backbone)[number]).eval()
    nn.init.normal_(block.attn.relative_position_bias_table)
    whole = copy.deepcopy(block)
    whole.attn = PromptedWindows(whole.attn)
    E, P = torch.randn(3, 8, 8, 32), torch.randn(3, 5, 32, requires_grad=True)
    E.prompts = P
    got = PromptedSwinBlock(whole)(E)
    for i in range(3):
        expected, prompts = by_hand(block, E[i], P[i])
        torch.testing.assert_close(got[i], expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(got.prompts[i], prompts, rtol=1e-4, atol=1e-4)
        gradients = [
            torch.autograd.grad(y.square().sum() + p.square().sum(), P, retain_graph=True)[0][i]
            for y, p in ((got[i], got.prompts[i]), (expected, prompts))
        ]
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3)


def test_a_prompt_merges_as_four_equal_patches_do(swin):
    merging = swin.backbone.layers[1].downsample
    x, P = torch.randn(2, 8, 8, 32), torch.randn(2, 1, 32)
    x.prompts = P
    y = PromptedMerging(merging)(x)
    torch.testing.assert_close(y.prompts, merging(P[:, :, None].expand(-1, 2, 2, -1)).flatten(1, 2))
    assert torch.equal(y, merging(x))


@BODIES
def test_prompts_travel_changed_by_every_block(new):
    model = tune(new(), PromptTuning(n=7)).eval()
    seen = []
    for block in blocks(model.backbone):
        block.register_forward_hook(lambda _m, _i, out: seen.append(out.prompts))
    model(torch.randn(2, 4, 32, 32))
    start = blocks(model.backbone)[0].prompts
    assert [len(p[0]) for p in seen] == [7] * 4
    for before, after in zip([start.expand(2, -1, -1), *seen[:1]], seen[:2], strict=True):
        assert (before != after).any(-1).all()
    assert not torch.equal(seen[-1][0], seen[-1][1]), "each image changes its own"
    assert count(model).inserted == 7 * 32


@BODIES
def test_several_batches_may_be_under_way_with_checkpoints(new):
    gradients, (a, b) = [], torch.randn(2, 2, 4, 32, 32)
    for checkpointing in (False, True):
        model = tune(new(), PromptTuning())
        model.backbone.set_grad_checkpointing(checkpointing)
        (model(a).square().mean() + model(b).square().mean()).backward()
        gradients.append(blocks(model.backbone)[0].prompts.grad)
        copy.deepcopy(model)  # nothing of a batch stays behind in the modules
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)


@BODIES
def test_differs_from_shallow_vpt_in_the_start_alone(new):
    x = torch.randn(2, 4, 32, 32)
    one, other = tune(new(), PromptTuning()).eval(), tune(new(), VPTShallow()).eval()
    assert delta(one).keys() == delta(other).keys()
    mine, theirs = (blocks(m.backbone)[0].prompts for m in (one, other))
    assert 0.4 < mine.abs().max() <= 0.5
    theirs.data = mine.data
    assert torch.equal(one(x), other(x))


@BODIES
def test_a_block_on_its_own_misses_the_prompts_of_the_one_before(new):
    backbone = tune(new(), PromptTuning()).backbone
    x = torch.randn(2, 16, 32) if hasattr(backbone, "blocks") else torch.randn(2, 8, 8, 32)
    with pytest.raises(ValueError, match="block before it"):
        blocks(backbone)[1](x)


@BODIES
def test_bypassed_blocks_are_plain(new):
    model = tune(new(), PromptTuning())
    with bypass(model):
        kinds = {type(m) for m in model.modules()}
    assert not kinds & {PromptedBlock, PromptedWindows, PromptedSwinBlock, PromptedMerging}


@pytest.mark.parametrize("name, parameters", [("vit_b16", 7_680), ("swin_t", 960)])
def test_ten_prompts_of_the_paper_sized_networks(name, parameters):
    with torch.device("meta"):
        backbone = load_backbone(name, weights=None)
    assert count(tune(backbone, PromptTuning(n=10))).inserted == parameters


def test_refuses_no_prompts(vit):
    with pytest.raises(ValueError, match="at least 1"):
        tune(copy.deepcopy(vit), PromptTuning(n=0))
