import pytest
import torch
from torch import nn

from labkit.efficient.counting import macs
from labkit.efficient.mobilenet import (
    InvertedResidual,
    conv_norm,
    mobilenet_v1,
    mobilenet_v2,
    separable,
    separable_ratio,
)
from labkit.tuning import numel


def copy_in_order(theirs, ours):
    """Both networks list their layers in the order of the data; shapes must agree one by one."""
    state = dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True))
    ours.load_state_dict(state)


def lively(network):
    """Running statistics and norm weights that are not the defaults, so that a missing norm shows."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.7, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return network.eval()


@pytest.mark.parametrize("width", [0.35, 1.0])
def test_is_torchvisions_network_with_its_weights(width):
    from torchvision.models import mobilenet_v2 as reference

    theirs = lively(reference(width_mult=width, num_classes=10))
    ours = mobilenet_v2(10, width).eval()
    copy_in_order(theirs, ours)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert theirs(x).std() > 1e-3
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


def test_starts_with_the_spread_of_torchvisions_weights():
    from torchvision.models import mobilenet_v2 as reference

    theirs, ours = list(reference().parameters()), list(mobilenet_v2().parameters())
    for a, b in zip(theirs, ours, strict=True):
        if a.numel() > 2000:
            assert b.std().item() == pytest.approx(a.std().item(), rel=0.1)


@pytest.mark.parametrize(
    ("build", "parameters", "multiply_adds"),
    [
        (mobilenet_v2, 3_504_872, 300_774_272),
        (mobilenet_v1, 4_231_976, 568_740_352),
        (lambda: mobilenet_v1(standard=True), 29_294_088, 4_867_293_184),
    ],
)
def test_published_sizes(build, parameters, multiply_adds):
    network = build()
    assert (numel(network.parameters()), macs(network, 1, 3, 224, 224)) == (parameters, multiply_adds)


def test_the_share_of_a_separable_convolution_is_what_its_layers_cost():
    assert separable_ratio(8) == pytest.approx(17 / 72)
    split, whole = (macs(layer(4, 8), 1, 4, 10, 10) for layer in (separable, conv_norm))
    assert split / whole == pytest.approx(17 / 72)


@pytest.mark.parametrize(("stride", "o", "same"), [(1, 4, True), (2, 4, False), (1, 6, False)])
def test_the_residual_only_where_stride_and_width_stay(stride, o, same):
    block, x = InvertedResidual(4, o, stride, 6).eval(), torch.randn(1, 4, 8, 8)
    nn.init.zeros_(block.narrow[1].weight)
    assert torch.equal(block(x), x) if same else block(x).abs().sum() == 0


def test_same_seed_same_bits_and_the_callers_numbers_go_on():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = mobilenet_v2(10, 0.35)
    assert torch.equal(torch.rand(3), expected)
    two, other = mobilenet_v2(10, 0.35), mobilenet_v2(10, 0.35, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one[0][0].weight, other[0][0].weight)
