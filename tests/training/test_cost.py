import copy
import gc
import weakref

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from labkit.methods import DyLoRA, Full, Head, LongLoRA, LoRA, MedTuning, VPTShallow
from labkit.training import cost
from labkit.training.cost import MIB, measure, saved_for_backward
from labkit.tuning import tune


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.w, self.v = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(4))

    def forward(self, x):
        a = (x * self.w).sigmoid()  # keeps x for w's gradient, and a itself
        b = a * a  # keeps a twice, in the storage counted above
        return b * self.v  # keeps b for v's gradient, and v, a parameter


def test_each_kept_storage_counts_once_and_parameters_never():
    numbers = 3 * 4  # in each of x, a, b
    assert saved_for_backward(Small(), torch.randn(3, 4)) == 3 * numbers * 4


def test_nothing_is_kept_when_nothing_learns():
    assert saved_for_backward(Small().requires_grad_(False), torch.randn(3, 4)) == 0


@pytest.fixture(scope="module")
def costs(pretrained):
    x = torch.randn(1, 2, 4, 96, 96)
    return {
        type(m).__name__: measure(tune(copy.deepcopy(pretrained), m), x, repeats=1)
        for m in (Full(), Head(), LoRA(r=8))
    }


def test_a_frozen_backbone_keeps_nothing_and_needs_no_backward_pass(costs):
    assert costs["Head"].saved_mib < 0.7 * costs["Full"].saved_mib
    assert costs["Head"].gflops < 0.7 * costs["Full"].gflops


def test_lora_saves_optimizer_state_more_than_activations(costs):
    lora, full = costs["LoRA"], costs["Full"]
    assert lora.optimizer_mib / full.optimizer_mib < 0.2 < 0.5 < lora.saved_mib / full.saved_mib


def test_parameters_are_counted_and_each_has_a_gradient_and_two_moments(costs):
    added = 4 * 2 * 8 * (384 + 384)
    assert costs["Full"].inserted == costs["Head"].inserted == 0
    assert costs["LoRA"].inserted == costs["LoRA"].tuned - costs["Head"].tuned == added
    for one in costs.values():
        assert one.gradients_mib == one.tuned * 4 / MIB
        assert one.optimizer_mib == one.tuned * 4 * 2 / MIB
        assert one.step_seconds > 0


def test_attention_is_counted(pretrained):
    """Forward through a frozen network: two products of N x N by d in each block, and the linear layers."""
    d, d_ff, L, N = 384, 960, 4, 144
    model, x = tune(copy.deepcopy(pretrained), Head()), torch.randn(1, 1, 4, 96, 96)
    linear = L * N * (4 * d * d + 2 * d * d_ff) + N * d * 4 * 8 * 8
    attention = L * 2 * N * N * d
    maps = [torch.randn(1, d, 12, 12)] * 4
    with FlopCounterMode(display=False) as flops:
        model.decoder(maps).square().mean().backward()  # a norm and a decoder learn: none of it in the blocks
    whole = measure(model, x, repeats=1).gflops - flops.get_total_flops() / 1e9
    assert whole == pytest.approx(2 * (linear + attention) / 1e9, rel=1e-3)


def test_memory_does_not_depend_on_the_precision_of_the_machine(pretrained, monkeypatch):
    model, x = tune(copy.deepcopy(pretrained), LoRA()), torch.randn(1, 2, 4, 96, 96)
    found = []
    for enabled in (False, True):
        monkeypatch.setattr(
            cost, "autocast", lambda device, on=enabled: torch.autocast(device, torch.bfloat16, on)
        )
        found.append(measure(model, x, repeats=1).saved_mib)
    assert found[0] == found[1]


def test_prompts_that_travel_cost_attention_and_mlp(costs, pretrained):
    x = torch.randn(1, 2, 4, 96, 96)
    models = (tune(copy.deepcopy(pretrained), VPTShallow(n)) for n in (10, 100))
    few, many = (measure(model, x, repeats=1).gflops for model in models)
    assert many > 1.3 * few


def test_measuring_changes_nothing(fresh):
    model = tune(fresh(), LoRA())
    before = {name: p.clone() for name, p in model.state_dict().items()}
    assert measure(model, torch.randn(1, 4, 96, 96), repeats=1).gflops > 0
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("method", [MedTuning(), LoRA(dropout=0.5), DyLoRA(), LongLoRA()], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_a_step_is_measured_in_training_and_the_model_keeps_mode_numbers_and_luck(method, training, vit):
    model = tune(copy.deepcopy(vit), method).train(training)
    x, luck = torch.randn(1, 2, 4, 32, 32), torch.get_rng_state()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    found = measure(model, x, repeats=1)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items()), "batch norms too"
    assert all(m.training == training for m in model.modules())
    assert torch.equal(torch.get_rng_state(), luck)
    other = measure(model.train(not training), x, repeats=1)
    assert (found.saved_mib, found.gflops) == (other.saved_mib, other.gflops)


def test_a_batch_that_is_a_view_counts_as_itself(vit):
    model, many = tune(copy.deepcopy(vit), Full()), torch.randn(50, 1, 4, 32, 32)
    assert saved_for_backward(model, many[:2]) == saved_for_backward(model, many[:2].clone())


def test_what_was_kept_is_let_go_after_the_measurement():
    kept = []
    model = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid())  # a sigmoid keeps its own output
    model[1].register_forward_hook(lambda module, inputs, output: kept.append(weakref.ref(output)))
    cost.saved_for_backward(model, torch.ones(1, 4))
    gc.collect()
    assert [reference() for reference in kept] == [None]
