"""Constants of the papers and of their authors' code: what no count of parameters sees.

Each row is read off a tuned network, so that a default and its way into the layer are held at once. Where
labkit deviates, the module's docstring says so.
"""

import copy
import math

import pytest
import torch
from torch import nn

from labkit.methods import METHODS
from labkit.methods.compacter import Rules
from labkit.tuning import tune

D, D_FF, M, R, PATCH = 32, 128, 64, 8, 8  # of the small ViT, AdaptFormer's m, LoRA's r
KAIMING = 1 / math.sqrt(D)  # the bound of nn.Linear's own start, which is kaiming_uniform_(a=sqrt(5))


def block(model):
    return model.backbone.blocks[0]


def first(model, name):
    return next(p for key, p in model.named_parameters() if key.endswith(name)).detach()


def bound(tensor):
    """Of a uniform start: the largest magnitude, which with many numbers comes close."""
    return tensor.abs().max().item()


TABLE = [  # method, constant, where it stands in the network, the value, its source
    ("lora", "alpha / r", lambda m: block(m).attn.qkv.scale, 1.0, "labkit: alpha = r"),
    ("lora", "dropout", lambda m: block(m).attn.qkv.dropout.p, 0.0, "loralib Linear: lora_dropout=0."),
    ("lora", "bound of A", lambda m: bound(first(m, ".A")), KAIMING, "loralib: kaiming_uniform_(a=sqrt(5))"),
    ("lora", "B", lambda m: bound(first(m, ".B")), 0.0, "Hu et al.; loralib"),
    ("lora_plus", "lambda", lambda m: m.tuned_by.ratio, 16.0, "Hayou et al.: about 2^4"),
    ("dylora", "alpha / r", lambda m: block(m).attn.qkv.scale, 1.0, "labkit: alpha = r"),
    (
        "long_lora",
        "alpha / r",
        lambda m: block(m).attn.original.qkv.scale,
        2.0,
        "LongLoRA: r = 8, alpha = 16",
    ),
    ("ln_lora", "gamma", lambda m: first(m, "gamma").unique().tolist(), [1.0], "nn.LayerNorm's start"),
    ("ln_lora", "beta", lambda m: bound(first(m, "beta")), 0.0, "nn.LayerNorm's start"),
    ("adapter", "W_up", lambda m: bound(first(m, "up.weight")), 0.0, "labkit's deviation; paper N(0, 1e-4)"),
    (
        "parallel_adapter",
        "s",
        lambda m: block(m).mlp.adapter.scale,
        4.0,
        "He et al.; petl_factory.py",
    ),
    (
        "parallel_adapter",
        "dropout",
        lambda m: block(m).mlp.adapter.dropout.p,
        0.0,
        "petl_factory: 0 by default",
    ),
    ("parallel_adapter", "bound of W_down", lambda m: bound(first(m, "down.weight")), KAIMING, "as LoRA's A"),
    ("parallel_adapter", "b_down", lambda m: bound(first(m, "down.bias")), 0.0, "petl_factory: zeros_"),
    ("adaptformer", "s", lambda m: block(m).mlp.adapter.scale, 0.1, "Chen et al.; models/adapter.py"),
    ("adaptformer", "dropout", lambda m: block(m).mlp.adapter.dropout.p, 0.1, "main_image.py: dropout 0.1"),
    ("adaptformer", "m", lambda m: block(m).mlp.adapter.down.out_features, M, "Chen et al."),
    ("adaptformer", "bound of W_down", lambda m: bound(first(m, "down.weight")), KAIMING, "adapter.py"),
    ("adaptformer", "b_down", lambda m: bound(first(m, "down.bias")), 0.0, "adapter.py: zeros_"),
    ("adapter_bias", "v", lambda m: bound(first(m, ".v")), 0.0, "labkit: starts as the pretrained one"),
    ("adapter_bias", "bound of a", lambda m: bound(first(m, ".a")), 1 / math.sqrt(D_FF), "nn.Linear's start"),
    ("compacter", "n", lambda m: m.tuned_by.n, 4, "Karimi Mahabadi et al."),
    ("compacter", "bound of t", lambda m: bound(first(m, "down.t")), math.sqrt(6 / (4 + D // 4)), "Glorot"),
    ("fact_tt", "s", lambda m: block(m).attn.qkv.s, 1.0, "labkit; the authors tune it from .01 to 100"),
    (
        "fact_tt",
        "bound of U",
        lambda m: bound(first(m, "factors.U")),
        KAIMING,
        "fact_tt.py: nn.Linear's start",
    ),
    (
        "fact_tt",
        "bound of Sigma",
        lambda m: bound(first(m, "factors.Sigma")),
        1 / math.sqrt(16),
        "fact_tt.py",
    ),
    ("fact_tt", "V", lambda m: bound(first(m, "factors.V")), 0.0, "fact_tt.py: zeros_"),
    (
        "fact_tk",
        "bound of C",
        lambda m: bound(first(m, "factors.C")),
        math.sqrt(6 / (2 * R**2 * 16)),
        "fact_tk.py",
    ),
    ("fact_tk", "bound of P", lambda m: bound(first(m, "factors.P")), math.sqrt(6 / (48 + 32)), "fact_tk.py"),
    ("prompt", "bound", lambda m: bound(first(m, "prompts")), 0.5, "Lester et al., section 3.2"),
    ("vpt_deep", "bound", lambda m: bound(first(m, "prompts")), math.sqrt(6 / (3 * PATCH**2 + D)), "vit.py"),
    (
        "vpt_shallow",
        "bound",
        lambda m: bound(first(m, "prompts")),
        math.sqrt(6 / (3 * PATCH**2 + D)),
        "vit.py",
    ),
    ("prefix", "hidden units", lambda m: m.tuned_by.mid, 512, "train_control.py: mid_dim=512"),
    ("prefix", "spread of P'", lambda m: first(m, "mlp.P").std().item(), 1.0, "nn.Embedding's start"),
    (
        "st_adapter",
        "slices",
        lambda m: block(m).adapter.conv.kernel_size[0],
        3,
        "Pan et al.; models_adapter.py",
    ),
    ("med_tuning", "d / m", lambda m: m.tuned_by.ratio, 6, "Shen et al., section 3"),
    (
        "med_tuning",
        "W_F, b_F",
        lambda m: [first(m, ".W_F").sum().item() / 256, bound(first(m, ".b_F"))],
        [1.0, 0.0],
        "|h|",
    ),
]


@pytest.mark.parametrize(
    "method, constant, found, value, source", TABLE, ids=[f"{row[0]}: {row[1]}" for row in TABLE]
)
def test_is_as_in_the_paper_or_its_code(method, constant, found, value, source, vit):
    model = tune(copy.deepcopy(vit), METHODS[method]())
    within = dict(rel=0.12) if "bound" in constant or "spread" in constant else dict(rel=1e-6)
    assert found(model) == pytest.approx(value, **within), source


def test_bounds_are_never_passed(vit):
    for method, constant, found, value, _ in TABLE:
        if "bound" in constant:
            assert found(tune(copy.deepcopy(vit), METHODS[method](), seed=3)) <= value * (1 + 1e-6), method


def test_compacters_rules_start_with_the_spread_that_keeps_a_matrix_as_large_as_a_plain_one():
    """std n^-1/2, labkit's own: over a hundred draws, within a tenth."""
    A = torch.stack([Rules(4).A.detach() for _ in range(100)])
    assert A.std().item() == pytest.approx(4**-0.5, rel=0.1) and abs(A.mean().item()) < 0.05


def test_the_epsilon_of_a_normalised_input_is_that_of_pytorch(vit):
    """Small inputs show it: x / sqrt(var + epsilon)."""
    layer = tune(copy.deepcopy(vit), METHODS["ln_lora"]()).backbone.blocks[0].attn.qkv
    nn.init.normal_(layer.B)
    x = 1e-3 * torch.randn(4, D)
    norm, q = nn.LayerNorm(D, eps=1e-5), (layer(x) - layer.original(x))[:, :D]
    torch.testing.assert_close(q, norm(x) @ layer.A[0].T @ layer.B[0].T, rtol=1e-3, atol=1e-4)
