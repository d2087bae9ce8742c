"""`one_kernel`: a convolution in the plane and one along slices, as a single kernel."""

from __future__ import annotations

import torch

from labkit.lessons.exercise import Challenge, Exercise, mistake
from labkit.lessons.lab09_med_tuning.inputs import row


def one_kernel(w_plane: torch.Tensor, w_slice: torch.Tensor) -> torch.Tensor:
    """(k, k) in the plane and (k,) along slices as one kernel: (k, k, k), slices first."""
    return w_slice[:, None, None] * w_plane


# Challenges


def two_weights_each() -> tuple:
    return row(1, 2)[None], row(10, 100)


def random_kernels() -> tuple:
    return torch.randn(3, 3), torch.randn(3)


# Mistakes


@mistake(
    "You added the two kernels. One convolution after the other multiplies their weights: whatever the "
    "first made of a voxel, the second weighs again."
)
def kernels_added(w_plane, w_slice):
    return w_slice[:, None, None] + w_plane


@mistake("You put the slices last. A volume is (slices, rows, columns), and so is its kernel.")
def slices_last(w_plane, w_slice):
    return w_plane[:, :, None] * w_slice


@mistake("You kept the kernel of the plane alone, once for every slice. Then all slices would count alike.")
def plane_alone(w_plane, w_slice):
    return torch.stack([w_plane for _ in w_slice])


@mistake(
    "You turned the slice kernel round. PyTorch's convolutions do not flip; a neighbour above would be "
    "taken for one below."
)
def slice_kernel_turned_round(w_plane, w_slice):
    return w_slice.flip(0)[:, None, None] * w_plane


@mistake(
    "You kept the slice kernel alone, once for every place of the plane. Then all places would count alike."
)
def slice_kernel_alone(w_plane, w_slice):
    return w_slice[:, None, None] * torch.ones_like(w_plane)


@mistake("Your w_slice lies along the rows: it needs a second new axis.")
def slice_kernel_along_rows(w_plane, w_slice):
    return w_slice[:, None] * w_plane


@mistake("Your w_slice lies along the columns: it needs two new axes behind its own.")
def slice_kernel_along_columns(w_plane, w_slice):
    return w_slice * w_plane


@mistake(
    "You laid the plane out flat. The kernel keeps its rows and columns, as K[s, i, j] has three places."
)
def plane_laid_flat(w_plane, w_slice):
    return torch.outer(w_slice, w_plane.flatten())


@mistake("You added the slices up. The kernel needs a plane for each of them.")
def slices_added_up(w_plane, w_slice):
    return w_slice.sum() * w_plane


EXERCISE = Exercise(
    reference=one_kernel,
    challenges=(
        Challenge("1 x 2 in the plane, 2 along slices", two_weights_each),
        Challenge("random: 3 x 3 in the plane, 3 along slices", random_kernels),
    ),
    mistakes=(
        kernels_added,
        slices_last,
        plane_alone,
        slice_kernel_turned_round,
        slice_kernel_alone,
        slice_kernel_along_rows,
        slice_kernel_along_columns,
        plane_laid_flat,
        slices_added_up,
    ),
    hints=(
        "Send in a volume that is 0 but for a single 1. What does the first kernel leave, and what does the "
        "second make of each of these numbers?",
        "K[s, i, j] = w_slice[s] * w_plane[i, j].",
        "Give w_slice two more axes, `w_slice[:, None, None]`, and multiply: PyTorch stretches both.",
    ),
)
