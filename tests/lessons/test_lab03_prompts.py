"""Lab 03: right answers that look unlike ours pass and carry the rest of the lab; what cannot learn, or is
wrong in a way that a lecturer has seen, does not pass and is named; and the maps say what they show."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.text import Text
from torch import nn

from labkit.explore import plots
from labkit.lessons import exercises
from labkit.lessons.exercise import check
from labkit.lessons.feedback import NOT_YET, PASS
from labkit.scans.case import Case


def checked(name, answer):
    return check(name, exercises("03")[name], answer)


# Right answers


def attend_by_sdpa(q, K, V, P_k, P_v):
    return F.scaled_dot_product_attention(
        q[None], torch.vstack([K, P_k])[None], torch.vstack([V, P_v])[None]
    )[0]


def attend_by_exp(q, K, V, P_k, P_v):
    own, more = (torch.einsum("md,nd->mn", q, keys).div(q.size(-1) ** 0.5) for keys in (K, P_k))
    largest = torch.cat([own, more], 1).amax(1, keepdim=True)
    own, more = (own - largest).exp(), (more - largest).exp()
    return (own @ V + more @ P_v) / (own.sum(1, keepdim=True) + more.sum(1, keepdim=True))


def prompted_image_by_image(block, x, P):
    return torch.stack([block(torch.cat([P, image])[None])[0, len(P) :] for image in x])


def prompted_from_behind(block, x, P):
    return block(torch.cat([x, P.repeat(len(x), 1, 1)], dim=1))[:, : x.shape[1]]


def prefix_by_rows_of_W(P, norm, W, b):
    d = P.shape[-1]
    normal = norm(P)
    return [normal @ W[rows].T + b[rows] for rows in (slice(d, 2 * d), slice(2 * d, None))]


def counts_in_another_order(n, d, L, mid):
    mlp = d * mid + mid + mid * 2 * L * d + 2 * L * d
    return {"kept": n * 2 * d * L, "trained": n * d + mlp, "deep": L * n * d, "shallow": n * d}


class PromptedBlock(nn.Module):
    def __init__(self, block, P):
        super().__init__()
        self.block = block
        for p in self.block.parameters():
            p.requires_grad = False
        self.prompts = nn.Parameter(P.clone())

    def forward(self, x):
        beside = torch.cat([self.prompts.unsqueeze(0).repeat(x.shape[0], 1, 1), x], dim=1)
        return self.block(beside)[:, self.prompts.shape[0] :, :]


def train_by_filter(model, batches, loss_of, lr):
    optimizer, losses = torch.optim.AdamW(filter(lambda p: p.requires_grad, model.parameters()), lr), []
    for i in range(len(batches)):
        for p in model.parameters():
            p.grad = None
        loss = loss_of(model(batches[i][0]), batches[i][1])
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def fit_by_trying(megabytes, tasks, head, d, L):
    n = 0
    while 4 * tasks * (head + (n + 1) * L * d) <= megabytes * 10**6:
        n += 1
    return n


RIGHT = {
    "attend": (attend_by_sdpa, attend_by_exp),
    "prompted": (prompted_image_by_image, prompted_from_behind),
    "as_prefix": (prefix_by_rows_of_W,),
    "prompt_counts": (counts_in_another_order,),
    "PromptedBlock": (PromptedBlock,),
    "train": (train_by_filter,),
    "prompts_that_fit": (fit_by_trying,),
}


@pytest.mark.parametrize("name, answer", [(name, one) for name, some in RIGHT.items() for one in some])
def test_a_right_answer_passes_however_it_is_written(name, answer):
    feedback = checked(name, answer)
    assert feedback.status == PASS, str(feedback)


def test_each_exercise_has_an_answer_here_that_looks_unlike_ours():
    assert RIGHT.keys() == exercises("03").keys()


# What could not learn


def attend_detached(q, K, V, P_k, P_v):
    return attend_by_exp(q, K, V, P_k.detach(), P_v.detach())


def attend_with_one_of_them_detached(q, K, V, P_k, P_v):
    return attend_by_exp(q, K, V, P_k, P_v.data)


def attend_that_stops_earlier_prompts(q, K, V, P_k, P_v):
    return attend_by_exp(q.detach(), K, V, P_k, P_v)


@torch.no_grad()
def attend_without_grad(q, K, V, P_k, P_v):
    return attend_by_exp(q, K, V, P_k, P_v)


def attend_by_numpy(q, K, V, P_k, P_v):
    q, K, V, P_k, P_v = (one.numpy() for one in (q, K, V, P_k, P_v))
    logits = q @ np.concatenate([P_k, K]).T / np.sqrt(q.shape[1], dtype=np.float32)
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return torch.from_numpy(weights @ np.concatenate([P_v, V]) / weights.sum(1, keepdims=True))


def prompted_detached(block, x, P):
    return prompted_from_behind(block, x, P.detach())


def prompted_that_stops_earlier_prompts(block, x, P):
    return prompted_from_behind(block, x.detach(), P)


def prefix_detached(P, norm, W, b):
    return prefix_by_rows_of_W(P.detach(), norm, W, b)


def prefix_whose_values_are_detached(P, norm, W, b):
    keys, values = prefix_by_rows_of_W(P, norm, W, b)
    return keys, values.detach()


@pytest.mark.parametrize(
    "name, answer, words",
    [
        ("attend", attend_detached, "no gradient reaches P_k or P_v:"),
        ("attend", attend_with_one_of_them_detached, "no gradient reaches P_v:"),
        ("attend", attend_that_stops_earlier_prompts, "no gradient reaches q:"),
        ("attend", attend_without_grad, "no gradient reaches q or K or V or P_k or P_v:"),
        ("attend", attend_by_numpy, "NumPy keeps no record for gradients"),
        ("prompted", prompted_detached, "no gradient reaches P:"),
        ("prompted", prompted_that_stops_earlier_prompts, "no gradient reaches x:"),
        ("as_prefix", prefix_detached, "no gradient reaches P:"),
        ("as_prefix", prefix_whose_values_are_detached, "no gradient reaches P:"),
    ],
)
def test_prompts_that_could_never_learn_do_not_pass_though_the_numbers_are_right(name, answer, words):
    feedback = checked(name, answer)
    assert feedback.status == NOT_YET
    assert feedback.broken == "lets gradients through" and words in str(feedback)
    assert "so prompts could never learn" in feedback.misconception


# Wrong in a way that has been seen: named


def root_of_the_number_of_keys(q, K, V, P_k, P_v):
    keys = torch.cat([P_k, K])
    return (q @ keys.T / keys.shape[0] ** 0.5).softmax(-1) @ torch.cat([P_v, V])


def scale_after_the_softmax(q, K, V, P_k, P_v):
    return (q @ torch.cat([P_k, K]).T).softmax(-1) / q.shape[1] ** 0.5 @ torch.cat([P_v, V])


def exp_of_the_bare_logits(q, K, V, P_k, P_v):
    own, more = (torch.exp(q @ keys.T / q.shape[1] ** 0.5) for keys in (K, P_k))
    return (own @ V + more @ P_v) / (own.sum(1) + more.sum(1))[:, None]


def view_of_three(P, norm, W, b):
    qkv = (norm(P) @ W.T + b).view(3, P.shape[0], P.shape[1])
    return qkv[1], qkv[2]


def slices_not_transposed(P, norm, W, b):
    _, W_k, W_v = W.chunk(3)
    _, b_k, b_v = b.chunk(3)
    return norm(P) @ W_k + b_k, norm(P) @ W_v + b_v


def counts(trained):
    return lambda n, d, L, mid: counts_in_another_order(n, d, L, mid) | {"trained": trained(n, d, L, mid)}


def second_bias_alone(n, d, L, mid):
    return n * d + d * mid + (mid + 1) * 2 * L * d


def an_mlp_a_block(n, d, L, mid):
    return n * d + L * ((d + 1) * mid + (mid + 1) * 2 * d)


def truth_before_prediction(model, batches, loss_of, lr):
    return train_by_filter(model, batches, lambda prediction, y: loss_of(y, prediction), lr)


def a_million_and_one(megabytes, tasks, head, d, L):
    return max(0, (int(megabytes * 1_000_001 / 4) // tasks - head) // (L * d))


def test_a_megabyte_is_a_million_bytes_to_the_last_number():
    assert checked("prompts_that_fit", a_million_and_one).status == NOT_YET


@pytest.mark.parametrize(
    "name, answer, words",
    [
        ("train", truth_before_prediction, "the prediction first"),
        ("attend", root_of_the_number_of_keys, "square root of how many keys"),
        ("attend", scale_after_the_softmax, "divided after the softmax"),
        ("attend", exp_of_the_bare_logits, "exp(89) is more than float32 holds"),
        ("as_prefix", view_of_three, "reshaped to (3, n, d)"),
        ("as_prefix", slices_not_transposed, "without transposing"),
        ("prompt_counts", counts(second_bias_alone), "bias of the MLP's first layer"),
        ("prompt_counts", counts(an_mlp_a_block), "an MLP for every block"),
    ],
)
def test_a_mistake_that_has_been_seen_is_called_by_name(name, answer, words):
    feedback = checked(name, answer)
    assert feedback.status == NOT_YET and words in feedback.misconception, str(feedback)


# Refused in words


class OtherName(PromptedBlock):
    def __init__(self, block, P):
        super().__init__(block, P)
        self.P = self.prompts
        del self.prompts

    def forward(self, x):
        return prompted_from_behind(self.block, x, self.P)


class NoModule:
    def __init__(self, block, P):
        block.requires_grad_(False)


def train_in_reverse(model, batches, loss_of, lr):
    return train_by_filter(model, batches[::-1], loss_of, lr)


@pytest.mark.parametrize(
    "name, answer, words",
    [
        ("PromptedBlock", OtherName, "prompts"),
        ("PromptedBlock", NoModule, "no nn.Module"),
        ("train", train_in_reverse, "model"),
    ],
)
def test_what_would_stop_a_later_cell_is_refused_in_words(name, answer, words):
    feedback = checked(name, answer)
    assert feedback.status == NOT_YET and words in str(feedback)


# The maps


def a_case():
    label = np.zeros((2, 24, 32), np.uint8)
    label[1, 4:12, 8:20] = 1
    image = np.random.default_rng(0).normal(size=(1, 2, 24, 32)).astype(np.float32)
    return Case("somebody", image, label, (1.0, 1.0, 1.0), ("CT",), {1: "kidney", 2: "tumour"})


def test_maps_of_tokens_share_one_scale_and_lie_over_the_slice_with_its_outlines():
    maps = {"head 0": np.full((3, 4), 0.2), "head 1": np.full((3, 4), 0.7)}
    figure = plots.token_maps(a_case(), 1, maps, "share", top=0.9, token=(1, 2))
    slice_panel, *panels = figure.axes[:3]
    assert [panel.get_title() for panel in panels] == ["head 0", "head 1"]
    for panel in panels:
        (drawn,) = panel.images
        assert drawn.get_clim() == (0, 0.9) and drawn.get_extent() == [0, 32, 24, 0]
    for panel in (slice_panel, *panels):
        (dot,) = panel.lines
        assert (dot.get_xdata()[0], dot.get_ydata()[0]) == (20, 12)  # the middle of row 1, column 2
        (outline,) = [c for c in panel.collections if c.get_paths()]  # no tumour in this slice
        x, y = outline.get_paths()[0].vertices.T
        assert (x.min(), x.max(), y.min(), y.max()) == (8, 20, 4, 12)
    words = [text.get_text() for text in figure.findobj(Text)]
    assert "share" in words and "kidney" in words and "CT, slice 1" in words


def test_maps_of_tokens_of_a_slice_that_is_not_there_are_refused():
    with pytest.raises(ValueError, match="has axial slices 0 to 1, not 7"):
        plots.token_maps(a_case(), 7, {"head 0": np.zeros((3, 4))}, "share", top=1)
