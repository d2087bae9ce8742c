"""What every method must keep, whatever its paper: one test per promise, over METHODS x {ViT, Swin}.

The networks are small and random: a promise holds for weights of any kind.
"""

import copy
from dataclasses import replace

import pytest
import torch

from labkit.methods import METHODS
from labkit.networks.anatomy import backbone_of
from labkit.tuning import bypass, count, delta, load, merge, save, state, tune, unmerge, wrappers

# do not start as the pretrained network, as their papers have it
OTHERWISE = {"scratch", "prompt", "prefix", "vpt_shallow", "vpt_deep"}
MERGEABLE = {"lora", "lora_plus", "dylora", "long_lora", "fact_tt", "fact_tk", "adapter_bias"}
PLAIN = {"full", "head", "scratch", "bitfit"}  # put nothing around the pretrained modules
VOLUMETRIC = {"st_adapter", "med_tuning"}  # a slice sees its neighbours
VIT_ONLY = {"long_lora"}
STILL = {  # endings of parameters whose gradient is zero for ever, and said so
    "med_tuning": ("blocks.0.adapter.inter.align.weight", "layers.0.blocks.1.adapter.inter.align.weight"),
}
CASES = [
    (name, body) for name in METHODS for body in ("vit", "swin") if body == "vit" or name not in VIT_ONLY
]
EVERY = pytest.mark.parametrize("name, body", CASES, ids=["-".join(case) for case in CASES])


@pytest.fixture
def new(body, vit, swin):
    return lambda: copy.deepcopy({"vit": vit, "swin": swin}[body])


@pytest.fixture
def volumes():
    return torch.randn(2, 3, 4, 32, 32)


def learn(model, volumes, steps=3):
    """Adam, since its steps do not shrink with the gradient, as those of SGD do below float's resolution."""
    optimizer = torch.optim.Adam(delta(model).values(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        model(volumes).square().mean().backward()
        optimizer.step()
    return model


@EVERY
def test_starts_as_the_pretrained_network_or_declares_that_it_does_not(name, new, volumes):
    before = new().eval()(volumes)
    after = tune(new(), METHODS[name]()).eval()(volumes)
    assert torch.equal(before, after) == (name not in OTHERWISE)


@EVERY
def test_two_calls_give_the_same_bits_whatever_was_drawn_before(name, new):
    first = tune(new(), METHODS[name]())
    torch.rand(5)
    second, other = tune(new(), METHODS[name]()), tune(new(), METHODS[name](), seed=1)
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)]
    assert all(same)
    draws = name not in {"full", "head", "bitfit"}
    moved = [not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True)]
    assert any(moved) == draws, "the seed decides what a method draws, and nothing else"


@EVERY
def test_drawing_leaves_the_random_numbers_of_the_notebook_alone(name, new):
    model, before = new(), torch.get_rng_state()
    tune(model, METHODS[name]())
    assert torch.equal(torch.get_rng_state(), before)


@EVERY
def test_only_the_delta_learns_and_all_of_it_does(name, body, new, volumes):
    model = tune(new(), METHODS[name]())
    before = {n: p.clone() for n, p in model.named_parameters()}
    learn(model, volumes)
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    still = {n for n in delta(model) if n.endswith(STILL.get(name, ()))}
    assert moved == delta(model).keys() - still


@EVERY
def test_a_volume_does_not_see_its_neighbour_in_the_batch(name, new, volumes):
    model = tune(new(), METHODS[name]()).eval()
    other = volumes.clone()
    other[0] += torch.randn_like(other[0])
    assert torch.equal(model(volumes)[1], model(other)[1])


@EVERY
def test_a_slice_reaches_its_neighbours_only_where_a_method_is_volumetric(name, new, volumes):
    model = learn(tune(new(), METHODS[name]()), volumes).eval()
    other = volumes.clone()
    other[:, 0] += torch.randn_like(other[:, 0])
    changed = (model(volumes) != model(other)).flatten(2).any(-1)  # (B, S)
    assert changed[:, 0].all()
    assert changed[:, 1].all() == (name in VOLUMETRIC)


@EVERY
def test_a_saved_delta_restores_a_fresh_model_to_the_bit(name, new, volumes, tmp_path):
    model = learn(tune(new(), METHODS[name]()), volumes)
    save(model, tmp_path / "delta.safetensors")
    again = load(tune(new(), METHODS[name](), seed=7), tmp_path / "delta.safetensors")
    for key, tensor in state(model).items():
        assert torch.equal(state(again)[key], tensor), key
    if name != "scratch":  # whose frozen buffers, if any, are not of the delta
        assert torch.equal(model.eval()(volumes), again.eval()(volumes))


@EVERY
def test_another_methods_file_is_refused_by_name(name, new, tmp_path):
    save(tune(new(), METHODS[name]()), tmp_path / "delta.safetensors")
    other = METHODS["head" if name != "head" else "lora"]()
    with pytest.raises(ValueError, match=type(METHODS[name]()).__name__):
        load(tune(new(), other), tmp_path / "delta.safetensors")


@EVERY
@pytest.mark.parametrize("slices", [2, 4, 8])
def test_gradients_under_bfloat16_are_those_of_float32(name, slices, new, volumes):
    """Within 5 % of their norm: PyTorch 2.14 gets those of a depthwise Conv3d wrong if one lets it (CPU)."""
    x = volumes[:1, :1].expand(-1, slices, -1, -1, -1) + 0.1 * torch.randn(1, slices, *volumes.shape[2:])
    model = learn(tune(new(), METHODS[name]()), x, steps=1)
    gradients = []
    for autocast in (False, True):
        model.zero_grad()
        torch.manual_seed(0)  # dropout
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = model(x).float()
        y.square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in delta(model).values()]))
    exact, rounded = gradients
    assert (exact - rounded).norm() <= 0.05 * exact.norm()


@EVERY
def test_gradient_checkpointing_changes_nothing(name, new, volumes):
    model = tune(new(), METHODS[name]())
    torch.manual_seed(0)
    model(volumes).square().mean().backward()
    plain = {n: p.grad.clone() for n, p in delta(model).items()}
    model.zero_grad()
    model.backbone.set_grad_checkpointing()
    torch.manual_seed(0)
    model(volumes).square().mean().backward()
    for n, p in delta(model).items():
        torch.testing.assert_close(p.grad, plain[n], rtol=1e-4, atol=1e-6)


@EVERY
def test_bypass_shows_the_pretrained_network_and_puts_everything_back(name, new, volumes):
    model = tune(new(), METHODS[name]()).eval()
    if not model.keeps_pretrained:
        with pytest.raises(ValueError, match="load a fresh one"), bypass(model):
            pass
        return
    for p in delta(backbone_of(model)).values():
        if p.ndim > 1:
            torch.nn.init.normal_(p, std=0.1)
    expected = new().eval()
    expected.backbone.norm.load_state_dict(model.backbone.norm.state_dict())  # belongs to the head
    tuned, paths = model(volumes), [n for n, _ in wrappers(model)]
    with bypass(model):
        assert not wrappers(model)
        assert torch.equal(model(volumes), expected(volumes))
    assert [n for n, _ in wrappers(model)] == paths
    assert torch.equal(model(volumes), tuned)


@EVERY
def test_merged_is_the_same_function_with_plain_names_and_unmerged_is_what_was(name, new, volumes):
    model = tune(new(), METHODS[name]()).eval()
    plain = {n: type(m) for n, m in new().named_modules()}
    if name not in MERGEABLE | PLAIN:
        with pytest.raises(ValueError, match="can't be merged"):
            merge(model)
        assert wrappers(model), "a refused merge must not have begun"
        return
    learn(model, volumes)
    before, was = model.eval()(volumes), copy.deepcopy(model.state_dict())
    merge(model)
    torch.testing.assert_close(model(volumes), before, rtol=1e-4, atol=1e-4)
    assert {n: type(m) for n, m in model.named_modules()} == plain
    if name in MERGEABLE:
        unmerge(model)
        assert all(torch.equal(tensor, was[n]) for n, tensor in model.state_dict().items())
        assert model.state_dict().keys() == was.keys()
        assert torch.equal(model(volumes), before)


@EVERY
def test_is_counted_as_its_paper_counts(name, body, new):
    model = new()
    everything = sum(p.numel() for p in model.parameters())
    only_head = sum(p.numel() for p in model.decoder.parameters()) + 2 * model.backbone.num_features
    inserted, chosen = closed_form(name, body)
    tuned = everything if chosen is None else only_head + chosen + inserted
    counted = count(tune(model, METHODS[name]()))
    assert (counted.tuned, counted.inserted, counted.pretrained) == (tuned, inserted, everything)


def bottleneck(d: int, m: int) -> int:
    return 2 * d * m + m + d


def closed_form(name: str, body: str) -> tuple[int, int | None]:
    """Parameters inserted by the default of a method, and pretrained ones it chooses (None: all of them)."""
    widths = [32] * 4 if body == "vit" else [32, 32, 64, 64]  # d of each block; d_ff is 4 d
    if name in ("full", "scratch"):
        return 0, None
    if (
        name == "bitfit"
    ):  # a block: 3d + d + 4d + d, two norms; Swin norms its patches and before it merges them
        patches = 32 if body == "vit" else 32 + 32 + 4 * 32
        return 0, sum(11 * d for d in widths) + patches
    stages = widths if body == "vit" else widths[1::2]
    if name == "long_lora":  # chosen: two norms per block, the patch projection and the positions
        return sum(8 * 2 * 4 * d for d in widths), sum(4 * d for d in widths) + (64 * 4 + 1 + 16) * 32
    return {
        "head": 0,
        "prompt": 10 * widths[0],
        "prefix": 10 * widths[0] + (widths[0] + 1) * 512 + (512 + 1) * 2 * sum(widths),
        "vpt_shallow": 10 * widths[0],
        "vpt_deep": sum(10 * d for d in widths),
        "lora": sum(2 * 8 * 2 * d for d in widths),
        "adapter": sum(2 * bottleneck(d, d // 8) for d in widths),
        "parallel_adapter": sum(bottleneck(d, 64) for d in widths),
        "adapter_drop": sum(2 * bottleneck(d, d // 8) for d in widths[1:]),
        "adapter_bias": sum(d + 4 * d + 1 for d in widths),
        "compacter": sum(2 * (2 * (d + 4) + d + 4) for d in widths) + 4**3,
        "adaptformer": sum(bottleneck(d, 64) for d in widths),
        "st_adapter": sum(d * d + d + d // 2 + 4 * d // 2 for d in widths),
        "pro_tuning": sum(2 * d * d + 28 * d for d in stages),
        "med_tuning": sum(med_tuning(d, 4 * 4 if d == 64 or body == "vit" else 8 * 8) for d in widths)
        + sum((3 if body == "vit" else 2) * (d // 6) ** 2 + 2 * (d // 6) for d in stages)
        + (0 if body == "vit" else 9 * (5 * 2 + 10 * 5)),
        "lora_plus": sum(2 * 8 * 2 * d for d in widths),
        "dylora": sum(2 * 8 * 2 * d for d in widths),
        "ln_lora": sum(2 * (8 * 2 * d + 2 * d) for d in widths),
        "fact_tt": sum(2 * d * 16 + 12 * widths.count(d) * 16**2 for d in set(widths)),
        "fact_tk": sum(2 * d * 32 + 12 * widths.count(d) * 32 + 32**3 for d in set(widths)),
    }[name], 0


def med_tuning(d: int, hw: int) -> int:
    """Down, up, branches, mixing, and two complex filters for 16 slices."""
    m = d // 6
    return 2 * d * m + m**2 + 52 * m + d + 2 * 2 * 16 * hw


@EVERY
def test_a_model_can_be_tuned_only_once(name, new):
    model = tune(new(), METHODS[name]())
    with pytest.raises(ValueError, match="already tuned by"):
        tune(model, METHODS[name]())


def test_methods_are_values():
    assert METHODS["lora"]() == METHODS["lora"](r=8)
    assert replace(METHODS["lora"](), r=2) != METHODS["lora"]()
