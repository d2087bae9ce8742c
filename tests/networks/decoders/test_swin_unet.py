import copy

import pytest
import torch

from labkit.methods import LoRA, MedTuning
from labkit.networks.anatomy import stage_inputs
from labkit.networks.decoders.swin_unet import PatchExpand, SwinUNetDecoder
from labkit.networks.segmenter import Segmenter
from labkit.tuning import tune


@pytest.fixture(scope="module")
def network():
    """Four small stages on 32 x 32 tokens of 4 pixels, as the paper's."""
    from timm.models.swin_transformer import SwinTransformer

    torch.manual_seed(0)
    backbone = SwinTransformer(
        img_size=64,
        patch_size=2,
        in_chans=4,
        num_classes=0,
        global_pool="",
        embed_dim=8,
        depths=(2, 2, 2, 2),
        num_heads=(1, 2, 4, 8),
        window_size=4,
        drop_path_rate=0.0,
    )
    return Segmenter(backbone, SwinUNetDecoder(backbone, 3), maps=stage_inputs)


def test_expanding_lays_each_tokens_parts_out_as_a_square():
    layer = PatchExpand(4, 1, 2)
    layer.expand.weight.data, layer.norm = torch.eye(4), torch.nn.Identity()
    x = torch.arange(8.0).view(1, 1, 2, 4)  # two tokens beside each other
    assert layer(x)[0, ..., 0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]


def test_slices_become_logits_at_their_own_resolution(network):
    maps = stage_inputs(network.backbone, torch.randn(2, 4, 64, 64))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (8, 32, 32),
        (16, 16, 16),
        (32, 8, 8),
        (64, 4, 4),
        (64, 4, 4),
    ]
    assert network.decoder(maps).shape == (2, 3, 64, 64)
    assert network(torch.randn(1, 2, 4, 64, 64)).shape == (1, 2, 3, 64, 64)


def test_each_stage_starts_as_the_encoders_of_its_size(network):
    for stage, like in zip(
        network.decoder.stages, [network.backbone.layers[i] for i in (2, 1, 0)], strict=True
    ):
        mine, theirs = stage.state_dict(), like.blocks.state_dict()
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[n], theirs[n]) for n in mine)
    ids = {id(p) for p in network.backbone.parameters()}
    assert not any(id(p) in ids for p in network.decoder.parameters())


def test_each_stage_is_joined_with_what_the_encoders_began_from(network):
    """What was expanded comes first, then the skip; the start of the deepest stage is not read."""
    joined = []
    model = copy.deepcopy(network)
    for join in model.decoder.join:
        join.register_forward_hook(lambda _m, args, _out: joined.append(args[0]))
    maps = stage_inputs(model.backbone, torch.randn(1, 4, 64, 64))
    model.decoder(maps)
    for both, skip in zip(joined, (maps[2], maps[1], maps[0]), strict=True):
        assert torch.equal(both.chunk(2, -1)[1], skip.movedim(1, -1))
    unread = [*maps[:3], torch.full_like(maps[3], torch.nan), maps[4]]
    assert torch.equal(model.decoder(unread), model.decoder(maps))


def test_every_parameter_learns(network):
    model = tune(copy.deepcopy(network), (LoRA(), MedTuning()))
    model(torch.randn(1, 2, 4, 64, 64)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.decoder.parameters())
    assert model.backbone.norm.weight.grad.abs().sum() > 0


def test_checkpointing_reaches_the_encoder(network):
    model, x, found = tune(copy.deepcopy(network), MedTuning()), torch.randn(1, 2, 4, 64, 64), []
    for name, p in model.named_parameters():
        if name.endswith("W_up.weight"):
            torch.nn.init.normal_(p, std=0.1)
    for checkpointing in (False, True):
        model.zero_grad()
        model.backbone.set_grad_checkpointing(checkpointing)
        calls = []
        hook = model.backbone.layers[0].blocks[0].register_forward_pre_hook(lambda *_, c=calls: c.append(1))
        model(x).square().mean().backward()
        hook.remove()
        assert len(calls) == 1 + checkpointing
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(again, plain, rtol=1e-4, atol=1e-6)
