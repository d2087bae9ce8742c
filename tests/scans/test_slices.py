import numpy as np
import pytest
import torch

from labkit.phantoms.brain import brain_patient
from labkit.scans.case import Case
from labkit.scans.slices import classes_of, every_other, excerpt, sample_slabs, to_volume


def case(image, label=None, names=None):
    label = np.zeros(image.shape[1:], np.uint8) if label is None else label
    names = names or {1: "a", 2: "b", 4: "c"}
    return Case("p", image.astype(np.float32), label, (1.0, 1.0, 1.0), ("x",) * len(image), names)


def numbered(slices=5, height=8, width=6):
    """Intensities tell the voxel, labels are those of BraTS, drawn at random."""
    image = np.arange(1, 1 + slices * height * width).reshape(1, slices, height, width).astype(np.float32)
    label = np.random.default_rng(0).choice([0, 1, 2, 4], image.shape[1:]).astype(np.uint8)
    return case(image, label)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_classes_are_background_and_the_label_values_in_order():
    label = np.array([[[0, 4, 2, 1]]], np.uint8)
    volume = to_volume(case(np.ones((1, 1, 1, 4)), label))
    assert classes_of(volume.case) == (0, 1, 2, 4)
    assert volume.target.tolist() == [[[0, 3, 2, 1]]] and volume.target.dtype == torch.int64


def test_each_channel_is_standardised_inside_the_body_and_0_outside():
    image = np.random.default_rng(0).gamma(2, 50, (2, 3, 8, 8))
    image[1] = 5 * image[1] + 300
    image[:, :, :2] = 0
    image[0, 0, 4, 4] = 0  # black in one channel only: still body
    found = to_volume(case(image)).image
    assert found.shape == (3, 2, 8, 8) and found.dtype == torch.float32
    assert not found[:, :, :2].any()
    inside = found[:, :, 2:]
    torch.testing.assert_close(inside.mean((0, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(inside.std((0, 2, 3), correction=0), torch.ones(2), atol=1e-4, rtol=0)
    assert found[0, 0, 4, 4] < -1


def test_signed_intensities_everywhere_below_0_are_body_all_the_same():
    found = to_volume(case(np.random.default_rng(0).normal(-1000, 10, (1, 3, 8, 8)))).image
    assert found.std() == pytest.approx(1, abs=0.01)


def test_the_case_is_not_changed():
    one = numbered()
    before = one.image.copy()
    to_volume(one)
    sample_slabs([to_volume(one)], 8, 2, (8, 6), rng())
    assert np.array_equal(one.image, before)


def test_image_and_labels_are_flipped_together():
    """With the labels as the image, what a batch shows must still be its labels."""
    one = numbered()
    image = one.label[None] + np.random.default_rng(1).normal(1, 1e-6, (1, *one.label.shape))  # all is body
    volume = to_volume(case(image, one.label))
    x, y = sample_slabs([volume], 32, 1, (8, 6), rng())
    for shown, target in zip(x[:, 0, 0], y[:, 0], strict=True):
        means = [shown[target == k].mean() for k in range(4)]
        assert means == sorted(means) and max(shown[target == k].std() for k in range(4)) < 1e-5
    flipped = [any(torch.equal(t, s.flip(-1)) for s in volume.target) for t in y[:, 0]]
    assert 4 < sum(flipped) < 28


@pytest.mark.parametrize("size", [(48, 70), (50, 44)])
def test_image_and_labels_are_enlarged_on_the_same_grid(size):
    """With the column's number in both, a label is the nearest whole number to the interpolated image."""
    columns = np.broadcast_to(np.arange(1, 33, dtype=np.uint8), (1, 32, 32))
    volume = to_volume(case(columns[None], columns, {i: str(i) for i in range(1, 33)}))
    per_column = float(volume.image[0, 0, 0, 1] - volume.image[0, 0, 0, 0])
    x, y = sample_slabs([volume], 8, 1, size, rng())
    for shown, target in zip(x[:, 0, 0], y[:, 0].float(), strict=True):
        (a, _), (b, _) = shown.aminmax(), target.aminmax()
        gain = (shown.max() - a) / (target.max() - b)  # at both ends is the outermost column
        assert ((shown - a) / gain + b - target).abs().max() <= 0.55
        assert gain == pytest.approx(per_column, rel=0.15)


def test_crops_are_windows_all_at_the_same_place_of_a_run_with_zeros_around_what_is_narrow():
    place = np.broadcast_to(np.arange(1, 121, dtype=np.uint8).reshape(12, 10), (4, 12, 10))  # names a pixel
    volume = to_volume(case(place[None], place, {i: str(i) for i in range(1, 121)}))
    x, y = sample_slabs([volume], 64, 2, (5, 14), rng(), crop=True)
    assert x.shape == (64, 2, 1, 5, 14) and (y[:, 0] == y[:, 1]).all()
    assert not y[..., :2].any() and not y[..., -2:].any() and not x[..., :2].any()
    windows = [volume.target[0, top : top + 5] for top in range(8)]
    seen = [
        next(top for top, t in enumerate(windows) if any(torch.equal(run, w) for w in (t, t.flip(-1))))
        for run in y[:, 0, :, 2:-2]
    ]
    assert set(seen) == set(range(8))


def test_a_run_of_slices_ends_at_the_last_one():
    one = numbered(slices=3)
    one.label[:] = 0
    one.label[2, 0, 0] = 4  # only the last slice is labelled
    x, y = sample_slabs([to_volume(one)], 32, 5, (8, 6), rng())
    assert x.shape == (32, 5, 1, 8, 6) and y.shape == (32, 5, 8, 6)
    centred = [t for t in y if t[2].any()]
    assert len(centred) > 16, "two of three runs are centred on a label"
    for t in centred:
        assert t.flatten(1).any(1).tolist() == [False, False, True, True, True]


def test_runs_are_neighbours_in_order():
    volume = to_volume(numbered(slices=9))
    x, _ = sample_slabs([volume], 16, 3, (8, 6), rng())
    assert (x.mean((2, 3, 4)).diff(dim=1) >= 0).all()


def test_outside_the_body_stays_0_and_inside_changes_by_at_most_a_tenth():
    one = numbered()
    one.image[..., :3] = 0
    volume = to_volume(one)
    x, y = sample_slabs([volume], 32, 1, (8, 6), rng())
    for shown, target in zip(x[:, 0, 0], y[:, 0], strict=True):
        slices = [(i[0], t) for i, t in zip(volume.image, volume.target, strict=True)]
        slices += [(i.flip(-1), t.flip(-1)) for i, t in slices]
        original = next(i for i, t in slices if torch.equal(t, target))
        assert not shown[original == 0].any()
        assert ((shown - original).abs() <= 0.1 * original.abs() + 0.1 + 1e-5).all()


def test_the_generator_decides_the_batch():
    volumes = [to_volume(numbered(slices=n)) for n in (4, 5, 6)]
    a, b, c = (sample_slabs(volumes, 8, 2, (8, 6), rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) and not torch.equal(a[1], c[1])


def test_volumes_of_different_sizes_make_one_batch():
    volumes = [to_volume(numbered(height=7, width=9)), to_volume(numbered(height=12, width=4))]
    x, y = sample_slabs(volumes, 16, 1, (16, 16), rng())
    assert x.shape == (16, 1, 1, 16, 16) and y.shape == (16, 1, 16, 16)
    assert set(y.unique().tolist()) == {0, 1, 2, 3}


def test_a_ct_keeps_the_order_of_its_tissues_and_loses_only_the_padding():
    hu = np.full((3, 8, 8), -1000, np.float32)
    hu[:, 2:6, 2:4], hu[:, 2:6, 4] = 40, -100  # soft tissue, fat
    hu[1, 2, 5] = 300  # bone
    image = to_volume(case(hu[None], np.zeros((3, 8, 8), np.uint8))).image[:, 0]
    air, fat, soft, bone = (image[tuple(np.argwhere(hu == value)[0])] for value in (-1000, -100, 40, 300))
    assert air == 0 and fat < soft < bone
    assert (bone - fat) / (soft - fat) == pytest.approx(400 / 140, rel=1e-4)


def test_gas_inside_a_ct_is_body_and_a_hole_in_a_mask_is_not():
    hu = np.full((3, 8, 8), -160, np.float32)  # a window's lower end, which gas in a bowel has too
    hu[:, 1:7, 1:7] = 40
    hu[1, 3:5, 3:5] = -160
    hu[2, 0:4, 3] = -160  # a fold of the skin is open to the air
    image = to_volume(case(hu[None], np.zeros((3, 8, 8), np.uint8))).image[:, 0]
    assert image[1, 3, 3] < image[1, 1, 1], "gas is darker than tissue"
    assert not image[2, 0:4, 3].any() and not image[:, 0].any()
    hu[hu == -160] = 0
    image = to_volume(case(hu[None], np.zeros((3, 8, 8), np.uint8))).image[:, 0]
    assert image[1, 3, 3] == 0


def test_an_image_without_background_is_all_body():
    values = (
        np.random.default_rng(0).normal(0, 1, (1, 3, 8, 8)).astype(np.float32)
    )  # signed, as after a z-score
    image = to_volume(case(values, np.zeros((3, 8, 8), np.uint8))).image
    assert image.mean() == pytest.approx(0, abs=1e-5) and (image != 0).all()


def noisy(background, deviation, tissue=40.0):
    """A cylinder of tissue with a bright rod, in air with noise: (3, 32, 32), and where it is."""
    y, x = np.indices((32, 32)) - 15.5
    inside = np.broadcast_to(y**2 + x**2 < 100, (3, 32, 32))
    hu = np.where(inside, tissue, background).astype(np.float32)
    hu[:, 14:17, 14:20] += 60
    return hu + np.random.default_rng(0).normal(0, deviation, hu.shape).astype(np.float32), inside


@pytest.mark.parametrize("deviation", [3, 12, 25])
def test_air_with_noise_is_air_all_the_same(deviation):
    hu, inside = noisy(-1000, deviation)
    image = to_volume(case(hu[None], np.zeros(hu.shape, np.uint8))).image[:, 0].numpy()
    assert np.array_equal(image != 0, inside)
    assert image[inside].mean() == pytest.approx(0, abs=1e-4)
    assert image[inside].std() == pytest.approx(1, abs=1e-3)


def test_noise_of_a_magnitude_image_is_air_too():
    hu, inside = noisy(0, 0, 300.0)
    a, b = np.random.default_rng(1).normal(0, 6, (2, *hu.shape))
    image = to_volume(case(np.hypot(hu + a, b)[None], np.zeros(hu.shape, np.uint8))).image[:, 0].numpy()
    assert (image[inside] != 0).all() and (image[~inside] != 0).mean() < 0.002


def test_tissue_at_the_border_of_a_scan_that_was_cut_out_is_no_air():
    rng = np.random.default_rng(0)
    tissues = rng.choice([300.0, 500.0, 700.0], (6, 24, 24), p=[0.2, 0.3, 0.5])  # fluid, grey, white
    image = to_volume(case(tissues[None] + rng.normal(0, 20, (1, 6, 24, 24)))).image
    assert (image != 0).all()


def test_brains_keep_their_bits():
    """Standardised as ever: inside is where any channel is not 0, and nothing else."""
    one = brain_patient(0)
    inside = (one.image != 0).any(0)
    expected = np.zeros_like(one.image)
    for channel, raw in zip(expected, one.image, strict=True):
        channel[inside] = (raw[inside] - raw[inside].mean()) / (raw[inside].std() + 1e-6)
    assert torch.equal(to_volume(one).image, torch.from_numpy(expected).movedim(0, 1))


def test_a_label_without_a_name_is_refused_not_taken_for_another():
    label = np.array([[[0, 1, 3, 4]]], np.uint8)
    with pytest.raises(ValueError, match=r"has the labels \[3\], which are not among .* name them"):
        to_volume(case(np.ones((1, 1, 1, 4), np.float32), label, {1: "a", 2: "b", 4: "c"}))


def test_an_excerpt_lies_around_the_fullest_slice_and_keeps_image_and_label_together():
    label = np.zeros((10, 8, 8), np.uint8)
    label[6, :4], label[7, :2] = 1, 1
    case = Case(
        name="p",
        image=np.arange(10.0)[None, :, None, None] + np.random.default_rng(0).normal(0, 0.01, (1, 10, 8, 8)),
        label=label,
        spacing_mm=(2.0, 2.0, 2.0),
        channels=("CT",),
        label_names={1: "tumour"},
    )
    volume = to_volume(case)
    for slices, expected in ((4, [4, 5, 6, 7]), (8, [2, 3, 4, 5, 6, 7, 8, 9]), (10, list(range(10)))):
        some = excerpt(volume, slices)
        assert some.case.image[0].mean((1, 2)).round().tolist() == expected
        assert np.array_equal(some.case.label, label[expected])
        assert torch.equal(some.image, volume.image[expected]) and len(some.target) == slices


def test_every_other_slice_is_twice_as_far_from_the_next_and_is_what_it_was():
    volume = to_volume(numbered())
    half = every_other(volume)
    assert half.case.spacing_mm == (2 * volume.case.spacing_mm[0], *volume.case.spacing_mm[1:])
    for now, before in ((half.image, volume.image), (half.target, volume.target)):
        assert torch.equal(now, before[::2])
    assert np.array_equal(half.case.label, volume.case.label[::2])
    assert np.array_equal(half.case.image, volume.case.image[:, ::2])
