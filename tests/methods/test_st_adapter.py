import copy

import pytest
import torch

from labkit.methods import STAdapter
from labkit.methods.st_adapter import AlongSlices
from labkit.tuning import delta, tune


def awake(layer):
    torch.manual_seed(1)
    for p in layer.parameters():
        p.data = 0.3 * torch.randn_like(p)
    return layer


def test_is_one_low_rank_map_per_neighbour():
    """y_s = x_s + sum_j U diag(w_j) D x_(s+j), and nothing beyond the ends."""
    layer, x = awake(AlongSlices(6, 4, 3)), torch.randn(2, 5, 2, 3, 6)
    for linear in (layer.W_down, layer.conv, layer.W_up):
        linear.bias.data.zero_()
    D, U, w = layer.W_down.weight, layer.W_up.weight, layer.conv.weight.view(4, 3)
    y = x.clone()
    for s in range(5):
        for j in (-1, 0, 1):
            if 0 <= s + j < 5:
                y[:, s] += x[:, s + j] @ (U @ torch.diag(w[:, j + 1]) @ D).T
    torch.testing.assert_close(layer(x), y)


@pytest.mark.parametrize("k, reach", [(1, 0), (3, 4), (5, 8)])
def test_four_blocks_reach_four_times_as_far_as_one(k, reach, vit):
    model = tune(copy.deepcopy(vit), STAdapter(k=k)).eval()
    for block in model.backbone.blocks:
        awake(block.adapter)
    x = torch.randn(1, 12, 4, 32, 32)
    other = x.clone()
    other[:, 0] = torch.randn_like(other[:, 0])
    changed = (model(x) != model(other)).flatten(2).any(-1)[0]
    assert changed.tolist() == [s <= reach for s in range(12)]


def test_half_the_width_of_each_block_is_the_default(swin):
    model = tune(copy.deepcopy(swin), STAdapter())
    widths = [stage.blocks[0].adapter.W_down.out_features for stage in model.backbone.layers]
    assert widths == [16, 32]
    narrow = tune(copy.deepcopy(swin), STAdapter(m=4))
    assert {m.out_features for n, m in narrow.named_modules() if n.endswith("W_down")} == {4}


def test_the_up_projection_learns_first_and_then_everything(vit):
    model, x = tune(copy.deepcopy(vit), STAdapter()), torch.randn(1, 3, 4, 32, 32)
    optimizer = torch.optim.Adam(delta(model).values())
    learning = []
    for _ in range(2):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        parts = {n.split("adapter.")[1] for n, p in delta(model).items() if "adapter" in n and p.grad.any()}
        learning.append(sorted({part.split(".")[0] for part in parts}))
        optimizer.step()
    assert learning == [["W_up"], ["W_down", "W_up", "conv"]]


@pytest.mark.parametrize("settings", [dict(k=2), dict(k=0), dict(m=0)])
def test_refuses_a_kernel_without_a_middle_and_an_empty_bottleneck(settings, vit):
    with pytest.raises(ValueError, match="is odd; m is at least 1"):
        tune(copy.deepcopy(vit), STAdapter(**settings))
