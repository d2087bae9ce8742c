import copy
import json

import pytest
import torch

from labkit.methods import (
    Adapter,
    AdapterBias,
    AdapterDrop,
    AdaptFormer,
    BitFit,
    FacTTT,
    Full,
    Head,
    LoRA,
    LoRAPlus,
    ParallelAdapter,
    PromptTuning,
    Scratch,
    VPTDeep,
)
from labkit.networks.segmenter import segmenter
from labkit.tuning import count, delta, load, save, tune


def test_tuning_freezes_all_but_the_method_and_the_head(fresh):
    model = tune(fresh(), LoRA())
    for name, p in model.named_parameters():
        learns = name.startswith(("decoder.", "backbone.norm.")) or name.endswith((".A", ".B"))
        assert p.requires_grad == learns, name
    assert model.tuned_by == LoRA()


def test_counts_of_full_and_head_add_up(fresh):
    full, head = count(tune(fresh(), Full())), count(tune(fresh(), Head()))
    assert full.tuned == full.pretrained == head.pretrained and full.inserted == head.inserted == 0
    assert 0 < head.tuned < 0.1 * head.pretrained


def test_a_shared_parameter_stands_once_in_the_delta(fresh):
    model = fresh()
    model.decoder.again = model.decoder.head
    assert delta(tune(model, Head())).keys() == delta(tune(fresh(), Head())).keys()


def test_a_delta_is_small_and_holds_nothing_pretrained(fresh, tmp_path):
    model = tune(fresh(), LoRA(r=2))
    save(model, tmp_path / "delta.safetensors")
    assert (tmp_path / "delta.safetensors").stat().st_size < 4.1 * count(model).tuned + 20_000


def unchanged(model, path, match):
    before = {name: p.clone() for name, p in model.state_dict().items()}
    with pytest.raises(ValueError, match=match):
        load(model, path)
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())


def test_a_delta_of_another_rank_is_refused_and_both_are_named(fresh, tmp_path):
    save(tune(fresh(), LoRA(r=2)), tmp_path / "delta")
    unchanged(tune(fresh(), LoRA(r=4)), tmp_path / "delta", '"r": 2.*tuned by.*"r": 4')


def test_a_delta_for_other_classes_is_refused_before_anything_changes(fresh, tmp_path):
    save(tune(segmenter(classes=2), LoRA()), tmp_path / "delta")
    unchanged(tune(fresh(), LoRA()), tmp_path / "delta", "does not fit this model: decoder.head")


def test_a_file_that_holds_no_tensors_is_refused(fresh, tmp_path):
    (tmp_path / "delta").write_bytes(b"nothing of the kind")
    unchanged(tune(fresh(), Head()), tmp_path / "delta", "no readable safetensors file")


def test_equal_networks_are_equal_bytes(fresh, tmp_path):
    model, said = tune(fresh(), LoRA()), {"labels": [0, 1], "note": 'ä "quoted" \n line'}
    for i in range(8):
        save(model, tmp_path / f"{i}", **said)
    (written,) = {path.read_bytes() for path in tmp_path.iterdir()}
    header = json.loads(written[8 : 8 + int.from_bytes(written[:8], "little")])
    assert list(header["__metadata__"]) == ["about", "backbone", "labkit"]
    assert json.loads(header["__metadata__"]["about"])["note"] == said["note"]
    same = load(tune(fresh(), LoRA(), seed=1), tmp_path / "0")
    assert all(torch.equal(p, delta(same)[name]) for name, p in delta(model).items())


def test_a_cut_off_file_is_refused(fresh, tmp_path):
    save(tune(fresh(), Head()), tmp_path / "delta")
    (tmp_path / "delta").write_bytes((tmp_path / "delta").read_bytes()[:-100])
    unchanged(tune(fresh(), Head()), tmp_path / "delta", "no readable safetensors file")


def test_a_file_of_someone_else_is_refused(fresh, tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "delta")
    unchanged(tune(fresh(), Head()), tmp_path / "delta", "holds a delta of None")


def other_backbone(method):
    return tune(segmenter(weights=None, seed=7), method)


@pytest.mark.parametrize("method", [LoRA(r=2), Head(), (BitFit(), LoRA(r=2))], ids=str)
def test_a_delta_of_another_backbone_is_refused_and_its_network_named(method, fresh, tmp_path):
    save(tune(fresh(), method), tmp_path / "delta")
    unchanged(
        other_backbone(method), tmp_path / "delta", "other weights than this model's.*'backbone': 'tiny'"
    )


def test_where_nothing_is_frozen_a_delta_is_the_whole_network(fresh, tmp_path):
    trained = tune(fresh(), Full())
    save(trained, tmp_path / "delta")
    again = load(other_backbone(Full()), tmp_path / "delta")
    assert all(torch.equal(p, delta(again)[name]) for name, p in delta(trained).items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_backbone_is_itself_in_another_type_of_numbers(dtype, fresh, tmp_path):
    save(tune(fresh(), LoRA(r=2)).to(dtype), tmp_path / "delta")
    load(tune(fresh(), LoRA(r=2)), tmp_path / "delta")


def test_one_frozen_number_makes_another_backbone(fresh, tmp_path):
    save(tune(fresh(), LoRA(r=2)), tmp_path / "delta")
    model = tune(fresh(), LoRA(r=2))
    model.backbone.blocks[3].mlp.fc2.weight.data[5, 7] += 0.5
    unchanged(model, tmp_path / "delta", "other weights")


def test_files_from_before_they_named_their_backbone_are_read():
    from labkit.explore import deltas

    kinds = [name for name in deltas.DELTAS if not name.startswith("rank-")]
    assert len(kinds) > 10
    for name in kinds:
        deltas.network(name)


@pytest.mark.parametrize(
    "one, other",
    [
        (LoRA(r=2, alpha=8), LoRA(r=2, alpha=8.0)),
        (LoRA(r=2, targets=("q", "v", "fc1")), LoRA(r=2, targets=("fc1", "v", "q"))),
        (Adapter(m=4, where=("attn", "mlp")), Adapter(m=4, where=("mlp", "attn"))),
        ((BitFit(), LoRA(r=2)), (LoRA(r=2), BitFit())),
        (LoRA(r=2), (LoRA(r=2),)),
        (AdapterDrop(m=4), AdapterDrop(m=4)),
    ],
    ids=str,
)
def test_equal_settings_written_differently_are_equal(one, other, fresh, tmp_path):
    trained = tune(fresh(), one)
    for p in delta(trained).values():
        torch.nn.init.normal_(p, std=0.1)
    save(trained, tmp_path / "delta")
    again, x = load(tune(fresh(), other, seed=5), tmp_path / "delta"), torch.randn(1, 4, 96, 96)
    assert torch.equal(again.eval()(x), trained.eval()(x))


@pytest.mark.parametrize("other", [LoRA(r=2, alpha=9), LoRA(r=2, alpha=8, targets=("q", "k"))], ids=str)
def test_other_settings_of_equal_shapes_are_refused(other, fresh, tmp_path):
    save(tune(fresh(), LoRA(r=2, alpha=8)), tmp_path / "delta")
    unchanged(tune(fresh(), other), tmp_path / "delta", "holds a delta of")


def test_a_file_with_a_number_that_is_not_finite_is_refused_by_name(fresh, tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    save(tune(fresh(), LoRA(r=2)), tmp_path / "delta")
    with safe_open(tmp_path / "delta", "pt") as file:
        said, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    tensors["backbone.blocks.1.attn.qkv.B"][0, 0, 0] = torch.nan
    save_file(tensors, tmp_path / "delta", said)
    unchanged(
        tune(fresh(), LoRA(r=2)), tmp_path / "delta", r"blocks\.1\.attn\.qkv\.B holds .* NaN or infinite"
    )


@pytest.mark.parametrize("number, half, cure", [(1e6, True, "half=False"), (float("nan"), False, "diverged")])
def test_what_a_file_could_not_hold_is_not_written(number, half, cure, fresh, tmp_path):
    model = tune(fresh(), LoRA(r=2))
    model.backbone.blocks[1].attn.qkv.B.data[0, 0, 0] = number
    with pytest.raises(ValueError, match=rf"is not written: .*blocks\.1\.attn\.qkv\.B.*{cure}"):
        save(model, tmp_path / "delta", half=half)
    assert not list(tmp_path.iterdir())


def test_a_compiled_models_file_has_plain_names(fresh, tmp_path):
    whole = torch.compile(tune(fresh(), LoRA(r=2)), backend="eager")
    part = tune(fresh(), LoRA(r=2))
    part.backbone.blocks[0] = torch.compile(part.backbone.blocks[0], backend="eager")
    plain = tune(fresh(), LoRA(r=2))
    for compiled in (whole, part):
        assert delta(compiled).keys() == delta(plain).keys()
        save(compiled, tmp_path / "delta")
        load(tune(fresh(), LoRA(r=2)), tmp_path / "delta")
        load(compiled, tmp_path / "delta")


class Failing(LoRA):
    """Injects half, changes a pretrained number, leaves an attribute, and fails."""

    def inject(self, backbone):
        super().inject(backbone)
        with torch.no_grad():
            next(backbone.parameters()).add_(1.0)
        backbone.left = backbone.blocks[0].left = "behind"
        raise KeyError("in the middle")


@pytest.mark.parametrize(
    "method, error",
    [
        ((Scratch(), LoRA(r=0)), ValueError),
        ((LoRA(), VPTDeep(n=0)), ValueError),
        ((Full(), AdapterDrop(n=99)), ValueError),
        (Failing(), KeyError),
        ((Scratch(), Failing()), KeyError),
    ],
    ids=str,
)
def test_a_tuning_that_fails_leaves_the_model_as_it_was(method, error, fresh):
    model = fresh()
    model.backbone.blocks[0].requires_grad_(False)  # whatever learned before
    before, structure = copy.deepcopy(model.state_dict()), {n: type(m) for n, m in model.named_modules()}
    learns, attributes = (
        [p.requires_grad for p in model.parameters()],
        set(dir(model)) | set(dir(model.backbone)),
    )
    with pytest.raises(error):
        tune(model, method)
    assert {n: type(m) for n, m in model.named_modules()} == structure
    assert [p.requires_grad for p in model.parameters()] == learns
    assert set(dir(model)) | set(dir(model.backbone)) == attributes and not hasattr(
        model.backbone.blocks[0], "left"
    )
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    numbers = count(tune(model, Head()))
    assert (numbers.inserted, numbers.pretrained) == (0, count(tune(fresh(), Head())).pretrained)


@pytest.mark.parametrize(
    "members",
    [
        (Full(), BitFit()),
        (Head(), BitFit()),
        (BitFit(), LoRA(r=2), Adapter(m=4), PromptTuning(n=2)),
        (LoRAPlus(targets=("fc2",)), AdapterBias(), FacTTT(r=2)),
        (ParallelAdapter(m=4), Adapter(m=4), AdaptFormer(m=4)),
    ],
    ids=str,
)
def test_the_order_of_a_tuple_never_matters(members, vit):
    models = [tune(copy.deepcopy(vit), order).eval() for order in (members, members[::-1])]
    first, second = map(delta, models)
    assert list(first) == list(second)
    for name, p in first.items():
        assert torch.equal(p, second[name]), "they draw the same numbers"
        torch.nn.init.normal_(p, std=0.1)
        second[name].data.copy_(p)
    x = torch.randn(2, 4, 32, 32)
    assert torch.equal(models[0](x), models[1](x))
    assert models[0].tuned_by == models[1].tuned_by


def test_beside_full_tuning_bitfit_adds_nothing_and_takes_nothing(fresh):
    assert count(tune(fresh(), (Full(), BitFit()))).tuned == count(tune(fresh(), Full())).tuned
