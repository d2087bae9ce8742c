import pytest
import torch

from labkit.networks.segmenter import segmenter


def test_a_volume_is_its_slices(pretrained, volumes):
    with torch.no_grad():
        whole, slices = pretrained(volumes), [pretrained(v) for v in volumes]
    assert whole.shape == (2, 3, 4, 96, 96)
    torch.testing.assert_close(whole, torch.stack(slices), rtol=1e-4, atol=1e-4)


def test_slices_of_any_size_come_back_at_their_size(pretrained):
    with torch.no_grad():
        assert pretrained(torch.randn(2, 4, 35, 51)).shape == (2, 4, 35, 51)


def test_the_decoder_starts_the_same_with_every_call():
    a, b = (dict(segmenter(seed=3).decoder.named_parameters()) for _ in range(2))
    assert all(torch.equal(a[n], b[n]) for n in a)


def test_one_slice_without_a_batch_is_refused(pretrained):
    with pytest.raises(ValueError, match=r"not \(4, 96, 96\)"):
        pretrained(torch.randn(4, 96, 96))


@pytest.mark.parametrize(
    "backbone, decoder", [("tiny", "upernet"), ("vit_b16", "upernet"), ("swin_t", "swin_unet")]
)
def test_a_decoder_by_name_gives_a_volume_its_logits(backbone, decoder):
    model = segmenter(backbone, in_chans=1, classes=3, weights=None, decoder=decoder).eval()
    volume = torch.randn(1, 2, 1, 40, 48)
    with torch.no_grad():
        logits = model(volume)
        torch.testing.assert_close(logits[:, :1], model(volume[:, :1]), rtol=1e-4, atol=1e-4)
    assert logits.shape == (1, 2, 3, 40, 48)
    assert model.tune_positions == (backbone == "vit_b16")


@pytest.mark.parametrize(
    "backbone, decoder", [("tiny", "unet"), ("tiny", "swin_unet"), ("vit_b16", "swin_unet")]
)
def test_a_decoder_that_does_not_fit_is_refused(backbone, decoder):
    with pytest.raises(ValueError, match=f"no decoder '{decoder}' for {backbone}; choose light, linear"):
        segmenter(backbone, decoder=decoder, weights=None)
