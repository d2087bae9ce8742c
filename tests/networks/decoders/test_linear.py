import torch

from labkit.networks.decoders.light import PRIOR
from labkit.networks.decoders.linear import LinearDecoder


def test_each_token_alone_decides_on_its_patch():
    decoder = LinearDecoder(8, 3, patch=4)
    x = torch.randn(1, 8, 2, 3)
    before = decoder([x])
    assert before.shape == (1, 3, 8, 12)
    x[0, :, 1, 2] = torch.randn(8)
    changed = (decoder([x]) != before).any(1)[0]
    assert changed[4:, 8:].all() and not changed[:4].any() and not changed[:, :8].any()


def test_it_reads_the_deepest_map_only():
    decoder, deep = LinearDecoder(8, 3, patch=4), torch.randn(1, 8, 2, 2)
    assert torch.equal(decoder([torch.randn(1, 8, 2, 2), deep]), decoder([torch.zeros(1, 8, 2, 2), deep]))


def test_a_pixel_has_a_row_of_the_matrix_of_its_own_and_starts_with_the_rarity_of_labels():
    decoder = LinearDecoder(8, 4, patch=2)
    assert decoder.head.weight.shape == (4 * 4, 8)
    torch.nn.init.zeros_(decoder.head.weight)
    share = decoder([torch.randn(1, 8, 2, 2)]).softmax(1)
    torch.testing.assert_close(share[0, :, 3, 1], torch.tensor([1 - 3 * PRIOR, PRIOR, PRIOR, PRIOR]))
