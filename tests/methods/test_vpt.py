import math

import pytest
import torch

from labkit.methods.vpt import Prompted, VPTDeep
from labkit.tuning import tune


def test_no_prompt_reaches_the_next_block(fresh, volumes):
    model = tune(fresh(), VPTDeep(n=7))
    lengths = []
    for block in model.backbone.blocks:
        block.register_forward_hook(lambda _m, _i, out: lengths.append(out.shape[1]))
    model(volumes)
    assert lengths == [144] * 4


def test_prompts_act_only_through_attention(fresh):
    """Beside other tokens a prompt is one more key and value: it is attention over [P, E], read at E."""
    block = fresh().backbone.blocks[0].eval()
    prompted, x = Prompted(block, 5, 384, bound=0.5), torch.randn(2, 144, 384)
    E, P = block.norm1(x), block.norm1(prompted.prompts.expand(2, -1, -1))

    def heads(tokens):
        qkv = block.attn.qkv(tokens).unflatten(-1, (3, 6, 64))
        return qkv.movedim(-3, 0).transpose(-3, -2)  # (3, B, h, N, 64)

    (q, k, v), (_, pk, pv) = heads(E), heads(P)
    mixed = torch.softmax(q @ torch.cat([pk, k], -2).mT / math.sqrt(64), -1) @ torch.cat([pv, v], -2)
    y = x + block.attn.proj(mixed.transpose(1, 2).flatten(2))
    torch.testing.assert_close(prompted(x), y + block.mlp(block.norm2(y)), rtol=1e-4, atol=1e-4)


def test_refuses_no_prompts(fresh):
    with pytest.raises(ValueError, match="at least 1 prompt"):
        tune(fresh(), VPTDeep(n=0))
