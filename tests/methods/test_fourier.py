import pytest
import torch

from labkit.methods.fourier import ComplexFilter, RealFilter, at_frequencies, filtered

GRID = (2, 3)


def drawn(kind, T=4):
    branch = kind(T, GRID)
    torch.manual_seed(1)
    for p in branch.parameters():
        p.data = torch.randn_like(p)
    return branch


def on_a_ring(h, kernel):
    """Circular convolution over slices, rows and columns, term by term."""
    y = torch.zeros_like(h, dtype=kernel.dtype)
    for s in range(kernel.shape[0]):
        for i in range(kernel.shape[1]):
            for j in range(kernel.shape[2]):
                y += kernel[s, i, j] * h.roll((s, i, j), (2, 3, 4))
    return y


def test_the_complex_filter_is_a_circular_convolution_over_the_whole_volume():
    branch, h = drawn(ComplexFilter), torch.randn(2, 5, 4, *GRID)
    kernel, added = (torch.fft.ifftn(torch.view_as_complex(p.data)) for p in (branch.W_F, branch.b_F))
    assert (kernel.abs() > 1e-3).all(), "or the kernel would not be as large as the volume"
    torch.testing.assert_close(branch(h), (on_a_ring(h, kernel) + added).abs())


def test_the_released_filter_is_a_circular_convolution_along_slices_alone():
    """The in-plane transforms cancel, and what is added lands on the first token of each slice."""
    branch, h = drawn(RealFilter), torch.randn(2, 5, 4, *GRID)
    kernel = torch.fft.ifft(branch.W_F.data[:, 0, 0])[:, None, None]
    expected = on_a_ring(h, kernel)
    expected[..., 0, 0] += torch.fft.ifft(branch.b_F.data[:, 0, 0])
    torch.testing.assert_close(branch(h), expected.abs())


def test_both_start_as_the_size_of_what_comes_in():
    h = torch.randn(1, 2, 4, *GRID)
    torch.testing.assert_close(ComplexFilter(4, GRID)(h), h.abs())
    f = RealFilter(4, GRID)(h)
    first = h[:, :, 0, 0, 0].clone()
    torch.testing.assert_close(f[:, :, 0, 0, 0], (first + 1).abs())
    rest = torch.ones_like(h, dtype=torch.bool)
    rest[:, :, 0, 0, 0] = False
    torch.testing.assert_close(f[rest], h.abs()[rest])


@pytest.mark.parametrize(
    "W, expected",
    [
        ([1.0, 1, 1, 1], [1.0, 2, 3, 0]),
        ([1.0, 0, 0, 0], [0.5, 0.5, 0.5, 0.5]),
        ([1.0, 2, 0, 0], [1.118034, 1.118034, 1.802776, 1.802776]),
    ],
)
def test_four_slices_by_hand(W, expected):
    h, W = torch.tensor([1.0, -2, 3, 0]).view(1, 1, 4, 1, 1), torch.tensor(W).view(4, 1, 1)
    torch.testing.assert_close(filtered(h, W, torch.zeros(4, 1, 1)).flatten(), torch.tensor(expected))


def test_other_numbers_of_slices_are_filtered_by_the_nearest_frequencies():
    W = torch.tensor([1.0, 2, 5, 3]).view(4, 1, 1)
    assert torch.equal(at_frequencies(W, 4), W)
    assert at_frequencies(W, 2).flatten().tolist() == [1, 5]  # the frequencies they have in common
    assert at_frequencies(W, 8).flatten().tolist() == [1, 1.5, 2, 3.5, 5, 4, 3, 2]  # the last one: on a ring
    assert at_frequencies(W, 1).flatten().tolist() == [1]


def test_computes_in_float32_inside_bfloat16():
    branch, h = drawn(ComplexFilter), torch.randn(1, 2, 4, *GRID).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        f = branch(h)
    assert f.dtype == torch.bfloat16
    torch.testing.assert_close(f, branch(h.float()).bfloat16())
