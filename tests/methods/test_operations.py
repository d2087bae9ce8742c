"""What a step dispatches and keeps: a GPU waits for launches, so their number is a time that a CPU can count.

Counted are all operations of PyTorch (aten) in one forward and backward pass, views among them.
"""

import copy
from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from labkit.methods import LoRA
from labkit.methods.lora import LoRALinear, Plus
from labkit.training.cost import saved_for_backward
from labkit.tuning import tune

SIX = ("q", "k", "v", "o", "fc1", "fc2")
THEIRS = {"q": "qkv", "k": "qkv", "v": "qkv", "o": "attn.proj", "fc1": "fc1", "fc2": "fc2"}
PARTS = pytest.mark.parametrize("parts, of", [((0,), 1), ((1,), 3), ((0, 2), 3), ((1, 2), 3), ((0, 1, 2), 3)])


class Operations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.seen[operation] += 1
        return operation(*args, **(kwargs or {}))


def dispatched(model, x):
    """Operations of a forward and backward pass."""
    with Operations() as operations:
        model(x).square().mean().backward()
    return operations.seen.total()


def by_peft(model, r, targets):
    peft = pytest.importorskip("peft")
    peft.get_peft_model(model, peft.LoraConfig(r=r, lora_alpha=6, target_modules=list(targets)))
    return model


@pytest.mark.parametrize("alpha", [4, 6])
@pytest.mark.parametrize("targets", [("q", "v"), ("q", "k", "v"), SIX])
def test_lora_dispatches_no_more_than_pefts_on_the_same_layers(targets, alpha, vit):
    """peft has one update of the fused qkv where we have two or three, of as many ranks together."""
    x = torch.randn(2, 4, 32, 32)
    ours = tune(copy.deepcopy(vit), LoRA(r=4, alpha=alpha, targets=targets)).backbone
    frozen = copy.deepcopy(vit.backbone).requires_grad_(False)
    ours.norm.requires_grad_(False)  # it belongs to the head
    theirs = by_peft(frozen, 4 * sum(t in "qkv" for t in targets), {THEIRS[t] for t in targets})
    assert dispatched(ours, x) <= dispatched(theirs, x)


class Separate(nn.Module):
    """The fused qkv, as peft likes it best: three linear layers."""

    def __init__(self, d):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(d, d).requires_grad_(False) for _ in range(3))

    def forward(self, x):
        return torch.cat([self.q(x), self.k(x), self.v(x)], -1)


@pytest.mark.parametrize("parts", [(0, 2), (0, 1, 2)])
def test_lora_on_a_fused_qkv_dispatches_no_more_than_pefts_on_separate_layers(parts):
    x = torch.randn(2, 5, 12, requires_grad=True)
    ours = LoRALinear(nn.Linear(12, 36).requires_grad_(False), parts, 3, 4, 6.0, dropout=0.0)
    theirs = by_peft(Separate(12), 4, ["qkv"[part] for part in parts])
    assert dispatched(ours, x) <= dispatched(theirs, x)


def filled(parts, of, alpha=4.5, dtype=torch.float64):
    layer = LoRALinear(nn.Linear(6, 6 * of).requires_grad_(False), parts, of, 3, alpha, dropout=0.0)
    nn.init.normal_(layer.B)
    return layer.to(dtype)


@PARTS
def test_values_and_gradients_are_those_of_the_equation(parts, of):
    layer, x = filled(parts, of), torch.randn(2, 4, 6, dtype=torch.float64, requires_grad=True)
    G = torch.randn(2, 4, 6 * of, dtype=torch.float64)
    found, equation = layer(x), nn.functional.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(found, equation, rtol=1e-12, atol=1e-12)
    wanted = (x, layer.A, layer.B)
    for mine, expected in zip(
        torch.autograd.grad(found, wanted, G), torch.autograd.grad(equation, wanted, G), strict=True
    ):
        torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-12)


@PARTS
def test_gradients_of_gradients_are_right_too(parts, of):
    n, double = len(parts), dict(dtype=torch.float64, requires_grad=True)
    h, z, B = (torch.randn(shape, **double) for shape in [(4, 2 * of), (4, n * 3), (n, 2, 3)])
    assert torch.autograd.gradcheck(lambda *given: Plus.apply(*given, parts, of, 1.5), (h, z, B))
    assert torch.autograd.gradgradcheck(lambda *given: Plus.apply(*given, parts, of, 1.5), (h, z, B))


@PARTS
def test_a_gradient_that_lies_in_one_number_goes_through(parts, of):
    """That of a sum is expanded, not stored."""
    layer, x = filled(parts, of), torch.randn(4, 6, dtype=torch.float64)
    (found,) = torch.autograd.grad(layer(x).sum(), layer.B)
    (expected,) = torch.autograd.grad((x @ layer.weight.T).sum(), layer.B)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@PARTS
def test_lora_keeps_its_input_and_A_x_and_nothing_else(parts, of):
    layer, x = filled(parts, of), torch.randn(2, 5, 6, dtype=torch.float64)
    assert saved_for_backward(layer, x) == 8 * (2 * 5 * 6 + 2 * 5 * len(parts) * 3)
