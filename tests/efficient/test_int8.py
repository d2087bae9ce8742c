import pytest
import torch
from torch import nn

from labkit.efficient.int8 import Int8Linear, int8, int8_matmul


def integers(*shape):
    return torch.randint(-127, 128, shape, dtype=torch.int8)


@pytest.mark.parametrize("processor", ["with VNNI", "without", "without PyTorch's kernel"])
def test_products_are_exact_on_every_processor(processor, monkeypatch):
    a, b = integers(40, 300), integers(300, 24)
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: processor != "without")
    if processor == "without PyTorch's kernel":
        monkeypatch.delattr(torch, "_int_mm")
    y = int8_matmul(a, b)
    assert y.dtype == torch.int32 and torch.equal(y.double(), a.double() @ b.double())


def test_a_layer_differs_by_about_a_hundredth_and_not_at_all_on_whole_numbers():
    layer, x = nn.Linear(64, 32), torch.randn(2, 10, 64)
    y = layer(x)
    assert 0 < (Int8Linear(layer)(x) - y).norm() / y.norm() < 0.02
    layer.weight.data, x = integers(32, 64).float(), integers(10, 64).float()
    layer.weight.data[:, 0] = x[:, 0] = 127  # each row's scale is one
    torch.testing.assert_close(Int8Linear(layer)(x), layer(x))


def test_the_laptops_network_computes_the_equation_in_a_copy(fresh):
    """A scale per token and per output: an error below a hundredth, where one per matrix makes two."""
    model, x = fresh().eval(), torch.randn(1, 1, 4, 96, 96)
    with torch.no_grad():
        y, z = model(x), int8(model)(x)
    assert type(model.backbone.blocks[0].mlp.fc1) is nn.Linear
    assert 0 < (y - z).norm() / y.norm() < 0.012


def test_every_linear_layer_becomes_the_equations_and_the_copy_is_for_inference():
    model = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 2), nn.Dropout()))
    kinds = {type(m) for m in int8(model).modules()}
    assert Int8Linear in kinds and nn.Linear not in kinds
    assert model.training and not any(m.training for m in int8(model).modules())


def test_an_outlier_in_a_token_and_in_a_row_costs_the_others_nothing():
    layer, x = nn.Linear(64, 32), torch.randn(10, 64)
    layer.weight.data[0] *= 100
    x[0] *= 100
    y, z = layer(x)[1:, 1:], int8(nn.Sequential(layer))(x)[1:, 1:]
    assert (y - z).norm() / y.norm() < 0.02


def test_a_model_that_is_one_layer_is_refused_by_name():
    with pytest.raises(ValueError, match="Int8Linear"):
        int8(nn.Linear(3, 2))
