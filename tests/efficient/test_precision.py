import math

import pytest
import torch
from torch import nn

from labkit.efficient import precision
from labkit.efficient.counting import matrices


def gradient(function, w, g):
    w = w.clone().requires_grad_()
    function(w).backward(g)
    return w.grad


def test_three_bits_by_hand():
    w = torch.tensor([-1, -0.3, 0.2, 1])
    torch.testing.assert_close(precision.fake_quantize(w, 3), torch.tensor([-1, -1 / 3, 1 / 3, 1]))


@pytest.mark.parametrize(("bits", "count"), [(8, 255), (4, 15), (3, 7), (2, 3), (1, 2)])
def test_b_bits_have_two_to_the_b_less_one_levels_and_one_bit_two(bits, count):
    assert len(precision.fake_quantize(torch.linspace(-1, 1, 10_001), bits).unique()) == count


@pytest.mark.parametrize("bits", [2, 3, 5, 8])
@pytest.mark.parametrize("per_row", [False, True])
def test_is_pytorchs_fake_quantiser_with_its_gradient(bits, per_row):
    w, g, Q = torch.randn(6, 50), torch.randn(6, 50), 2 ** (bits - 1) - 1
    s = precision.scale(w, bits, per_row) / 2  # clips, so that some gradients are zero

    def theirs(w):
        if per_row:
            zero = torch.zeros(6, dtype=torch.int32)
            return torch.fake_quantize_per_channel_affine(w, s.flatten(), zero, 0, -Q, Q)
        return torch.fake_quantize_per_tensor_affine(w, s.item(), 0, -Q, Q)

    ours = lambda w: precision.fake_quantize(w, bits, s=s)  # noqa: E731
    torch.testing.assert_close(ours(w), theirs(w))
    torch.testing.assert_close(gradient(ours, w, g), gradient(theirs, w, g))
    assert 0 < (gradient(ours, w, g) == 0).sum() < w.numel()


def test_the_error_is_at_most_half_a_step_and_six_decibels_a_bit():
    w = torch.rand(100_000, dtype=torch.float64) * 2 - 1
    errors = {}
    for bits in (10, 11, 12):
        e = precision.fake_quantize(w, bits) - w
        s = precision.scale(w, bits).item()
        assert e.abs().max() <= s / 2 * (1 + 1e-9)
        assert e.square().mean() == pytest.approx(s * s / 12, rel=0.02)
        errors[bits] = e.square().mean()
    assert 10 * math.log10(errors[10] / errors[12]) == pytest.approx(2 * 6.02, abs=0.1)


def test_rows_with_their_own_scale_do_not_pay_for_anothers_outlier():
    w = torch.randn(8, 100)
    w[0, 0] = 100
    rest = lambda per_row: (precision.fake_quantize(w, 4, per_row) - w)[1:].norm() / w[1:].norm()  # noqa: E731
    assert rest(False) == 1 and rest(True) < 0.3


def test_a_row_of_zeros_stays_zero():
    w = torch.randn(2, 3)
    w[1] = 0
    for bits in (1, 4):
        rounded = precision.fake_quantize(w, bits, per_row=True)
        assert rounded[0].abs().sum() > 0 and torch.equal(rounded[1], torch.zeros(3))


@pytest.mark.parametrize("per_row", [False, True])
def test_where_nothing_is_clipped_the_whole_gradient_goes_through(per_row):
    w, g = torch.randn(4, 9), torch.randn(4, 9)
    torch.testing.assert_close(gradient(lambda w: precision.fake_quantize(w, 4, per_row), w, g), g)


@pytest.mark.parametrize("bits", [0, 17])
def test_other_numbers_of_bits_are_refused(bits):
    with pytest.raises(ValueError, match="2 to 16 bits"):
        precision.fake_quantize(torch.ones(3), bits)


def test_the_mean_magnitude_is_the_best_multiple_of_the_signs():
    w = torch.randn(4, 1000, dtype=torch.float64)
    sign = torch.where(w >= 0, 1.0, -1.0).double()
    best = torch.stack([torch.linalg.lstsq(s[:, None], row[:, None]).solution[0] for s, row in zip(sign, w)])  # noqa: B905
    torch.testing.assert_close(precision.fake_quantize(w, 1, per_row=True), best * sign)


def test_one_bit_loses_three_fifths_of_a_gaussian():
    w = torch.randn(200_000)
    error = (precision.fake_quantize(w, 1) - w).norm() / w.norm()
    assert error.item() == pytest.approx(math.sqrt(1 - 2 / math.pi), abs=0.003)
    assert round(math.sqrt(1 - 2 / math.pi), 4) == 0.6028


def test_one_bit_beats_two_on_a_weight_with_an_outlier():
    w = torch.randn(10_000)
    w[0] = 30
    error = lambda bits: (precision.fake_quantize(w, bits) - w).norm()  # noqa: E731
    assert error(1) < error(2)


def test_the_gradient_of_one_bit_stops_beyond_one_and_goes_through_alpha():
    w, g = torch.tensor([[0.5, -2.0, 0.1, -0.2]]), torch.tensor([[1.0, 2.0, -3.0, 0.5]])
    sign, alpha = torch.tensor([[1.0, -1, 1, -1]]), 0.7
    expected = g * alpha * torch.tensor([[1, 0, 1, 1]]) + sign / 4 * (g * sign).sum()
    torch.testing.assert_close(gradient(lambda w: precision.fake_quantize(w, 1), w, g), expected)


@pytest.mark.parametrize("per_row", [False, True])
def test_clipping_outliers_never_costs(per_row):
    w = torch.randn(8, 200) ** 3
    for bits in (2, 3, 4):
        error = lambda s, bits=bits: (precision.fake_quantize(w, bits, s=s) - w).norm()  # noqa: E731
        assert error(precision.best_scale(w, bits, per_row)) < error(precision.scale(w, bits, per_row))


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8, 11, 16])
def test_packed_codes_come_back_and_leave_no_gap(bits):
    w = torch.randn(7, 13)
    q = precision.codes(w, bits, precision.scale(w, bits)).detach()
    packed = precision.pack(q, bits)
    assert packed.dtype == torch.uint8 and len(packed) == math.ceil(7 * 13 * bits / 8)
    assert torch.equal(precision.unpack(packed, bits, (7, 13)), q)


@pytest.mark.parametrize(("bits", "megabytes"), [(8, 5.75), (4, 3.05), (1, 1.02)])
def test_the_file_of_the_laptops_network_is_as_small_as_its_bits(bits, megabytes, fresh, tmp_path):
    backbone = fresh().backbone
    precision.save(backbone, tmp_path / "packed", bits, per_row=True)
    sizes = [w.numel() for w in matrices(backbone).values()]
    rows = sum(len(w) for w in matrices(backbone).values())
    rest = sum(p.numel() for p in backbone.parameters()) - sum(sizes)
    assert (len(sizes), sum(sizes), rows, rest) == (17, 5_406_720, 11_904, 74_112)
    size = sum(sizes) * bits / 8 + 4 * rows + 4 * rest
    assert round(size / 1e6, 2) == megabytes
    assert 0 < (tmp_path / "packed").stat().st_size - size < 10_000  # names and shapes
    loaded = precision.load(tmp_path / "packed")
    assert loaded.keys() == backbone.state_dict().keys()
    precision.quantize_(backbone, bits, per_row=True)
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(loaded[name], tensor), name


def test_a_file_of_something_else_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"w": torch.ones(2)}, tmp_path / "other")
    with pytest.raises(ValueError, match="precision.save"):
        precision.load(tmp_path / "other")


def test_training_through_the_rounding_moves_weights_that_rounding_would_hold():
    layer, x = nn.Linear(20, 4), torch.randn(64, 20)
    target = x @ torch.randn(20, 4)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    losses = []
    for _ in range(60):
        y = nn.functional.linear(x, precision.fake_quantize(layer.weight, 3, per_row=True), layer.bias)
        losses.append(nn.functional.mse_loss(y, target))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] / 4
