import torch

from labkit.methods.select import Scratch
from labkit.segmenter import segmenter
from labkit.tuning import tune


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
    a, b, c = (tune(fresh(), Scratch(seed)).backbone.blocks[0].attn.qkv.weight for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)
