import pytest
import torch

from labkit.segmenter import segmenter


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
