import pytest
import torch

from labkit.networks.decoders.upernet import UPerNet


@pytest.fixture
def decoder():
    return UPerNet([8, 8, 8, 8], 3, channels=4)


def test_maps_become_logits_at_the_resolution_of_the_first(decoder):
    assert decoder([torch.randn(2, 8, 5, 7)] * 4).shape == (2, 3, 5, 7)


def test_coarser_maps_of_a_swin_are_brought_to_the_finest():
    maps = [torch.randn(2, d, s, s) for d, s in ((8, 16), (16, 8), (32, 4), (64, 2))]
    assert UPerNet([8, 16, 32, 64], 2, channels=4)(maps).shape == (2, 2, 16, 16)


def test_every_map_and_every_parameter_matters(decoder):
    maps = [torch.randn(3, 8, 4, 4, requires_grad=True) for _ in range(4)]
    decoder(maps).square().mean().backward()
    assert all(m.grad.abs().sum() > 0 for m in maps)
    assert all(p.grad.abs().sum() > 0 for p in decoder.parameters())


def test_a_level_hears_the_next_deeper_one_and_none_beyond(decoder):
    decoder.eval()
    smoothed = []
    decoder.smooth.register_forward_hook(lambda _m, _i, out: smoothed.append(out))
    maps = [torch.randn(1, 8, 4, 4) for _ in range(4)]
    decoder(maps)
    for level in range(4):
        before, other = smoothed[:3], [m + (i == level) for i, m in enumerate(maps)]
        smoothed.clear()
        decoder(other)
        changed = [i for i in range(3) if not torch.equal(before[i], smoothed[i])]
        assert changed == [i for i in (level - 1, level) if 0 <= i < 3]
        smoothed[:] = before


def test_pools_the_whole_plane_and_its_parts(decoder):
    """A map that is the same everywhere is so for every pool: each brings its one value to every token."""
    pyramid = decoder.pyramid.eval()
    x = torch.randn(1, 8, 1, 1).expand(1, 8, 6, 6)
    for pool, bins in zip(pyramid.pools, (1, 2, 4, 6), strict=True):
        assert pool(x).shape == (1, 2, bins, bins)
        torch.testing.assert_close(pool(x), pool(x)[..., :1, :1].expand(1, 2, bins, bins))


def test_refuses_to_train_on_one_slice(decoder):
    maps = [torch.randn(1, 8, 4, 4)] * 4
    with pytest.raises(ValueError, match="at least two slices a step"):
        decoder(maps)
    assert decoder.eval()(maps).shape == (1, 3, 4, 4)
