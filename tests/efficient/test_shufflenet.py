import pytest
import torch
from test_mobilenet import copy_in_order, lively

from labkit.efficient.counting import macs
from labkit.efficient.shufflenet import WIDTHS, Unit, channel_shuffle, shufflenet_v2
from labkit.tuning import numel


def test_six_channels_in_two_groups_by_hand():
    x = torch.arange(6.0).view(1, 6, 1, 1).expand(2, 6, 3, 5)
    assert channel_shuffle(x, 2)[0, :, 0, 0].tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_is_pytorchs_shuffle_and_leaves_pixels_where_they_are(groups):
    x = torch.randn(2, 6, 3, 5)
    assert torch.equal(channel_shuffle(x, groups), torch.nn.ChannelShuffle(groups)(x))


def test_groups_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(ValueError, match="6 channels .* 4 groups"):
        channel_shuffle(torch.zeros(1, 6, 1, 1), 4)


@pytest.mark.parametrize("width", [0.5, 1.0])
def test_is_torchvisions_network_with_its_weights(width):
    from torchvision.models import shufflenet_v2_x0_5, shufflenet_v2_x1_0

    theirs = lively((shufflenet_v2_x0_5 if width == 0.5 else shufflenet_v2_x1_0)(num_classes=10))
    ours = shufflenet_v2(10, WIDTHS[width]).eval()
    copy_in_order(theirs, ours)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert theirs(x).std() > 1e-3
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("width", "parameters", "multiply_adds"),
    [(0.5, 1_366_792, 40_476_448), (1.0, 2_278_604, 144_907_992)],
)
def test_published_sizes(width, parameters, multiply_adds):
    network = shufflenet_v2(widths=WIDTHS[width])
    assert (numel(network.parameters()), macs(network, 1, 3, 224, 224)) == (parameters, multiply_adds)


@pytest.mark.parametrize(("i", "o"), [(8, 8), (8, 20)])
def test_a_unit_has_the_parameters_of_its_closed_form(i, o):
    b = o // 2
    if i == o:
        assert numel(Unit(i, o, 1).parameters()) == 2 * b * b + 15 * b
    assert numel(Unit(i, o, 2).parameters()) == 11 * i + 2 * (i * b + 2 * b) + 11 * b + b * b + 2 * b


def test_half_of_a_units_channels_pass_untouched():
    x = torch.randn(1, 8, 4, 4)
    assert torch.equal(Unit(8, 8, 1).eval()(x)[:, ::2], x[:, :4])


@pytest.mark.parametrize(("i", "o", "stride"), [(8, 10, 1), (8, 9, 2)])
def test_a_unit_that_can_not_be_is_refused(i, o, stride):
    with pytest.raises(ValueError, match=f"stride {stride} from {i} to {o}"):
        Unit(i, o, stride)


def test_same_seed_same_bits():
    one, two = (shufflenet_v2(3).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
