import torch

from labkit.networks.decoders.light import PRIOR, LightDecoder


def test_maps_become_logits_at_eight_times_their_resolution():
    decoder = LightDecoder([8] * 4, 3, channels=2, hidden=8)
    assert decoder([torch.randn(2, 8, 5, 7)] * 4).shape == (2, 3, 40, 56)


def test_coarser_maps_of_a_swin_are_brought_to_the_finest():
    decoder = LightDecoder([8, 16, 32, 64], 2, channels=2, hidden=8)
    maps = [torch.randn(1, d, s, s) for d, s in ((8, 16), (16, 8), (32, 4), (64, 2))]
    assert decoder(maps).shape == (1, 2, 128, 128)


def test_starts_with_the_rarity_of_labels():
    decoder = LightDecoder([8] * 4, 4, channels=2, hidden=8)
    torch.nn.init.zeros_(decoder.head.weight)
    share = decoder([torch.randn(1, 8, 2, 2)] * 4).softmax(1)
    torch.testing.assert_close(share[0, :, 3, 5], torch.tensor([1 - 3 * PRIOR, PRIOR, PRIOR, PRIOR]))


def test_every_map_and_every_parameter_matters():
    decoder = LightDecoder([8] * 4, 3, channels=2, hidden=8)
    maps = [torch.randn(1, 8, 4, 4, requires_grad=True) for _ in range(4)]
    decoder(maps).square().mean().backward()
    assert all(m.grad.abs().sum() > 0 for m in maps)
    assert all(p.grad.abs().sum() > 0 for p in decoder.parameters())


def test_a_token_is_unfolded_inside_its_own_patch():
    """Without the convolutions' reach, what a token says stays within two cells of its own 8 x 8 pixels."""
    decoder = LightDecoder([8] * 4, 2, channels=2, hidden=8)
    for norm in (decoder.mix[1], decoder.mix[4]):
        norm.forward = lambda x: x  # group norm sees the whole map
    maps = [torch.randn(1, 8, 5, 5) for _ in range(4)]
    other = [m.clone() for m in maps]
    other[2][0, :, 2, 2] += 1
    changed = (decoder(maps) - decoder(other)).abs().sum((0, 1)).nonzero()
    assert changed.min() >= 2 * 8 - 4 and changed.max() < 3 * 8 + 4
