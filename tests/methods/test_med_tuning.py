import copy
import gc
import pickle
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labkit.methods import MedTuning
from labkit.methods.med_tuning import InterStage, MedAdapter
from labkit.methods.relay import Relay
from labkit.networks.anatomy import backbone_of
from labkit.tuning import delta, state, tune

RELEASED = MedTuning(fourier="released", T=3, start="released")


def awake(model):
    torch.manual_seed(1)
    for p in delta(backbone_of(model)).values():
        p.data += 0.1 * torch.randn_like(p)
    return model


@pytest.fixture
def tuned(vit, swin):
    return lambda body, method: awake(tune(copy.deepcopy({"vit": vit, "swin": swin}[body]), method))


def adapters(model):
    return [m for m in model.modules() if isinstance(m, MedAdapter)]


def relay(model):
    return next(m.relay for m in model.modules() if isinstance(m, InterStage))


def as_released(adapter, x, before):
    """The authors' adapter step by step on (B, T, h, w, d), from the weights alone; returns x' and M."""
    p = dict(adapter.named_parameters())

    def conv(x, name, **how):
        return F.conv3d(x, p[f"{name}.weight"], p[f"{name}.bias"], **how)

    h = F.gelu(F.linear(x, p["W_down.weight"], p["W_down.bias"])).permute(0, 4, 1, 2, 3)
    m = h.shape[1]
    total = 0
    for i, r in ((0, 1), (1, 2)):
        y = conv(h, f"intra.branches.{i}.0", padding=(0, r, r), groups=m)
        y = conv(y, f"intra.branches.{i}.1", padding=(r, 0, 0), groups=m)
        mean, var = (y.mean((0, 2, 3, 4), keepdim=True), y.var((0, 2, 3, 4), keepdim=True, unbiased=False))
        gain, shift = (p[f"intra.branches.{i}.2.{n}"].view(1, m, 1, 1, 1) for n in ("weight", "bias"))
        total = total + F.relu((y - mean) / (var + 1e-5).sqrt() * gain + shift)
    spectrum = torch.fft.fft(torch.fft.fft2(h), dim=2) * p["intra.branches.2.W_F"] + p["intra.branches.2.b_F"]
    total = total + torch.fft.ifft(torch.fft.ifft2(spectrum), dim=2).abs()
    M = conv(total, "intra.mix")
    if adapter.inter is not None:
        M = conv(torch.cat([M, conv(before, "inter.align")], 1), "inter.mix")
    y = F.linear((h + M).permute(0, 2, 3, 4, 1), p["W_up.weight"], p["W_up.bias"])
    return x + F.gelu(y), M


def test_the_released_variant_is_the_authors_formula_through_all_stages(vit):
    model = awake(tune(copy.deepcopy(vit), RELEASED))  # in training mode: norms use this batch
    x, before = torch.randn(2, 3, 4, 4, 32), torch.zeros(2, 5, 3, 4, 4)
    for block, adapter in zip(model.backbone.blocks, adapters(model), strict=True):
        block.slices = 3
        expected, before = as_released(
            adapter, block.original(x.flatten(0, 1).flatten(1, 2)).view_as(x), before
        )
        x = block(x.flatten(0, 1).flatten(1, 2)).view_as(x)
        torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how, expected", [("concat", 64), ("add", 22), ("max", 21)])
def test_stages_interact_as_by_hand(how, expected):
    """M = 1, the stage before gave 10, Align z is 2z + 1, Mix' (a, b) is a + 3b."""
    handed = Relay(2)
    handed.put(0, torch.full((1, 1, 1, 1, 1), 10.0))
    stage = InterStage(1, 1, False, how, 1, handed)
    nn.init.constant_(stage.align.weight, 2)
    nn.init.constant_(stage.align.bias, 1)
    if how == "concat":
        stage.mix.weight.data = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1, 1)
        nn.init.zeros_(stage.mix.bias)
    assert stage(torch.ones(1, 1, 1, 1, 1)).item() == expected


def test_a_stage_learns_through_the_next_ones_interaction(vit):
    """With every way but the relay shut, the first adapter still gets a gradient."""
    model = awake(tune(copy.deepcopy(vit), MedTuning()))
    for adapter in adapters(model)[:-1]:
        nn.init.zeros_(adapter.W_up.weight)
    model(torch.randn(1, 3, 4, 32, 32)).square().mean().backward()
    first = adapters(model)[0]
    assert first.W_down.weight.grad.abs().sum() > 0 and first.intra.mix.weight.grad.abs().sum() > 0
    assert first.inter.align.weight.grad.abs().sum() == 0, "it is given zeros, for ever"
    assert first.inter.align.bias.grad.abs().sum() > 0


@pytest.mark.parametrize("body, ends", [("vit", [0, 1, 2, 3]), ("swin", [1, 3])])
def test_the_last_block_of_each_stage_interacts(body, ends, tuned):
    found = adapters(tuned(body, MedTuning()))
    assert [i for i, adapter in enumerate(found) if adapter.inter is not None] == ends
    assert {id(found[i].inter.relay) for i in ends} == {id(found[ends[0]].inter.relay)}


def test_on_a_vit_of_twelve_the_third_of_every_three_blocks_interacts():
    from timm.models.vision_transformer import VisionTransformer

    backbone = VisionTransformer(img_size=16, patch_size=8, embed_dim=12, depth=12, num_heads=1)
    found = adapters(tune(backbone, MedTuning()))
    assert [i for i, adapter in enumerate(found) if adapter.inter is not None] == [2, 5, 8, 11]


@pytest.mark.parametrize("body", ["vit", "swin"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_nothing_is_kept_after_a_step(body, checkpointing, tuned):
    model = tuned(body, MedTuning())
    model.backbone.set_grad_checkpointing(checkpointing)
    loss = model(torch.randn(1, 3, 4, 32, 32)).square().mean()
    graph = [weakref.ref(feature) for feature in relay(model).features.values()]
    assert graph
    loss.backward()
    del loss
    gc.collect()
    assert not relay(model).features and not any(feature() is not None for feature in graph)


def test_nothing_is_kept_after_a_prediction(tuned):
    model = tuned("vit", MedTuning()).eval()
    with torch.no_grad():
        model(torch.randn(1, 3, 4, 32, 32))
    assert not relay(model).features


def test_a_model_that_never_went_backward_can_be_copied_and_forgotten(tuned):
    model = tuned("vit", MedTuning())
    x = torch.randn(1, 3, 4, 32, 32)
    model(x)
    assert relay(model).features
    again = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    assert relay(again) is not relay(model) and not relay(again).features
    assert len({id(m.relay) for m in again.modules() if isinstance(m, InterStage)}) == 1
    assert torch.equal(again.eval()(x), model.eval()(x))
    gone = weakref.ref(relay(model))
    del model
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("body", ["vit", "swin"])
def test_without_fourier_a_slice_reaches_two_neighbours_a_block_and_with_it_all(body, tuned):
    x = torch.randn(1, 12, 4, 32, 32)
    other = x.clone()
    other[:, 0] = torch.randn_like(other[:, 0])
    for fourier, reach in ((None, 4 * 2), ("complex", 11), ("released", 11)):
        model = tuned(body, MedTuning(fourier=fourier)).eval()
        changed = (model(x) != model(other)).flatten(2).any(-1)[0]
        assert changed.tolist() == [s <= reach for s in range(12)], fourier


def test_without_its_parts_it_is_an_adapter_that_sees_one_token(vit):
    plain = MedTuning(local=False, fourier=None, mixing=False, interaction=None)
    adapter, x = adapters(awake(tune(copy.deepcopy(vit), plain)))[0], torch.randn(1, 2, 4, 4, 32)
    torch.testing.assert_close(adapter(x), x + adapter.W_up(F.gelu(adapter.W_down(x))))


@pytest.mark.parametrize("part", ["local", "fourier", "mixing", "interaction"])
def test_every_part_can_be_left_out_alone(part, tuned):
    off = {part: False if part in ("local", "mixing") else None}
    model = tuned("swin", MedTuning(**off))
    model(torch.randn(1, 2, 4, 32, 32)).square().mean().backward()
    names = {"local": "branches.2", "fourier": "W_F", "mixing": "intra.mix", "interaction": "inter."}
    assert not any(names[part] in name for name in delta(model))
    still = {n for n, p in delta(model).items() if not p.grad.any()}
    assert all(n.endswith("align.weight") for n in still)


def test_running_statistics_belong_to_what_is_saved(tuned):
    names = state(tuned("vit", MedTuning()))
    assert sum(name.endswith("running_var") for name in names) == 4 * 2


@pytest.mark.parametrize(
    "settings, wrong",
    [
        (dict(fourier="real"), "fourier is 'complex', 'released' or None"),
        (dict(interaction="mean"), "interaction 'concat'"),
        (dict(start="random"), "start 'zero'"),
        (dict(ratio=0), "ratio 1 to 32"),
        (dict(ratio=33), "ratio 1 to 32"),
        (dict(T=0), "at least 1"),
        (dict(local=False, fourier=None), "nothing to mix"),
    ],
)
def test_refuses_settings_it_does_not_know(settings, wrong, vit):
    model = copy.deepcopy(vit)
    with pytest.raises(ValueError, match=wrong):
        tune(model, MedTuning(**settings))
    assert not adapters(model)


@pytest.mark.parametrize("fourier", ["complex", "released"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_whole_network_may_be_in_another_type_of_numbers(fourier, dtype, vit):
    model = tune(copy.deepcopy(vit), MedTuning(fourier=fourier)).eval()
    for p in delta(model).values():
        nn.init.normal_(p, std=0.05)
    x = torch.randn(1, 3, 4, 32, 32)
    expected = model(x)
    found = model.to(dtype)(x.to(dtype))
    assert found.dtype == dtype and (found.float() - expected).norm() < 0.05 * expected.norm()
    found.float().square().mean().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
