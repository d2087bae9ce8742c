import pytest
import torch
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer

from labkit.networks.anatomy import (
    block_paths,
    blocks,
    feature_indices,
    feature_widths,
    features,
    grid,
    head,
    patch_size,
    stage_ends,
    stage_inputs,
    swap,
    width,
)


def vit(depth=4):
    return VisionTransformer(
        img_size=128, patch_size=16, embed_dim=32, depth=depth, num_heads=2, num_classes=5
    )


def swin():
    return SwinTransformer(
        img_size=128,
        patch_size=4,
        embed_dim=16,
        depths=(1, 2, 1, 1),
        num_heads=(1, 2, 4, 8),
        window_size=4,
        num_classes=5,
    )


def test_blocks_stand_in_the_order_of_the_forward_pass():
    for model, n in ((vit(), 4), (swin(), 5)):
        seen = []
        for path, block in zip(block_paths(model), blocks(model), strict=True):
            block.register_forward_hook(lambda *_, path=path, seen=seen: seen.append(path))
        model(torch.randn(1, 3, 128, 128))
        assert seen == block_paths(model) and len(seen) == n


def test_widths_and_patch_sizes():
    assert [width(b) for b in blocks(vit())] == feature_widths(vit()) == [32] * 4
    assert [width(b) for b in blocks(swin())] == [16, 32, 32, 64, 128]
    assert feature_widths(swin()) == [16, 32, 64, 128]
    assert (patch_size(vit()), patch_size(swin())) == (16, 4)


def test_a_vits_features_are_the_ends_of_four_stages_and_the_last_is_normalised():
    model = vit(depth=8).eval()
    ends = []
    for i in (1, 3, 5, 7):
        model.blocks[i].register_forward_hook(lambda _m, _i, out: ends.append(out[:, 1:]))
    found = features(model, torch.randn(2, 3, 128, 128))
    assert [tuple(f.shape) for f in found] == [(2, 32, 8, 8)] * 4
    for f, end in zip(found, [*ends[:3], model.norm(ends[3])], strict=True):
        torch.testing.assert_close(f.flatten(2).mT, end)


def test_a_swins_features_shrink_and_widen_and_the_last_is_the_networks_output():
    model, x = swin().eval(), torch.randn(2, 3, 128, 128)
    found = features(model, x)
    assert [tuple(f.shape[1:]) for f in found] == [(16, 32, 32), (32, 16, 16), (64, 8, 8), (128, 4, 4)]
    torch.testing.assert_close(found[-1].movedim(1, -1), model.forward_features(x))


def test_a_swins_stages_start_where_its_patches_were_merged():
    model, x = swin().eval(), torch.randn(2, 3, 128, 128)
    starts = []
    for stage in model.layers:
        stage.downsample.register_forward_hook(lambda _m, _i, out: starts.append(out))
    *found, output = stage_inputs(model, x)
    mine = starts.copy()
    torch.testing.assert_close(output.movedim(1, -1), model.forward_features(x))
    for a, b, c in zip(found, mine, starts[4:], strict=True):
        assert torch.equal(a.movedim(1, -1), b) and torch.equal(b, c)


def test_stages_end_and_blocks_have_grids():
    assert stage_ends(vit(8)) == ["blocks.1", "blocks.3", "blocks.5", "blocks.7"]
    assert stage_ends(swin()) == [
        "layers.0.blocks.0",
        "layers.1.blocks.1",
        "layers.2.blocks.0",
        "layers.3.blocks.0",
    ]
    assert [grid(vit(), b) for b in blocks(vit())] == [(8, 8)] * 4
    assert [grid(swin(), b) for b in blocks(swin())] == [(32, 32), (16, 16), (16, 16), (8, 8), (4, 4)]


def test_a_wrapped_block_is_as_wide_as_the_one_inside():
    class Around(torch.nn.Module):
        def __init__(self, original):
            super().__init__()
            self.original = original

    model = swin()
    for path in block_paths(model):
        swap(model, path, Around)
        swap(model, path, Around)
    assert [width(b) for b in blocks(model)] == [16, 32, 32, 64, 128]
    assert [grid(model, b)[0] for b in blocks(model)] == [32, 16, 16, 8, 4]


@pytest.mark.parametrize("depth, ends", [(4, [0, 1, 2, 3]), (6, [1, 2, 4, 5]), (12, [2, 5, 8, 11])])
def test_four_stages_end_as_evenly_as_the_depth_allows(depth, ends):
    assert feature_indices(vit(depth=depth)) == ends


def test_fewer_than_four_blocks_are_refused():
    with pytest.raises(ValueError, match="3 blocks .* at least 4"):
        features(vit(depth=3), torch.randn(1, 3, 128, 128))


def test_the_head_of_a_bare_backbone_is_its_classifier():
    for model in (vit(), swin()):
        assert [tuple(p.shape) for p in head(model)] == [(5, width(blocks(model)[-1])), (5,)]


def test_the_head_of_a_segmenter_is_norm_and_decoder_and_positions_where_they_are_new(fresh):
    model = fresh()
    names = {id(p): name for name, p in model.named_parameters()}
    usual = {n for n in names.values() if n.startswith(("decoder.", "backbone.norm."))}
    assert {names[id(p)] for p in head(model)} == usual
    model.tune_positions = True
    assert {names[id(p)] for p in head(model)} == usual | {"backbone.pos_embed"}


def test_swap_puts_a_module_around_another():
    model = vit()
    old = model.blocks[2].mlp
    swap(model, "blocks.2.mlp", torch.nn.Sequential)
    assert model.blocks[2].mlp[0] is old
