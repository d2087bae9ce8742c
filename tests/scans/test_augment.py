import pytest
import torch

from labkit.scans.augment import AUGMENTATIONS, plain, strong


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("augment", AUGMENTATIONS.values(), ids=AUGMENTATIONS)
def test_the_generator_alone_decides(augment):
    image = torch.randn(3, 2, 24, 24)
    torch.manual_seed(1)
    first = augment(image, generator())
    torch.manual_seed(2)
    assert torch.equal(augment(image, generator()), first)
    assert not torch.equal(augment(image, generator(1)), first)


def test_plain_moves_a_number_by_a_tenth_at_most():
    image = torch.ones(2, 4, 8, 8)
    for seed in range(20):
        changed = plain(image, generator(seed))
        assert changed.min() >= 0.8 - 1e-6 and changed.max() <= 1.2 + 1e-6
        assert (changed[0] == changed[1]).all(), "neighbours are changed alike"


def test_strong_keeps_neighbours_alike_and_moves_further():
    image = torch.linspace(-2, 2, 24).expand(2, 4, 24, 24)
    moved = [(strong(image, generator(seed)) - image).abs().max() for seed in range(20)]
    assert min(moved) > 0.3 and max(moved) < 8
    changed = strong(image, generator())
    assert torch.equal(changed[0], changed[1])


def test_strong_keeps_the_order_of_tissues_in_one_place():
    """Curve and gain are monotone: what was brighter before is brighter after, at the same pixel."""
    dark, bright = torch.full((1, 1, 8, 8), 0.2), torch.full((1, 1, 8, 8), 0.9)
    for seed in range(20):
        assert (strong(bright, generator(seed)) > strong(dark, generator(seed))).all()
