import copy

import pytest
import timm
import torch
from torch import nn

from labkit.methods import LoRA
from labkit.methods.select import BitFit, Scratch
from labkit.networks.anatomy import stage_inputs
from labkit.networks.decoders.swin_unet import SwinUNetDecoder
from labkit.networks.segmenter import Segmenter, segmenter
from labkit.tuning import count, delta, tune


def test_scratch_is_as_random_as_a_network_never_pretrained(fresh):
    """Every pretrained tensor is gone, and each has the spread that timm's own random start gives it."""
    pretrained, scratch = fresh().backbone.named_parameters(), tune(fresh(), Scratch()).backbone.parameters()
    random = segmenter(weights=None).backbone.parameters()
    for (name, old), new, fresh_start in zip(pretrained, scratch, random, strict=True):
        if fresh_start.std() > 0:
            assert not torch.equal(old, new), name
            torch.testing.assert_close(new.std(), fresh_start.std(), rtol=0.15, atol=0, msg=name)
        else:
            assert torch.equal(new, fresh_start), name


def test_scratch_depends_on_its_seed_alone(fresh):
    a, b, c = (tune(fresh(), Scratch(), seed).backbone.blocks[0].attn.qkv.weight for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_bitfit_trains_the_102_912_biases_of_a_vit_b16():
    with torch.device("meta"):
        vit = timm.create_model("vit_base_patch16_224", num_classes=0)
    BitFit().inject(vit.requires_grad_(False))
    assert sum(p.numel() for p in delta(vit).values()) == 102_912


def test_bitfit_moves_no_matrix(fresh):
    model = tune(fresh(), BitFit())
    assert {p.ndim for p in delta(model.backbone).values()} == {1} and count(model).inserted == 0


def test_softmax_ignores_the_biases_of_the_keys(fresh, volumes):
    model = tune(fresh(), BitFit())
    model(volumes).square().mean().backward()
    for block in model.backbone.blocks:
        q, k, v = block.attn.qkv.bias.grad.chunk(3)
        assert k.abs().max() < 1e-4 * min(q.abs().max(), v.abs().max())


@pytest.mark.parametrize("method", [Scratch(), (Scratch(), LoRA(r=2)), (LoRA(r=2), Scratch())], ids=str)
def test_scratch_forgets_the_copies_in_a_swin_unets_decoder_too(method, swin):
    backbone = copy.deepcopy(swin.backbone)
    for p in backbone.parameters():  # "pretrained": no number of it is one that a random start has
        nn.init.uniform_(p, 3, 4)
    model = Segmenter(backbone, SwinUNetDecoder(backbone, classes=3), maps=stage_inputs)
    before = [p.clone() for p in model.decoder.stages.parameters()]
    assert min(p.min() for p in before) >= 3
    model = tune(model, method)
    stages, encoder = model.decoder.stages, model.backbone.layers[0].blocks
    assert sum(int((a == b).sum()) for a, b in zip(stages.parameters(), before, strict=True)) == 0
    plain = dict(encoder.named_parameters())
    for name, p in stages[0].named_parameters():
        assert p.requires_grad and torch.equal(p, plain.get(name, p)), "they begin as copies, as ever"


def test_other_methods_leave_the_decoders_copies_as_they_are(swin):
    backbone = copy.deepcopy(swin.backbone)
    model = Segmenter(backbone, SwinUNetDecoder(backbone, classes=3), maps=stage_inputs)
    nn.init.ones_(model.decoder.stages[0][0].attn.qkv.weight)
    assert (tune(model, LoRA()).decoder.stages[0][0].attn.qkv.weight == 1).all()
