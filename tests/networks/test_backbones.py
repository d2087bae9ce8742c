import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models import adapt_input_conv

from labkit.networks.backbones import load_backbone
from labkit.paths import data_dir

BUNDLED = data_dir() / "backbones" / "tiny.safetensors"
PROJECTION = "patch_embed.proj.weight"


def numel(model):
    return sum(p.numel() for p in model.parameters())


# --- the laptop's


def test_the_bundled_weights_are_the_files_and_small():
    state, file = load_backbone("tiny", in_chans=3).state_dict(), load_file(BUNDLED)
    assert state.keys() == file.keys()
    assert all(torch.equal(state[name], file[name].float()) for name in file)
    assert BUNDLED.stat().st_size <= 12e6 and sum(t.numel() for t in file.values()) <= 6e6


@pytest.mark.parametrize("channels", [1, 4])
def test_colours_become_channels_as_timm_does_it(channels):
    mine = load_backbone("tiny", in_chans=channels).state_dict()[PROJECTION]
    assert torch.equal(mine, adapt_input_conv(channels, load_file(BUNDLED)[PROJECTION].float()))


def test_tiny_reads_a_file_and_starts_at_random_without(tmp_path):
    one = load_backbone("tiny", in_chans=3, weights=None)
    save_file(one.state_dict(), tmp_path / "mine.safetensors")
    again = load_backbone("tiny", in_chans=3, weights=tmp_path / "mine.safetensors")
    other = load_backbone("tiny", in_chans=3, weights=None)
    assert torch.equal(one.blocks[3].mlp.fc1.weight, again.blocks[3].mlp.fc1.weight)
    assert not torch.equal(one.blocks[3].mlp.fc1.weight, other.blocks[3].mlp.fc1.weight)


# --- wrong input


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="no backbone 'resnet'; choose one of tiny, vit_b16, swin_t"):
        load_backbone("resnet")


@pytest.mark.parametrize("name", ["tiny", "vit_b16", "swin_t"])
def test_a_missing_file_is_named(name, tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.safetensors; give the path of a file, or weights=None"):
        load_backbone(name, weights=tmp_path / "gone.safetensors")


def test_tiny_has_one_size():
    with pytest.raises(ValueError, match="96 pixels, not 128; leave img_size out"):
        load_backbone("tiny", img_size=128)
    assert load_backbone("tiny", img_size=96).patch_embed.img_size == (96, 96)


# --- full scale


@pytest.mark.parametrize("name, parameters", [("vit_b16", 85_892_352), ("swin_t", 20_404_122)])
def test_full_size_backbones_have_the_papers_parameters(name, parameters):
    with torch.device("meta"):  # shapes without numbers
        assert numel(load_backbone(name, weights=None)) == parameters


@pytest.fixture
def small_vit(monkeypatch):
    """The same family at a fifteenth of the size, so that the test is quick."""
    from labkit.networks import backbones

    _, *options = backbones.FULL_SIZE["vit_b16"]
    monkeypatch.setitem(backbones.FULL_SIZE, "vit_b16", ("vit_tiny_patch16_224.augreg_in21k", *options))


@pytest.mark.parametrize(
    "name, published", [("vit_b16", "vit_tiny_patch16_224"), ("swin_t", "swin_tiny_patch4_window7_224")]
)
def test_published_weights_are_read_from_a_file_into_the_cut_and_resized_network(
    name, published, small_vit, tmp_path
):
    """The file has a class token, 224-pixel positions, 7 x 7 windows, all blocks, colours, a classifier."""
    theirs = timm.create_model(published, num_classes=10).state_dict()
    save_file({key: t.contiguous() for key, t in theirs.items()}, tmp_path / "model.safetensors")
    model = load_backbone(name, in_chans=4, weights=tmp_path / "model.safetensors")
    mine = model.state_dict()
    changed = {key for key, t in mine.items() if not torch.equal(t, theirs[key])}
    positions = {key for key in mine if key.endswith(("pos_embed", "relative_position_bias_table"))}
    assert changed == positions | {PROJECTION}
    assert torch.equal(mine[PROJECTION], adapt_input_conv(4, theirs[PROJECTION]))
    if name == "vit_b16":
        from timm.layers import resample_abs_pos_embed

        expected = resample_abs_pos_embed(theirs["pos_embed"], [8, 8], num_prefix_tokens=1)[:, 1:]
        torch.testing.assert_close(mine["pos_embed"], expected)
    with torch.no_grad():
        assert model(torch.randn(1, 4, 128, 128)).isfinite().all()


def test_offline_the_error_says_what_to_fetch_and_what_else_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError) as error:
        load_backbone("swin_t")
    last = str(error.value)
    assert last.startswith("The weights of swin_t could not be fetched")
    for part in ("model.safetensors of timm/swin_tiny_patch4_window7_224", "weights=...", "weights=None"):
        assert part in last
