import copy

import torch
import torch.nn.functional as F

from labkit.methods import ProTuning
from labkit.methods.pro_tuning import PromptBlock
from labkit.networks.anatomy import stage_ends
from labkit.tuning import tune, wrappers


def test_a_block_follows_each_stage(vit, swin):
    for model, ends in (
        (vit, ["blocks.0", "blocks.1", "blocks.2", "blocks.3"]),
        (swin, ["layers.0.blocks.1", "layers.1.blocks.1"]),
    ):
        tuned = tune(copy.deepcopy(model), ProTuning())
        assert stage_ends(model.backbone) == ends
        assert sorted(name for name, _ in wrappers(tuned)) == [f"backbone.{end}" for end in ends]


def test_is_three_convolutions_in_the_plane():
    block, x = PromptBlock(3), torch.randn(1, 2, 6, 7, 3)
    torch.nn.init.normal_(block.W_2.weight)
    y = x[0].movedim(-1, 1)
    y = torch.einsum("oi,nihw->nohw", block.W_1.weight[:, :, 0, 0], y) + block.W_1.bias[:, None, None]
    padded, out = F.pad(y, (2, 2, 2, 2)), block.DW.bias[:, None, None].expand(2, 3, 6, 7).clone()
    for i in range(5):
        for j in range(5):
            out += block.DW.weight[:, 0, i, j, None, None] * padded[:, :, i : i + 6, j : j + 7]
    out = F.gelu(out)
    y = torch.einsum("oi,nihw->nohw", block.W_2.weight[:, :, 0, 0], out) + block.W_2.bias[:, None, None]
    torch.testing.assert_close(block(x)[0], x[0] + y.movedim(1, -1))


def test_slices_stay_apart():
    block, x = PromptBlock(3), torch.randn(1, 2, 6, 7, 3)
    torch.nn.init.normal_(block.W_2.weight)
    other = x.clone()
    other[:, 0] += 1
    assert torch.equal(block(x)[:, 1], block(other)[:, 1])
