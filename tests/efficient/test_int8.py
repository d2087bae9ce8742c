import sys
import warnings

import pytest
import torch
from torch import nn

from labkit.efficient import int8 as module
from labkit.efficient.int8 import Int8Linear, int8, int8_matmul, plain


def integers(*shape):
    return torch.randint(-127, 128, shape, dtype=torch.int8)


@pytest.mark.parametrize("kernel", [True, False])
def test_products_are_exact_with_and_without_pytorchs_kernel(kernel, monkeypatch):
    a, b = integers(40, 300), integers(300, 24)
    if not kernel:
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


@pytest.mark.parametrize("removed", [False, True])
def test_the_laptops_network_runs_in_integers_whatever_pytorch_still_has(removed, fresh, monkeypatch):
    if removed:
        monkeypatch.setitem(sys.modules, "torch.ao.quantization", None)  # importing it fails
    model, x = fresh().eval(), torch.randn(1, 1, 4, 96, 96)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error")
        fewer = int8(model)
        y, z = model(x), fewer(x)
    linears = [m for m in fewer.backbone.modules() if type(m) is nn.Linear]
    assert not linears and type(model.backbone.blocks[0].mlp.fc1) is nn.Linear
    assert (type(fewer.backbone.blocks[0].mlp.fc1) is Int8Linear) == removed
    assert 0 < (y - z).norm() / y.norm() < 0.15


def test_a_processor_without_a_kernel_falls_back(monkeypatch):
    def no_engine(model):
        raise RuntimeError("Didn't find engine for operation quantized::linear_prepack NoQEngine")

    monkeypatch.setattr(module, "fused", no_engine)
    assert type(int8(nn.Sequential(nn.Linear(3, 2)))[0]) is Int8Linear


def test_a_model_that_is_one_layer_is_refused_by_name():
    with pytest.raises(ValueError):
        plain(nn.Linear(3, 2))
