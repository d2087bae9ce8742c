"""Lab 06: right answers that look unlike ours pass, and go into the real network; wrong ones are named."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labkit.explore import drawings, plots
from labkit.lessons import check, exercises
from labkit.lessons.feedback import NOT_YET
from labkit.methods import Adapter, AdapterDrop
from labkit.networks.segmenter import segmenter
from labkit.tuning import count, tune

EXERCISES = exercises("06")


def checked(name, answer):
    return check(name, EXERCISES[name], answer)


# Right answers


def adapter_of_columns(x, W1, b1, W2, b2):
    columns = W2 @ F.gelu(W1 @ x.T + b1[:, None]) + b2[:, None]
    return (x.T + columns).T


def adapter_of_layers(x, W1, b1, W2, b2):
    wide = F.linear(nn.GELU()(F.linear(x, W1, b1)), W2, b2)
    return torch.add(x, wide)


def adapter_token_by_token(x, W1, b1, W2, b2):
    return torch.stack([token + W2 @ F.gelu(W1 @ token + b1) + b2 for token in x])


def adapter_by_the_error_function(x, W1, b1, W2, b2):
    z = x @ W1.T + b1
    return x + (z / 2 * (1 + torch.erf(z / math.sqrt(2)))) @ W2.T + b2


def insert_by_names(backbone, make, first=0):
    for p in backbone.parameters():
        p.requires_grad = False
    for path, layer in list(backbone.named_modules()):
        at, _, name = path.rpartition(".")
        if name in ("attn", "mlp") and int(at.split(".")[1]) >= first:
            setattr(backbone.get_submodule(at), name, make(layer))
    return sum(p.numel() for p in backbone.parameters() if p.requires_grad)


def insert_from_above(backbone, make, first=0):
    backbone.requires_grad_(False)
    before = sum(p.numel() for p in backbone.parameters())
    for i in reversed(range(first, len(backbone.blocks))):
        for place in ("mlp", "attn"):
            setattr(backbone.blocks[i], place, make(getattr(backbone.blocks[i], place)))
    return sum(p.numel() for p in backbone.parameters()) - before


def wire_by_cases(x, layer, added, where, s):
    if where == "parallel":
        return s * added(x) + layer(x) + x
    x = x.clone()
    if where == "after":
        x += layer(x)
        return x + added(x)
    z = layer(x)
    z = z + added(z)
    return x + z


def kron_sum_by_einsum(As, Bs):
    A, B = torch.stack(list(As)), torch.stack(list(Bs))
    blocks = torch.einsum("iab,ipq->apbq", A, B)
    return blocks.flatten(2, 3).flatten(0, 1)


def kron_sum_in_place(As, Bs):
    total = torch.zeros(As[0].shape[0] * Bs[0].shape[0], As[0].shape[1] * Bs[0].shape[1])
    for A, B in zip(As, Bs, strict=True):
        total += torch.kron(A, B)
    return total


def token_bias_as_a_matrix(y, h, w, v):
    return y + h @ w.unsqueeze(1) @ v.unsqueeze(0)


def token_bias_by_einsum(y, h, w, v):
    return y + torch.einsum("nf,f,d->nd", h, w, v)


def token_bias_as_low_rank(y, h, w, v):
    return y + h @ torch.outer(v, w).T


def share_by_division(blocks, tasks, passes):
    if tasks == 1:
        return 0
    return max(0, -(-(tasks * blocks - passes) // (tasks - 1)))


def share_by_counting_down(blocks, tasks, passes):
    n = blocks
    while n and n - 1 + tasks * (blocks - n + 1) <= passes:
        n -= 1
    return n


ADAPTERS = [
    adapter_of_columns,
    adapter_of_layers,
    adapter_token_by_token,
    adapter_by_the_error_function,
]
INSERTIONS = [insert_by_names, insert_from_above]


@pytest.mark.parametrize(
    "name, answer",
    [
        *(("adapter", one) for one in ADAPTERS),
        *(("insert", one) for one in INSERTIONS),
        ("wire", wire_by_cases),
        ("kron_sum", kron_sum_by_einsum),
        ("kron_sum", kron_sum_in_place),
        ("token_bias", token_bias_as_a_matrix),
        ("token_bias", token_bias_by_einsum),
        ("token_bias", token_bias_as_low_rank),
        ("blocks_to_share", share_by_division),
        ("blocks_to_share", share_by_counting_down),
    ],
)
def test_a_right_answer_passes_however_it_is_written(name, answer):
    feedback = checked(name, answer)
    assert feedback, str(feedback)


# What passes works in the lab's own network


class AsInTheLab(nn.Module):
    """A frozen layer, then an answer of the exercise `adapter`, whose rows are the tokens of all slices."""

    def __init__(self, layer, adapter, d=384, m=48):
        super().__init__()
        self.layer, self.adapter = layer, adapter
        self.W1, self.b1 = nn.Parameter(torch.randn(m, d) / d**0.5), nn.Parameter(torch.zeros(m))
        self.W2, self.b2 = nn.Parameter(torch.zeros(d, m)), nn.Parameter(torch.zeros(d))

    def forward(self, x, **masks):
        out = self.layer(x, **masks)
        return self.adapter(out.flatten(0, -2), self.W1, self.b1, self.W2, self.b2).view_as(out)


@pytest.mark.parametrize("insert, first", [(insert_by_names, 2), (insert_from_above, 0)])
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_adapters_and_insertions_that_pass_learn_in_the_labs_network(adapter, insert, first):
    model = segmenter("tiny", in_chans=1, classes=3, decoder="linear", weights=None)
    learns = insert(model.backbone, lambda layer: AsInTheLab(layer, adapter), first)
    method = AdapterDrop(n=first, m=48) if first else Adapter(m=48)
    theirs = segmenter("tiny", in_chans=1, classes=3, decoder="linear", weights=None)
    assert learns == count(tune(theirs, method)).inserted
    model(torch.randn(1, 1, 96, 96)).square().mean().backward()
    for number, block in enumerate(model.backbone.blocks):
        for layer in (block.attn, block.mlp):
            assert isinstance(layer, AsInTheLab) == (number >= first)
            assert number < first or layer.W2.grad.abs().max() > 0


# Wrong ones


def adapter_of_numbers(x, W1, b1, W2, b2):
    return adapter_of_layers(x, W1, b1, W2, b2).tolist()


def adapter_of_new_numbers(x, W1, b1, W2, b2):
    return torch.tensor(adapter_of_layers(x, W1, b1, W2, b2).tolist())


def adapter_with_frozen_W1(x, W1, b1, W2, b2):
    return adapter_of_layers(x, W1.detach(), b1, W2, b2)


def adapter_in_place(x, W1, b1, W2, b2):
    x += F.linear(F.gelu(F.linear(x, W1, b1)), W2, b2)
    return x


def kron_sum_by_numpy(As, Bs):
    return torch.tensor(sum(np.kron(A, B) for A, B in zip(As, Bs, strict=True)))


def token_bias_without_record(y, h, w, v):
    with torch.no_grad():
        return token_bias_by_einsum(y, h, w, v)


def insert_that_returns_the_backbone(backbone, make, first=0):
    insert_from_above(backbone, make, first)
    return backbone


def insert_in_linear_layers(backbone, make, first=0):
    backbone.requires_grad_(False)
    for block in backbone.blocks[first:]:
        block.attn.proj, block.mlp.fc2 = make(block.attn.proj), make(block.mlp.fc2)
    return sum(p.numel() for p in backbone.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    "name, answer, words",
    [
        ("adapter", adapter_of_numbers, "must be a tensor, not list"),
        ("adapter", adapter_of_new_numbers, "no gradient comes back"),
        ("adapter", adapter_with_frozen_W1, "gradient of W1"),
        ("adapter", adapter_in_place, "leaves its inputs as they are"),
        ("token_bias", token_bias_without_record, "no gradient comes back"),
        ("insert", insert_that_returns_the_backbone, "return how many numbers learn"),
        ("insert", insert_in_linear_layers, "blocks.0.attn"),
    ],
)
def test_what_could_not_learn_or_stops_a_later_cell_is_refused_in_words(name, answer, words):
    feedback = checked(name, answer)
    assert feedback.status == NOT_YET
    assert words in str(feedback)


def test_numpy_is_refused_with_the_students_own_line():
    feedback = checked("kron_sum", kron_sum_by_numpy)
    assert feedback.status == NOT_YET and "np.kron" in str(feedback)


def scaled_everywhere_and_sequential_reads_x(x, layer, added, where, s):
    return x + layer(x) + s * added(x + layer(x) if where == "after" else x)


def broadcast_silently(y, h, w, v):
    return torch.matmul(h, w) * v + y


def frozen_at_the_end(backbone, make, first=0):
    for block in list(backbone.blocks)[first:]:
        block.attn, block.mlp = make(block.attn), make(block.mlp)
    for p in backbone.parameters():
        p.requires_grad_(False)
    return 0


@pytest.mark.parametrize(
    "name, answer, words",
    [
        ("token_bias", broadcast_silently, "pairs the first token with the first number of v"),
        ("insert", frozen_at_the_end, "You froze after you had inserted"),
    ],
)
def test_what_students_were_seen_to_write_has_a_name(name, answer, words):
    assert words in checked(name, answer).misconception


def test_a_scale_in_all_three_places_has_a_name():
    def everywhere(x, layer, added, where, s):
        reads = {"sequential": layer(x), "parallel": x, "after": x + layer(x)}[where]
        return x + layer(x) + s * added(reads)

    assert "You scaled in all three places" in checked("wire", everywhere).misconception
    assert checked("wire", scaled_everywhere_and_sequential_reads_x).status == NOT_YET


# The drawing


def test_the_drawing_of_places_names_all_three_and_what_is_frozen():
    words = {
        text.get_text() for text in drawings.adapter_places().findobj(lambda one: hasattr(one, "get_text"))
    }
    assert {"sequential", "parallel", "after the block", "F", "a", "s · a"} <= words
    assert {"frozen layer", "adapter, learns"} <= words


def marks(axis):
    """The kind of mark at each height."""
    drawn = [line for line in axis.lines if line.get_marker() in ("o", "s") and len(line.get_ydata())]
    return {float(line.get_ydata()[0]): line.get_marker() for line in drawn}


def test_the_figure_of_differences_marks_the_intervals_that_leave_zero_out():
    figure = plots.differences(
        {"kidneys": {"adapters": (-1.9, 4.4), "LoRA": (2.0, 1.0)}, "brains": {"LoRA": (-3.0, 1.0)}}, "points"
    )
    kidneys, brains = figure.axes
    assert [label.get_text() for label in kidneys.get_yticklabels()] == ["LoRA", "adapters"]
    assert (marks(kidneys), marks(brains)) == ({0: "s", 1: "o"}, {0: "s"})
