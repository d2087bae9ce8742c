"""Lab 08: right answers that look unlike ours pass; wrong ones are named, and small ones shown in full."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import binary_dilation, distance_transform_edt, label
from torch import nn

from labkit import metrics
from labkit.lessons import check, exercises
from labkit.methods import STAdapter
from labkit.networks.segmenter import segmenter
from labkit.tuning import tune

EXERCISES = exercises("08")


# Right answers


def volume_by_einsum(x, S, h, w):
    B = len(x) // S
    return torch.einsum("bshwd->bdshw", x.view(B, S, h, w, x.shape[2]))


def volume_token_by_token(x, S, h, w):
    columns = [torch.stack([x[:, i * w + j] for j in range(w)], 1) for i in range(h)]
    grid = torch.stack(columns, 1)  # (B·S, h, w, d)
    return torch.stack([grid[b * S : (b + 1) * S].movedim(-1, 0) for b in range(len(x) // S)])


def slices_by_slices(x, w):
    zero = torch.zeros_like(x[..., :1])
    below, above = torch.cat([zero, x[..., :-1]], -1), torch.cat([x[..., 1:], zero], -1)
    return w[:, :1] * below + w[:, 1:2] * x + w[:, 2:] * above


def adapter_by_shifts(x, S, h, w, down, filters, up):
    z = F.linear(x, down).unflatten(0, (-1, S))  # (B, S, N, m)
    padded = F.pad(z, (0, 0, 0, 0, 1, 1))
    z = sum(padded[:, k : k + S] * filters[:, k] for k in range(3))
    return x + F.linear(z.flatten(0, 1), up)


def adapter_by_maps(x, S, h, w, down, filters, up):
    runs = x.unflatten(0, (-1, S))
    out = []
    for s in range(S):
        seen = [(k, s + k - 1) for k in range(3) if 0 <= s + k - 1 < S]
        maps = (runs[:, t] @ (up @ torch.diag(filters[:, k]) @ down).T for k, t in seen)
        out.append(runs[:, s] + sum(maps))
    return torch.stack(out, 1).flatten(0, 1)


def hd95_by_pairs(prediction, truth, spacing_mm):
    if not prediction.any() and not truth.any():
        return 0
    if not prediction.any() or not truth.any():
        return math.sqrt(sum((n * mm) ** 2 for n, mm in zip(truth.shape, spacing_mm, strict=True)))

    def border(mask):
        padded = np.pad(mask, 1)
        inside = padded.copy()
        for axis in range(mask.ndim):
            inside &= np.roll(padded, 1, axis) & np.roll(padded, -1, axis)
        return np.argwhere(padded & ~inside) * np.array(spacing_mm)

    P, T = border(prediction), border(truth)
    apart = np.linalg.norm(P[:, None] - T[None], axis=2)
    return max(np.percentile(apart.min(1), 95), np.percentile(apart.min(0), 95))


def hd95_by_dilation(prediction, truth, spacing_mm):
    empty = [not mask.any() for mask in (prediction, truth)]
    if all(empty):
        return 0.0
    if any(empty):
        return float(np.linalg.norm(np.array(truth.shape) * np.array(spacing_mm)))
    P, T = (mask & binary_dilation(~mask, border_value=1) for mask in (prediction, truth))
    far = [distance_transform_edt(~b, sampling=spacing_mm)[a] for a, b in ((P, T), (T, P))]
    return max(np.quantile(d, 0.95) for d in far)


def lesions_by_counting(prediction, truth):
    ones = np.ones((3,) * truth.ndim)
    lesions, n = label(truth, ones)
    parts, m = label(prediction, ones)
    total, votes = 0.0, n
    for i in range(1, n + 1):
        mine = np.zeros_like(truth)
        for j in range(1, m + 1):
            if ((parts == j) & (lesions == i)).any():
                mine |= parts == j
        total += 2 * (mine & (lesions == i)).sum() / (mine.sum() + (lesions == i).sum())
    votes += sum(not truth[parts == j].any() for j in range(1, m + 1))
    return total / votes if votes else 1.0


def filter_by_trying(distance_mm, spacing_mm, blocks):
    k = 1
    while blocks * (k // 2) * spacing_mm < distance_mm:
        k += 2
    return k


@pytest.mark.parametrize(
    "name, answer",
    [
        ("tokens_to_volume", volume_by_einsum),
        ("tokens_to_volume", volume_token_by_token),
        ("along_slices", slices_by_slices),
        ("st_adapter", adapter_by_shifts),
        ("st_adapter", adapter_by_maps),
        ("hd95", hd95_by_pairs),
        ("hd95", hd95_by_dilation),
        ("lesion_dice", lesions_by_counting),
        ("smallest_filter", filter_by_trying),
    ],
)
def test_a_right_answer_passes_however_it_is_written(name, answer):
    feedback = check(name, EXERCISES[name], answer)
    assert feedback, str(feedback)


def test_the_exercises_st_adapter_is_labkits_without_its_biases():
    adapter = tune(segmenter("tiny", in_chans=1, classes=3), STAdapter()).backbone.blocks[0].adapter
    with torch.no_grad():
        for name, parameter in adapter.named_parameters():
            parameter.normal_(std=0.1) if name.endswith("weight") else parameter.zero_()
        x = torch.randn(6, 4, adapter.W_down.in_features)  # two volumes of three slices of 2 x 2 tokens
        weights = (adapter.W_down.weight, adapter.conv.weight.view(-1, 3), adapter.W_up.weight)
        mine = EXERCISES["st_adapter"].reference(x, 3, 2, 2, *weights)
        theirs = adapter(x.unflatten(1, (2, 2)).unflatten(0, (-1, 3))).flatten(0, 1).flatten(1, 2)
    assert isinstance(adapter.conv, nn.Conv3d)
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


# Wrong ones


def volume_without_a_graph(x, S, h, w):
    return volume_by_einsum(torch.tensor(x.tolist()), S, h, w)


def filtered_without_a_graph(x, w):
    return slices_by_slices(x, w.detach())


def adapter_with_frozen_filters(x, S, h, w, down, filters, up):
    return adapter_by_shifts(x, S, h, w, down, filters.detach(), up)


@pytest.mark.parametrize(
    "name, answer, where",
    [
        ("tokens_to_volume", volume_without_a_graph, "gradient of x"),
        ("along_slices", filtered_without_a_graph, "gradient of w"),
        ("st_adapter", adapter_with_frozen_filters, "gradient of filters"),
    ],
)
def test_right_values_that_cannot_learn_do_not_pass(name, answer, where):
    feedback = check(name, EXERCISES[name], answer)
    assert not feedback and where in str(feedback)


def channels_to_the_front(x, S, h, w):
    return x.transpose(1, 2).reshape(-1, x.shape[-1], S, h, w)


def reshaped(x, S, h, w):
    return x.reshape(-1, x.shape[-1], S, h, w)


@pytest.mark.parametrize(
    "answer, named", [(channels_to_the_front, "front of each slice"), (reshaped, "reshaped at once")]
)
def test_a_wrong_volume_is_named_and_its_twelve_numbers_are_shown(answer, named):
    feedback = check("tokens_to_volume", EXERCISES["tokens_to_volume"], answer)
    assert named in feedback.misconception
    assert "tensor([[[" in str(feedback) and "sum" not in str(feedback)


def lesions_divided_by_lesions(prediction, truth):
    ones = np.ones((3,) * truth.ndim)
    lesions, n = label(truth, ones)
    parts, _ = label(prediction, ones)
    votes = []
    for i in range(1, n + 1):
        touching = set(parts[lesions == i]) - {0}
        votes.append(metrics.dice(np.isin(parts, list(touching)), lesions == i))
    return sum(votes) / n


def hd95_of_medpy(prediction, truth, spacing_mm):
    if not (prediction.any() and truth.any()):
        return hd95_by_dilation(prediction, truth, spacing_mm)
    P, T = (mask & binary_dilation(~mask, border_value=1) for mask in (prediction, truth))
    there, back = (distance_transform_edt(~b, sampling=spacing_mm)[a] for a, b in ((P, T), (T, P)))
    return np.percentile(np.hstack([there, back]), 95)


def hd95_that_is_nan_for_a_missed_lesion(prediction, truth, spacing_mm):
    if prediction.any() != truth.any():
        return float("nan")
    return hd95_by_dilation(prediction, truth, spacing_mm)


@pytest.mark.parametrize(
    "name, answer, named",
    [
        ("lesion_dice", lesions_divided_by_lesions, "False components cost you nothing"),
        ("hd95", hd95_of_medpy, "You pooled the distances"),
    ],
)
def test_a_wrong_score_is_called_by_its_name(name, answer, named):
    assert named in check(name, EXERCISES[name], answer).misconception


def test_an_hd95_that_makes_a_mean_nan_does_not_pass():
    feedback = check("hd95", EXERCISES["hd95"], hd95_that_is_nan_for_a_missed_lesion)
    assert not feedback and "nothing found" in str(feedback)


@pytest.mark.parametrize("name", EXERCISES)
@pytest.mark.parametrize("returned", [lambda *_: "a text", lambda *_: torch.ones(2, 2), lambda *_: 3j])
def test_what_is_nothing_of_the_kind_is_refused_without_an_error_of_ours(name, returned):
    words = str(check(name, EXERCISES[name], returned))
    assert "Error" not in words and "attribute" not in words
