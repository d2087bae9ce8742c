"""What every layer on volumes of tokens must keep, whatever it computes."""

import copy
from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from labkit.methods import BitFit, LoRA, MedTuning, ProTuning, STAdapter, VPTDeep
from labkit.methods.volumetric import AcrossSlices, AfterBlock, InPlane, to_maps, to_volume
from labkit.networks.anatomy import backbone_of, stage_ends
from labkit.tuning import delta, tune

METHODS = pytest.mark.parametrize(
    "method", [STAdapter(), ProTuning(), MedTuning(), MedTuning(fourier="released", start="released")]
)
BODIES = pytest.mark.parametrize("body", ["vit", "swin"])


def awake(model):
    """With up-projections away from zero, as after training."""
    torch.manual_seed(1)
    for p in delta(backbone_of(model)).values():
        p.data += 0.1 * torch.randn_like(p)
    return model


@pytest.fixture
def tuned(vit, swin):
    return lambda body, method: awake(tune(copy.deepcopy({"vit": vit, "swin": swin}[body]), method))


@BODIES
@METHODS
def test_one_volume_leaves_the_other_alone(method, body, tuned):
    model, x = tuned(body, method).eval(), torch.randn(2, 3, 4, 32, 32)
    other = x.clone()
    other[0] = torch.randn_like(other[0])
    assert torch.equal(model(x)[1], model(other)[1])
    assert not torch.equal(model(x)[0], model(other)[0])


@BODIES
@METHODS
@pytest.mark.parametrize("slices", [1, 2, 5, 20])
def test_any_number_of_slices_goes(method, body, slices, tuned):
    model = tuned(body, method).eval()
    assert model(torch.randn(1, slices, 4, 32, 32)).shape == (1, slices, 3, 32, 32)


@BODIES
@METHODS
def test_a_slice_without_a_volume_is_a_volume_of_one(method, body, tuned):
    model, x = tuned(body, method).eval(), torch.randn(2, 4, 32, 32)
    torch.testing.assert_close(model(x), model(x[:, None])[:, 0])


class Depthwise(TorchDispatchMode):
    """Counts depthwise convolutions by the number of dimensions that they are computed in."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.convolution.default and args[8] > 1:
            self.found[args[0].ndim - 2] += 1
        return function(*args, **(kwargs or {}))


@BODIES
@METHODS
def test_no_depthwise_convolution_is_computed_in_three_dimensions(method, body, tuned):
    """See `InPlane`: on processors without bfloat16 no gradient would tell."""
    model = tuned(body, method)
    with Depthwise() as computed:
        model(torch.randn(1, 4, 4, 32, 32))
    assert computed.found.keys() == {2}


@BODIES
@METHODS
@pytest.mark.parametrize("slices", [2, 4, 8])
def test_each_depthwise_kernels_gradient_in_bfloat16_is_that_of_float32(method, body, slices, tuned):
    """Rounding costs up to a quarter of it, since ReLU and | | have kinks; a wrong kernel costs all of it."""
    model, x = tuned(body, method).eval(), torch.randn(1, slices, 4, 32, 32)
    found = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y = model(x).float()
        (y * torch.linspace(-1, 1, y.numel()).view(y.shape)).mean().backward()
        convolutions = [m for m in model.backbone.modules() if getattr(m, "groups", 1) > 1]
        found.append([m.weight.grad.clone() for m in convolutions])
    for exact, rounded in zip(*found, strict=True):
        assert (exact - rounded).norm() <= 0.5 * exact.norm()


@BODIES
@METHODS
def test_checkpointing_gives_the_gradients_of_a_tuned_network_too(method, body, tuned):
    model, x, found = tuned(body, method), torch.randn(2, 3, 4, 32, 32), []
    for checkpointing in (False, True):
        model.zero_grad()
        model.backbone.set_grad_checkpointing(checkpointing)
        model(x).square().mean().backward()
        found.append({n: p.grad.clone() for n, p in delta(model).items()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-6)
    assert all(g.abs().sum() > 0 for n, g in found[0].items() if not n.endswith("align.weight"))


@METHODS
def test_prompts_pass_by(method, vit):
    """The same prompts in front of the same block, tuned or not: the layer sees the patches alone."""
    model = awake(tune(copy.deepcopy(vit), (VPTDeep(n=3), method)))
    path = stage_ends(model.backbone)[0]
    inner = model.backbone.get_submodule(path)
    while not isinstance(inner, AfterBlock):
        inner = inner.original
    x = torch.randn(2, 3 + 16, 32)
    assert torch.equal(inner(x)[:, :3], inner.original(x)[:, :3])
    assert not torch.equal(inner(x)[:, 3:], inner.original(x)[:, 3:])
    assert model(torch.randn(1, 2, 4, 32, 32)).shape == (1, 2, 3, 32, 32)


@BODIES
def test_methods_stack_in_the_order_of_their_families(body, tuned):
    model = tuned(body, (MedTuning(), STAdapter(), BitFit(), LoRA()))
    model(torch.randn(1, 2, 4, 32, 32)).square().mean().backward()
    learns = [n for n, p in delta(model).items() if p.grad is not None and p.grad.abs().sum() > 0]
    for part in ("adapter.conv", "adapter.intra", "adapter.inter", "attn.qkv.B", "mlp.fc1.bias"):
        assert any(part in n for n in learns), part


def test_tokens_become_volumes_slice_by_slice_and_row_by_row():
    tokens = torch.arange(2 * 3 * 4 * 5 * 6.0).view(6, 20, 6)  # two volumes of three slices of 4 x 5 tokens
    seen = []

    class Look(nn.Module):
        def forward(self, maps):
            seen.append(to_volume(maps))
            return to_maps(seen[0])

    layer = AfterBlock(nn.Identity(), (4, 5), Look())
    layer.slices = 3
    assert torch.equal(layer(tokens), tokens)
    assert seen[0].shape == (2, 6, 3, 4, 5)
    assert torch.equal(seen[0][1, :, 2, 3, 4], tokens[1 * 3 + 2, 3 * 5 + 4])


@pytest.mark.parametrize("k, S", [(3, 4), (5, 4), (5, 1)])
@pytest.mark.parametrize("kind", [InPlane, AcrossSlices])
def test_a_depthwise_convolution_is_that_of_three_dimensions_value_and_gradients(kind, k, S):
    layer = kind(6, k).double()
    h = torch.randn(2, 6, S, 5, 7, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 6, S, 5, 7, dtype=torch.float64)
    found = layer(h)
    expected = torch.nn.Conv3d.forward(layer, h)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    of = (h, layer.weight, layer.bias)
    for mine, theirs in zip(
        torch.autograd.grad((found * weights).sum(), of),
        torch.autograd.grad((expected * weights).sum(), of),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
