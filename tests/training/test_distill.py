from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file

from labkit.training import distill as module
from labkit.training.distill import (
    Recipe,
    augment,
    distill,
    features,
    inherit,
    load_teacher,
    shrink_patch,
    unexplained,
)

QUICK = Recipe(steps=2, batch=2, warmup=1)


@pytest.fixture(scope="module")
def teacher_path(tmp_path_factory):
    """A teacher of the right build that has learnt nothing, with every part doing something."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    torch.manual_seed(0)
    state = timm.create_model("vit_small_patch14_dinov2", num_classes=0).state_dict()
    for name, t in state.items():
        if name.endswith("gamma"):
            t.uniform_(0.2, 0.8)
        elif name.endswith("bias"):
            t.normal_(0, 0.1)
    save_file({name: t.half().contiguous() for name, t in state.items()}, path)
    return path


@pytest.fixture(scope="module")
def teacher(teacher_path):
    return load_teacher(teacher_path, 6, 12)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    rng, jpegs = np.random.default_rng(0), []
    for _ in range(40):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        file = io.BytesIO()
        coarse.resize((64, 64)).save(file, "JPEG")
        jpegs.append(file.getvalue())
    path = tmp_path_factory.mktemp("images") / "images.npz"
    np.savez(path, bytes=np.frombuffer(b"".join(jpegs), np.uint8), offsets=np.cumsum([0, *map(len, jpegs)]))
    return path


# --- the loss and the pictures


def test_unexplained_is_0_for_a_copy_and_1_for_the_mean_and_counts_channels_alike():
    t = torch.randn(4, 50, 8) * torch.logspace(-2, 2, 8)
    mean = t.mean((0, 1), keepdim=True).expand_as(t)
    assert unexplained(t, t) == 0
    assert unexplained(mean, t).item() == pytest.approx(1, rel=0.01)
    half = torch.where(torch.arange(8) < 4, t, mean)
    assert unexplained(half, t).item() == pytest.approx(0.5, rel=0.01)


def test_views_depend_on_the_generator_alone_and_differ():
    images = torch.randint(0, 256, (5, 3, 64, 64), dtype=torch.uint8)
    a, b = (augment(images, 6, 96, torch.Generator().manual_seed(1)) for _ in range(2))
    assert a.shape == (6, 3, 96, 96) and torch.equal(a, b)
    assert not torch.equal(a[0], a[1])


# --- inheritance


def test_a_shrunken_patch_gives_the_inner_product_of_the_enlarged_picture():
    big, small = torch.randn(5, 3, 14, 14), torch.randn(2, 3, 8, 8)
    enlarged = F.interpolate(small, (14, 14), mode="bicubic", antialias=True)
    torch.testing.assert_close(
        F.conv2d(small, shrink_patch(big, 8)), F.conv2d(enlarged, big), rtol=1e-4, atol=1e-4
    )


def test_the_teacher_is_frozen_and_resampled_to_the_grid(teacher):
    assert len(teacher.blocks) == 6 and not any(p.requires_grad for p in teacher.parameters())
    assert teacher.pos_embed.shape == (1, 1 + 12 * 12, 384)


def attention_branch(block, x):
    """What the block adds to the stream by attention, LayerScale included where there is one."""
    y = block.attn(block.norm1(x))
    return block.ls1(y) if hasattr(block, "ls1") else y


@torch.no_grad()
def test_inherited_attention_computes_the_same(teacher):
    student = inherit(teacher, (0, 1, 4, 5), torch.randn(2, 3, 168, 168))
    x = torch.randn(2, 144, 384)
    for mine, i in zip(student.blocks, (0, 1, 4, 5), strict=True):
        theirs = teacher.blocks[i]
        assert torch.equal(mine.attn.qkv.weight, theirs.attn.qkv.weight)
        assert torch.equal(mine.norm2.weight, theirs.norm2.weight)
        expected = attention_branch(theirs, x)
        torch.testing.assert_close(attention_branch(mine, x), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(student.pos_embed, teacher.pos_embed[:, 1:])


@torch.no_grad()
def test_pruning_keeps_the_units_that_write_most_in_their_order(teacher):
    probe = torch.randn(2, 3, 168, 168)
    student = inherit(teacher, (0, 1, 2, 3), probe)
    seen = []
    hook = teacher.blocks[2].mlp.fc2.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    teacher(probe)
    hook.remove()
    writes = seen[0].abs().mean((0, 1)) * teacher.blocks[2].mlp.fc2.weight.norm(dim=0)
    mine, theirs = student.blocks[2].mlp, teacher.blocks[2].mlp
    n = mine.fc1.out_features
    kept = (writes >= writes.sort(descending=True).values[n - 1]).nonzero().flatten()
    assert len(kept) == n < theirs.fc1.out_features
    assert torch.equal(mine.fc1.weight, theirs.fc1.weight[kept])
    gamma = teacher.blocks[2].ls2.gamma[:, None]
    torch.testing.assert_close(mine.fc2.weight, gamma * theirs.fc2.weight[:, kept])


def test_features_are_the_streams_patch_tokens_after_the_named_blocks(teacher):
    x = torch.randn(1, 3, 168, 168)
    ends = []
    hook = teacher.blocks[3].register_forward_hook(lambda _m, _i, out: ends.append(out))
    teacher(x)
    hook.remove()
    first, third = features(teacher, x, [1, 3])
    assert first.shape == third.shape == (1, 144, 384) and not torch.equal(first, third)
    torch.testing.assert_close(third, ends[0][:, 1:])


# --- a run


@pytest.mark.slow
def test_a_run_writes_weights_and_figures_and_interrupted_ends_in_the_same_bytes(
    archive, teacher_path, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "CHECK_EVERY", 1)
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    figures = distill(archive, teacher_path, whole, QUICK)

    def plug(images, count, size, rng, views=[0]):  # noqa: B006
        views[0] += 1  # those held out, those of step 1, those of step 2
        if views[0] == 3:
            raise KeyboardInterrupt
        return augment(images, count, size, rng)

    with monkeypatch.context() as pulled, pytest.raises(KeyboardInterrupt):
        pulled.setattr(module, "augment", plug)
        distill(archive, teacher_path, parts, QUICK)
    assert not parts.exists()
    again = distill(archive, teacher_path, parts, QUICK)
    assert parts.read_bytes() == whole.read_bytes() and again == figures

    written = json.loads(whole.with_suffix(".json").read_text())
    assert written == json.loads(json.dumps(figures))
    assert [step for step, _ in written["history"]] == [0, 1, 2]
    assert written["recipe"]["steps"] == 2
    weights = load_file(whole)
    assert sum(t.numel() for t in weights.values()) == written["parameters"]
    assert {t.dtype for t in weights.values()} == {torch.float16}

    with pytest.raises(ValueError, match="parts.safetensors.checkpoint belongs to another recipe; delete it"):
        distill(archive, teacher_path, parts, replace(QUICK, lr=1.0))
