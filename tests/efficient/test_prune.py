import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune as torch_prune

from labkit.efficient import prune
from labkit.efficient.counting import macs, matrices
from labkit.methods import LoRA
from labkit.tuning import merge, numel, tune


def test_the_smallest_magnitudes_go():
    w = torch.tensor([-3, 1, 2.2, -0.5, 2.5, 0.1])
    assert prune.magnitude_mask(w, 2 / 3).tolist() == [True, False, False, False, True, False]


def test_the_count_is_exact_with_ties():
    assert (~prune.magnitude_mask(torch.ones(100), 0.3)).sum() == 30


@pytest.mark.parametrize("sparsity", [0, 0.1, 0.45, 0.8, 0.99, 1])
def test_a_mask_is_the_comparison_of_ranks(sparsity):
    w = torch.randint(-4, 5, (20, 30)).float()  # each magnitude many times
    assert torch.equal(prune.magnitude_mask(w, sparsity), prune.ranks(w) >= round(sparsity * 600))


@pytest.mark.parametrize(("sparsity", "kept"), [(0.0, 100), (1.0, 0)])
def test_none_and_all_can_go(sparsity, kept):
    assert prune.magnitude_mask(torch.randn(100), sparsity).sum() == kept


@pytest.mark.parametrize("sparsity", [-0.1, 70, float("nan")])
def test_a_sparsity_that_is_no_share_is_refused(sparsity):
    with pytest.raises(ValueError, match="between 0 and 1"):
        prune.magnitude_mask(torch.ones(4), sparsity)


def test_prunes_what_pytorch_prunes_once_and_again():
    layer = nn.Linear(10, 7)
    w = layer.weight.detach().clone()
    for amount, zeros in ((0.3, 21), (0.5, 45)):  # the second half is of the 49 that remain
        torch_prune.l1_unstructured(layer, "weight", amount)
        assert (layer.weight == 0).sum() == zeros
        torch.testing.assert_close(prune.magnitude_mask(w, zeros / 70), layer.weight_mask.bool())


def test_a_masked_model_can_be_copied_unlike_pytorchs():
    layer = nn.Linear(10, 7)
    copy.deepcopy(prune.mask(layer, prune.per_layer(matrices(layer), 0.3)))
    torch_prune.l1_unstructured(layer, "weight", 0.3)
    with pytest.raises(RuntimeError):
        copy.deepcopy(layer)


def test_layers_share_the_loss_only_if_asked_to():
    weights = {"large": 100 + torch.rand(10, 10), "small": torch.rand(10, 10)}
    together, each = prune.globally(weights, 0.5), prune.per_layer(weights, 0.5)
    assert [m.sum().item() for m in together.values()] == [100, 0]
    assert [m.sum().item() for m in each.values()] == [50, 50]


def test_zeros_stay_through_training_only_while_held():
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8))
    masks = prune.globally(matrices(model), 0.5)
    prune.mask(model, masks)
    optimizer = torch.optim.AdamW(model.parameters())
    zeros = lambda: sum((w == 0).sum().item() for w in matrices(model).values())  # noqa: E731

    def step():
        F.mse_loss(model(torch.randn(16, 8)), torch.randn(16, 8)).backward()
        optimizer.step()

    held = prune.hold(optimizer, model, masks)
    step()
    step()
    assert zeros() == 64
    held.remove()
    step()
    assert zeros() == 0


@pytest.mark.parametrize("bias", [True, False])
def test_fewer_units_are_the_same_function_as_zeroed_ones(bias):
    fc1, fc2, x = nn.Linear(6, 10, bias), nn.Linear(10, 6, bias), torch.randn(5, 6)
    keep = torch.tensor([1, 0, 1, 1, 0, 0, 1, 0, 1, 0]).bool()
    few1, few2 = prune.drop_units(fc1, fc2, keep)
    with torch.no_grad():
        fc2.weight[:, ~keep] = 0
    torch.testing.assert_close(few2(F.gelu(few1(x))), fc2(F.gelu(fc1(x))))
    assert repr(few1) == repr(nn.Linear(6, 5, bias)) and repr(few2) == repr(nn.Linear(5, 6, bias))


def test_layers_that_do_not_follow_each_other_are_refused():
    with pytest.raises(ValueError, match="follow each other"):
        prune.drop_units(nn.Linear(6, 10), nn.Linear(6, 10), torch.arange(3))


def test_a_units_score_does_not_change_when_its_layers_trade_a_factor():
    fc1, fc2 = nn.Linear(6, 10), nn.Linear(10, 6)
    before = prune.unit_scores(fc1, fc2)
    with torch.no_grad():
        fc1.weight[3] *= 5
        fc2.weight[:, 3] /= 5
    torch.testing.assert_close(prune.unit_scores(fc1, fc2), before)


def test_half_of_the_units_of_the_laptops_network(fresh):
    """A unit is 2 d + 1 parameters and 2 d N multiply-adds: 4 blocks x 480 units, d = 384, N = 144."""
    model = fresh()
    before, work = numel(model.parameters()), macs(model, 1, 4, 96, 96)
    prune.drop_mlp_units(model, 0.5)
    assert (before, numel(model.parameters())) == (5_949_248, 4_472_768)
    assert work == 1_061_683_200 and work - macs(model, 1, 4, 96, 96) == 4 * 480 * 2 * 384 * 144
    assert model(torch.randn(1, 1, 4, 96, 96)).shape[-2:] == (96, 96)


def test_a_network_without_mlps_is_refused():
    with pytest.raises(ValueError, match="no MLP"):
        prune.drop_mlp_units(nn.Linear(2, 2), 0.5)


def test_layers_that_a_method_wrapped_are_refused_and_merged_ones_are_not(fresh):
    model = tune(fresh(), LoRA(targets=("fc1",)))
    with pytest.raises(ValueError, match=r"not from LoRALinear and Linear; merge\(model\) first"):
        prune.drop_mlp_units(model, 0.5)
    assert prune.drop_mlp_units(merge(model), 0.5).backbone.blocks[0].mlp.fc1.out_features == 480


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_ranks_are_the_places_in_the_order_of_sizes_in_every_precision(dtype):
    w = torch.tensor([1 + 1e-9, -1.0, 0.0, -0.0, 1e-9, -3.0, 1 - 1e-9, 2.0], dtype=dtype)
    order = w.abs().argsort(stable=True)
    assert prune.ranks(w)[order].tolist() == list(range(len(w)))
