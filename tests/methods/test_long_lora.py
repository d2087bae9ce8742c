import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers.attention import Attention
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from labkit.methods import LongLoRA, LoRA, PrefixTuning, PromptTuning, VPTDeep
from labkit.methods.long_lora import ShiftedSparseAttention, grouped, ungrouped
from labkit.tuning import delta, tune


def mask(heads, N):
    """Which token each token may attend to, by the paper's two rules, head by head: (heads, N, N)."""
    G = N // 4
    straight = torch.arange(N) // G
    shifted = (torch.arange(N) + G // 2) % N // G
    group = torch.stack([straight if 2 * h < heads else shifted for h in range(heads)])
    return group[:, :, None] == group[:, None, :]


@pytest.mark.parametrize(
    "heads, N, norm", [(4, 16, None), (6, 64, None), (2, 1024, None), (3, 24, nn.LayerNorm)]
)
def test_in_training_it_is_full_attention_under_the_mask_of_its_groups(heads, N, norm):
    full = Attention(12, heads, qkv_bias=True, qk_norm=norm is not None, norm_layer=norm)
    x, y = torch.randn(2, N, 12, requires_grad=True), torch.randn(2, N, 12)
    expected = full(x, attn_mask=mask(heads, N))
    found = ShiftedSparseAttention(full).train()(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    (g,), (h,) = (torch.autograd.grad((out * y).sum(), x) for out in (found, expected))
    torch.testing.assert_close(g, h, rtol=1e-4, atol=1e-5)


def test_in_evaluation_it_is_full_attention():
    full, x = Attention(12, 4, qkv_bias=True), torch.randn(2, 16, 12)
    sparse = ShiftedSparseAttention(full)
    assert torch.equal(sparse.eval()(x), full(x))
    assert not torch.allclose(sparse.train()(x), full(x), atol=1e-4)


def test_no_attention_is_ever_computed_between_groups(monkeypatch):
    """What makes it cheap: keys come in groups of N / 4, not masked."""
    seen = []
    real = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda *a, **k: seen.append(a[1].shape) or real(*a, **k)
    )
    ShiftedSparseAttention(Attention(12, 4)).train()(torch.randn(2, 64, 12))
    assert seen == [(2, 4, 4, 16, 3)]


def test_ungrouped_undoes_grouped():
    x = torch.randn(2, 5, 24, 3)
    assert torch.equal(ungrouped(grouped(x)), x)
    assert not torch.equal(grouped(x).flatten(2, 3), x)


def test_trains_lora_norms_and_embeddings_as_its_paper_has_it(vit):
    model = tune(copy.deepcopy(vit), LongLoRA())
    ends = ("A", "B"), ("norm1", "norm2", "norm"), ("pos_embed", "patch_embed")
    for name, p in model.backbone.named_parameters():
        parts = name.split(".")
        chosen = parts[-1] in ends[0] or parts[-2:][0] in ends[1] or parts[0] in ends[2]
        assert p.requires_grad == chosen, name
    assert model.backbone.blocks[0].attn.original.qkv.scale == 2


def test_counts_on_a_vit_b16():
    with torch.device("meta"):
        vit = timm.create_model("vit_base_patch16_224", num_classes=0, class_token=False, global_pool="")
        LongLoRA().inject(vit.requires_grad_(False))
    norms, embeddings = 25 * 2 * 768, (3 * 16 * 16 + 1) * 768 + 196 * 768
    assert sum(p.numel() for p in delta(vit).values()) == 589_824 + norms + embeddings and norms == 38_400


def test_learns_sparse_and_is_evaluated_full(vit):
    """In training a token hears nothing of the tokens two groups away, in evaluation it does."""
    block, x = tune(copy.deepcopy(vit), LongLoRA()).backbone.blocks[0], torch.randn(1, 16, 32)
    other = x.clone()
    other[:, 8] = torch.randn(32)  # of the third group; of the second and third, shifted
    changed = {}
    for training in (True, False):
        block.train(training)
        difference = (block(x) - block(other)).abs().amax(-1)[0]
        changed[training] = (difference > 1e-5).nonzero().flatten().tolist()
    assert changed == {True: [6, 7, 8, 9, 10, 11], False: list(range(16))}


def test_a_number_of_tokens_that_can_not_be_cut_is_refused_in_training():
    vit = VisionTransformer(img_size=32, patch_size=8, embed_dim=12, depth=1, num_heads=2, num_classes=0)
    LongLoRA().inject(vit)  # 16 tokens and a class token
    vit.eval()(torch.randn(1, 3, 32, 32))
    with pytest.raises(ValueError, match="17 can't be cut so; make N a multiple of 8"):
        vit.train()(torch.randn(1, 3, 32, 32))


@pytest.mark.parametrize("prompts", [VPTDeep(), PromptTuning(n=8), PrefixTuning()])
def test_prompts_have_no_group_and_are_refused(prompts, vit):
    with pytest.raises(ValueError, match="choose one"):
        tune(copy.deepcopy(vit), (prompts, LongLoRA()))


def test_swin_is_refused_before_anything_is_wrapped(swin):
    model = copy.deepcopy(swin)
    with pytest.raises(ValueError, match="Swin's is so already, in shifted windows"):
        LongLoRA().inject(model.backbone)
    assert {type(m) for m in model.modules()} == {type(m) for m in swin.modules()}


def test_a_mask_is_refused_in_training():
    sparse, x = ShiftedSparseAttention(Attention(12, 4)), torch.randn(1, 16, 12)
    with pytest.raises(ValueError, match="without a mask"):
        sparse.train()(x, is_causal=True)
    assert sparse.eval()(x, is_causal=True).shape == x.shape


def test_draws_the_weights_of_lora(vit):
    lora = tune(copy.deepcopy(vit), LoRA(targets=("q", "k", "v", "o")))
    long = {
        name.replace(".original", "", 1): p for name, p in delta(tune(copy.deepcopy(vit), LongLoRA())).items()
    }
    assert all(torch.equal(p, long[name]) for name, p in delta(lora).items())
