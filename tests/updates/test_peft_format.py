"""Against the real peft, on the same timm backbones. Without peft installed they are skipped."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from labkit.methods import BitFit, DyLoRA, LoRA, LoRAPlus
from labkit.methods.dylora import truncate
from labkit.methods.lora import LoRALinear
from labkit.tuning import delta, merge, tune
from labkit.updates.peft_format import CONFIG, WEIGHTS, load_peft, save_peft

peft = pytest.importorskip("peft")
SIX = ("q", "k", "v", "o", "fc1", "fc2")
LAYERS = ["attn.qkv", "attn.proj"]
METHODS = [
    LoRA(),
    LoRA(r=4, alpha=6.0, targets=SIX, dropout=0.1),
    LoRA(r=3, targets=("k", "o")),
    LoRAPlus(r=2, alpha=1, targets=("v", "fc1")),
]


@pytest.fixture
def new(vit, swin):
    """A fresh model, tuned, its LoRA filled with what training might have left."""

    def tuned(method, body="vit", seed=0):
        model = tune(copy.deepcopy({"vit": vit, "swin": swin}[body]), method, seed).eval()
        for layer in model.modules():
            if isinstance(layer, LoRALinear):
                nn.init.normal_(layer.B, std=0.3)
        return model

    return tuned


@pytest.fixture
def x():
    return torch.randn(2, 4, 32, 32)


def theirs(model, folder):
    return peft.PeftModel.from_pretrained(copy.deepcopy(model.backbone), folder).eval()


def from_peft(model, folder, seed=0, **config):
    """A peft model on the same backbone with filled LoRA weights, saved to the folder."""
    torch.manual_seed(seed)
    wrapped = peft.get_peft_model(copy.deepcopy(model.backbone), peft.LoraConfig(**config)).eval()
    for name, p in wrapped.named_parameters():
        if "lora_" in name:
            nn.init.normal_(p, std=0.3)
    wrapped.save_pretrained(folder)
    return wrapped


@pytest.mark.parametrize("body", ["vit", "swin"])
@pytest.mark.parametrize("method", METHODS, ids=lambda m: "-".join(m.targets))
def test_ours_to_peft_to_ours(method, body, new, vit, swin, x, tmp_path):
    model, plain = new(method, body), {"vit": vit, "swin": swin}[body].eval()
    save_peft(model, tmp_path / "ours")
    wrapped = theirs(plain, tmp_path / "ours")
    expected = model.backbone(x)
    torch.testing.assert_close(wrapped(x), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(plain.backbone(x), expected, atol=1e-2)
    wrapped.save_pretrained(tmp_path / "theirs")
    again = load_peft(new(method, body, seed=1), tmp_path / "theirs")
    assert torch.equal(again.backbone(x), expected)
    lora = {name: p for name, p in delta(model).items() if name.endswith((".A", ".B"))}
    assert all(torch.equal(p, delta(again)[name]) for name, p in lora.items())


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("alpha", [4, 10])
def test_any_lora_of_peft_on_the_fused_qkv_is_ours_on_q_k_and_v(alpha, rslora, new, vit, x, tmp_path):
    config = dict(r=4, lora_alpha=alpha, use_rslora=rslora, target_modules=LAYERS)
    wrapped = from_peft(vit.eval(), tmp_path, **config)
    model = load_peft(new(LoRA(r=4, targets=("q", "k", "v", "o"))), tmp_path)
    torch.testing.assert_close(model.backbone(x), wrapped(x), rtol=1e-4, atol=1e-4)


def test_a_scale_for_some_layers_is_read(new, vit, x, tmp_path):
    config = dict(r=4, lora_alpha=4, alpha_pattern={"blocks.1.attn.proj": 12}, target_modules=LAYERS)
    wrapped = from_peft(vit.eval(), tmp_path, **config)
    model = load_peft(new(LoRA(r=4, targets=("q", "k", "v", "o"))), tmp_path)
    torch.testing.assert_close(model.backbone(x), wrapped(x), rtol=1e-4, atol=1e-4)


def unchanged(model, folder, match):
    before = {name: p.clone() for name, p in model.state_dict().items()}
    with pytest.raises(ValueError, match=match):
        load_peft(model, folder)
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())


def test_what_peft_went_on_training_is_no_longer_q_and_v_alone(new, vit, tmp_path):
    save_peft(new(LoRA(r=4)), tmp_path)
    wrapped = theirs(vit, tmp_path)
    wrapped.base_model.model.blocks[2].attn.qkv.lora_B.default.weight.data += 0.1
    wrapped.save_pretrained(tmp_path)
    unchanged(new(LoRA(r=4)), tmp_path, r'blocks.2.attn.qkv has rank 8 .*LoRA\(r=8\) with "q", "k" and "v"')


def test_another_rank_or_other_layers_are_refused_and_named(new, vit, tmp_path):
    from_peft(vit, tmp_path, r=4, target_modules=["attn.proj"])
    unchanged(
        new(LoRA(r=2, targets=("o",))), tmp_path, r"rank 4 and does not fit LoRA of rank 2.*LoRA\(r=4\)\."
    )
    unchanged(new(LoRA(r=4, targets=("o", "fc1"))), tmp_path, "not on the same layers.*fc1")
    unchanged(new(LoRA(r=4)), tmp_path, "not on the same layers")


@pytest.mark.filterwarnings("ignore:Adapter 'default'")
@pytest.mark.parametrize(
    "config, match",
    [
        (dict(use_dora=True), "use_dora"),
        (dict(init_lora_weights="pissa"), "started by 'pissa'"),
        (dict(lora_bias=True), "was trained with lora_bias=True"),
        (dict(modules_to_save=["norm1"]), r"was trained with modules_to_save=\['norm1'\]"),
        (dict(bias="lora_only"), "was trained with bias='lora_only'"),
        (dict(bias="all"), "was trained with bias='all'"),
    ],
)
def test_what_is_not_plain_lora_is_refused(config, match, new, vit, tmp_path):
    from_peft(vit, tmp_path, r=4, target_modules=["attn.proj"], **config)
    unchanged(new(LoRA(r=4, targets=("o",))), tmp_path, match)


def test_another_method_of_peft_is_refused(new, vit, tmp_path):
    config = peft.IA3Config(target_modules=["attn.proj"], feedforward_modules=[])
    peft.get_peft_model(copy.deepcopy(vit.backbone), config).save_pretrained(tmp_path)
    unchanged(new(LoRA(targets=("o",))), tmp_path, "not plain LoRA.*IA3")


def test_an_unreadable_folder_is_refused(new, tmp_path):
    unchanged(new(LoRA()), tmp_path / "nowhere", "holds no readable adapter_config.json")
    save_peft(new(LoRA()), tmp_path)
    (tmp_path / CONFIG).write_text("{")
    unchanged(new(LoRA()), tmp_path, "holds no readable adapter_config.json")


def test_only_lora_alone_is_written_and_a_cut_dylora_is(new, vit, x, tmp_path):
    for method in (DyLoRA(), (BitFit(), LoRA())):
        with pytest.raises(ValueError, match="Only a model tuned by LoRA alone"):
            save_peft(new(method), tmp_path / "none")
    with pytest.raises(ValueError, match="call unmerge"):
        save_peft(merge(new(LoRA())), tmp_path / "none")
    assert not (tmp_path / "none").exists()
    model = truncate(new(DyLoRA()), 3)
    save_peft(model, tmp_path / "cut")
    torch.testing.assert_close(
        theirs(vit.eval(), tmp_path / "cut")(x), model.backbone(x), rtol=1e-5, atol=1e-5
    )


def test_a_file_without_scale_pattern_keeps_names_that_peft_uses(new, tmp_path):
    save_peft(new(LoRA(r=2, targets=("o",))), tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text())
    assert config["peft_type"] == "LORA" and config["rank_pattern"] == {}
    assert config["target_modules"] == [f"blocks.{i}.attn.proj" for i in range(4)]


def test_numbers_that_are_not_finite_are_refused_by_name_out_and_in(new, vit, tmp_path):
    ill = new(LoRA(r=4))
    ill.backbone.blocks[1].attn.qkv.B.data[0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"not written: .*blocks\.1\.attn\.qkv\.lora_B.*NaN"):
        save_peft(ill, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    save_peft(new(LoRA(r=4)), tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    next(t for name, t in tensors.items() if "blocks.2" in name and "lora_B" in name)[0, 0] = torch.nan
    save_file(tensors, tmp_path / WEIGHTS)
    unchanged(new(LoRA(r=4)), tmp_path, r"blocks\.2\.attn\.qkv\.lora_B.weight holds .*NaN")


def test_unlike_ranks_a_missing_scale_and_a_pickle_are_each_named(new, vit, tmp_path):
    config = dict(r=4, rank_pattern={"blocks.1.attn.proj": 2}, target_modules=["attn.proj"])
    from_peft(vit, tmp_path, **config)
    unchanged(
        new(LoRA(r=4, targets=("o",))), tmp_path, r"layers of unlike ranks \(2, 4\).*without rank_pattern"
    )
    save_peft(new(LoRA(r=4)), tmp_path)
    said = json.loads((tmp_path / CONFIG).read_text())
    del said["lora_alpha"]
    (tmp_path / CONFIG).write_text(json.dumps(said))
    unchanged(new(LoRA(r=4)), tmp_path, "no number as lora_alpha")
    (tmp_path / WEIGHTS).rename(tmp_path / "adapter_model.bin")
    unchanged(new(LoRA(r=4)), tmp_path, "pickle.*safe_serialization=True")


@pytest.mark.parametrize(
    "more", [dict(bias="lora_only"), dict(bias="all"), dict(modules_to_save=["head"])], ids=str
)
def test_a_file_whose_other_training_peft_did_not_write_is_refused(more, new, tmp_path):
    save_peft(new(LoRA(r=4)), tmp_path)
    said = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps(said | more))
    unchanged(new(LoRA(r=4)), tmp_path, f"was trained with {next(iter(more))}=")
