"""`tune` on networks that are not labkit's: layers found by name, trained, merged, kept; peft the oracle."""

import copy

import pytest
import torch
from torch import nn

from labkit.methods import (
    Adapter,
    AdapterBias,
    BitFit,
    DyLoRA,
    FacTTK,
    FacTTT,
    Full,
    Head,
    LNLoRA,
    LoRA,
    LoRAPlus,
    Scratch,
    VPTDeep,
)
from labkit.methods.lora import LoRAConv
from labkit.tuning import bypass, count, delta, load, merge, save, tune, unmerge
from labkit.updates.peft_format import load_peft, save_peft


def torchvision_vit():
    from torchvision.models import VisionTransformer

    return VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=3)


def torchvision_swin():
    from torchvision.models.swin_transformer import SwinTransformer

    return SwinTransformer([2, 2], 8, [2, 2], [2, 2], [2, 2], num_classes=3)


def hugging_face_vit():
    from transformers import ViTConfig, ViTForImageClassification

    size = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    return ViTForImageClassification(ViTConfig(**size, image_size=32, patch_size=8, num_labels=3))


def monai_unetr():
    from monai.networks.nets import UNETR

    return UNETR(1, 2, (16, 16, 16), feature_size=4, hidden_size=24, mlp_dim=48, num_heads=2)


def monai_unet():
    from monai.networks.nets import UNet

    return UNet(spatial_dims=3, in_channels=1, out_channels=2, channels=(4, 8, 16), strides=(2, 2))


class Mine(nn.Module):
    """Somebody's own: a backbone of timm's, and a head beside it."""

    def __init__(self):
        super().__init__()
        import timm

        size = dict(img_size=32, patch_size=8, embed_dim=24, depth=4, num_heads=2, num_classes=0)
        self.backbone = timm.create_model("vit_tiny_patch16_224", **size)
        self.head = nn.Linear(24, 3)

    def forward(self, x):
        return self.head(self.backbone(x))


IMAGES, SCAN = (2, 3, 32, 32), (1, 1, 16, 16, 16)
NETWORKS = {  # name: network, an input, targets, head
    "torchvision ViT": (torchvision_vit, IMAGES, ("out_proj", "mlp.0", "mlp.3"), "heads"),
    "torchvision Swin": (torchvision_swin, IMAGES, ("qkv", "mlp.0"), "head"),
    "Hugging Face ViT": (hugging_face_vit, IMAGES, ("q_proj", "v_proj"), "classifier"),
    "MONAI UNETR": (monai_unetr, SCAN, ("qkv", "linear1"), "out"),
    "MONAI UNet": (monai_unet, SCAN, r".*\.conv", "model.2"),
    "own head": (Mine, IMAGES, ("q", "v"), ()),
}
EACH = pytest.mark.parametrize("name", NETWORKS)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def made(name):
    make, shape, targets, head = NETWORKS[name]
    return make().eval(), torch.randn(shape), targets, head


def outputs(model, x):
    out = model(x)
    return getattr(out, "logits", out)


def train(model, x, steps=8, lr=2e-2):
    """Losses of a few steps towards one target."""
    torch.manual_seed(1)
    with torch.no_grad():
        wanted = torch.randn_like(outputs(model, x))
    optimizer, losses = torch.optim.AdamW(delta(model).values(), lr), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (outputs(model, x) - wanted).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@EACH
def test_lora_starts_as_the_network_trains_merges_and_comes_back(name, tmp_path):
    model, x, targets, head = made(name)
    fresh, before = copy.deepcopy(model), outputs(model, x)
    frozen = {n: p.detach().clone() for n, p in model.named_parameters()}
    tune(model, LoRA(r=2, targets=targets), head=head)
    torch.testing.assert_close(outputs(model, x), before)
    losses = train(model, x)
    assert losses[-1] < 0.9 * losses[0]
    learned = delta(model)
    assert any(n.endswith(".B") and p.detach().any() for n, p in learned.items())
    now = dict(model.named_parameters())
    still = [
        n
        for n in frozen
        if (m := n if n in now else f"{n.rpartition('.')[0]}.original.{n.rpartition('.')[2]}") in now
        and m not in learned
        and not torch.equal(now[m], frozen[n])
    ]
    assert not still, "what is frozen has moved"
    after = outputs(model, x)
    save(model, tmp_path / "delta")
    again = load(tune(fresh, LoRA(r=2, targets=targets), head=head, seed=9), tmp_path / "delta")
    torch.testing.assert_close(outputs(again, x), after, rtol=0, atol=0)
    torch.testing.assert_close(outputs(merge(model), x), after, rtol=1e-6, atol=1e-6)
    assert not any("original" in n for n, _ in model.named_modules())
    unmerge(model)
    torch.testing.assert_close(outputs(model, x), after, rtol=0, atol=0)
    if not head and name != "own head":
        with bypass(model):
            torch.testing.assert_close(outputs(model, x), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "own head"])
def test_numbers_and_outputs_are_those_of_peft_which_reads_what_we_write(name, tmp_path):
    from peft import LoraConfig, PeftModel, get_peft_model

    model, x, targets, head = made(name)
    theirs = copy.deepcopy(model)
    if name.startswith("torchvision"):  # attention reads `out_proj.weight` there, where peft's LoRA is not
        targets = ("mlp.0", "mlp.3")
    paths = targets if isinstance(targets, str) else list(targets)
    config = LoraConfig(r=2, lora_alpha=4, target_modules=paths)
    if isinstance(targets, str):  # it fits the head and transposed convolutions, too, which we leave out
        config.exclude_modules = rf"{head}\..*|.*submodule\.2\..*"
    tune(model, LoRA(r=2, alpha=4, targets=targets), head=head)
    train(model, x)
    inserted = count(model).inserted
    other = get_peft_model(copy.deepcopy(theirs), config)
    assert inserted == sum(p.numel() for n, p in other.named_parameters() if "lora_" in n)
    save_peft(model, tmp_path)
    if head:  # peft's file has the LoRA alone: give it the head that was trained beside
        theirs.get_submodule(head).load_state_dict(model.get_submodule(head).state_dict())
    read = PeftModel.from_pretrained(theirs, tmp_path).eval()
    torch.testing.assert_close(outputs(read, x), outputs(model, x), rtol=1e-5, atol=1e-5)
    back = tune(NETWORKS[name][0](), LoRA(r=2, alpha=4, targets=targets), head=head, seed=5)
    load_peft(back, tmp_path)
    mine, found = delta(model), delta(back)
    assert all(torch.equal(found[n], mine[n]) for n in mine if n.endswith((".A", ".B")))


METHODS = {
    "LoRA+": LoRAPlus(r=2, targets=("fc1",)),
    "DyLoRA": DyLoRA(r=2, targets=("fc1", "q_proj")),
    "LNLoRA": LNLoRA(r=2, targets=("fc1",)),
    "AdapterBias": AdapterBias(targets=("fc2",)),
    "FacT-TT": FacTTT(r=2, targets=("q_proj", "fc1", "fc2")),
    "FacT-TK": FacTTK(r=2, targets=("q_proj", "v_proj")),
    "BitFit": BitFit(),
    "Full": Full(),
    "Head": Head(),
    "two": (BitFit(), LoRA(r=2, targets="all-linear")),
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_method_that_changes_matrices_goes_on_a_foreign_network(method):
    model, x, _, head = made("Hugging Face ViT")
    before = outputs(model, x)
    torch.testing.assert_close(outputs(tune(model, method, head=head), x), before)
    losses = train(model.train(), x)
    assert losses[-1] < losses[0]
    assert all(p.grad is not None for p in delta(model).values())


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_convolutions_update_has_the_strides_and_padding_of_its_own(dims):
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    x = torch.randn(2, 3, *[9] * dims)
    for settings in (
        dict(padding=1),
        dict(stride=2, dilation=2),
        dict(padding="same", padding_mode="circular"),
    ):
        layer = LoRAConv(kind(3, 5, 3, **settings), r=2, alpha=4, dropout=0)
        nn.init.normal_(layer.B)
        plain = layer.merged()
        torch.testing.assert_close(layer(x), plain(x))
        assert torch.linalg.matrix_rank((plain.weight - layer.original.weight).flatten(1)) == 2


def test_all_linear_means_every_linear_layer_but_the_heads():
    model = tune(hugging_face_vit(), LoRA(r=1, targets="all-linear"), head="classifier")
    tuned = {n.removesuffix(".A") for n in delta(model) if n.endswith(".A")}
    linear = {n for n, m in hugging_face_vit().named_modules() if isinstance(m, nn.Linear)}
    assert tuned == linear - {"classifier"}
    assert {n for n in delta(model) if n.startswith("classifier")} == {"classifier.weight", "classifier.bias"}


def test_what_lies_beside_a_backbone_is_the_head():
    model = tune(Mine(), Adapter(m=4))
    assert {"head.weight", "head.bias"} <= delta(model).keys()
    assert all("adapter" in n for n in delta(model) if n.startswith("backbone."))


REFUSED = {
    "a prompt without blocks": (hugging_face_vit, VPTDeep(2), "classifier", "knows none in ViTForImage"),
    "an adapter without blocks": (monai_unet, Adapter(m=4), "model.2", "LoRA(targets=("),
    "q and v that are not there": (torchvision_vit, LoRA(), "heads", "'q': VisionTransformer has no layer"),
    "what is no layer": (torchvision_vit, LoRA(targets=("mlp",)), "heads", "it is a MLPBlock"),
    "a pattern of nothing": (torchvision_vit, LoRA(targets="x.*"), "heads", "name no layer of"),
    "no such head": (torchvision_vit, LoRA(targets=("mlp.0",)), "top", "no module 'top' for a head; it has"),
    "nothing that learns": (hugging_face_vit, Head(), (), "name its head by"),
    "a convolution": (monai_unet, LNLoRA(targets=r".*\.conv"), "model.2", "a convolution: name linear"),
    "a shift of a convolution": (
        monai_unet,
        AdapterBias(targets=r".*\.conv"),
        "model.2",
        "AdapterBias can't",
    ),
    "slices that do not fit": (hugging_face_vit, FacTTT(r=1, targets=("classifier",)), (), "no side"),
    "what can't be drawn anew": (hugging_face_vit, Scratch(), "classifier", "build the network without"),
}


@pytest.mark.parametrize("make, method, head, says", REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_refused_in_a_sentence_and_changes_nothing(make, method, head, says):
    model = make()
    before = {n: (p.detach().clone(), p.requires_grad) for n, p in model.named_parameters()}
    with pytest.raises(ValueError) as refused:
        tune(model, method, head=head)
    assert says in str(refused.value) and "\n" not in str(refused.value)
    after = dict(model.named_parameters())
    assert after.keys() == before.keys() and not hasattr(model, "tuned_by")
    assert all(torch.equal(p, before[n][0]) and p.requires_grad == before[n][1] for n, p in after.items())
