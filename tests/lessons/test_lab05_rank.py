"""Lab 05: right answers that look unlike ours pass; wrong ones that are right in part fail, and are named."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from labkit.explore import deltas
from labkit.lessons import check, exercises
from labkit.lessons.lab05_rank.inputs import never_formed, thin_factors
from labkit.methods import DyLoRA, dylora
from labkit.networks.anatomy import LINEARS, blocks
from labkit.networks.segmenter import segmenter
from labkit.tuning import count, tune
from labkit.updates import low_rank

EXERCISES = exercises("05")


def checked(name, answer):
    return check(name, EXERCISES[name], answer)


# Right answers


def by_walking(s, share):
    held, wanted = 0.0, share * float((s * s).sum())
    for n, one in enumerate(s.tolist(), start=1):
        held += one * one
        if held >= wanted * (1 - 1e-6):
            return n


def by_searching(s, share):
    held = np.cumsum(s.numpy().astype(float) ** 2)
    return int(np.searchsorted(held / held[-1], share - 1e-7)) + 1


def by_gram_matrices(B, A):
    """BA's squared singular values are the eigenvalues of (BᵀB)(AAᵀ), r x r."""
    L = torch.linalg.cholesky(B.T @ B)
    return torch.linalg.eigvalsh(L.T @ (A @ A.T) @ L).flip(0).clamp(min=0).sqrt()


def by_one_qr(B, A):
    return torch.linalg.svdvals(torch.linalg.qr(B, mode="r").R @ A)


def sum_of_outer_products(B, A, b, alpha):
    update = torch.zeros(len(B), A.shape[1])
    for i in range(b):
        update += alpha / B.shape[1] * torch.outer(B[:, i], A[i])
    return update


def other_ranks_masked(B, A, b, alpha):
    kept = (torch.arange(len(A)) < b).float()
    return torch.einsum("dr,r,rk->dk", B, kept, A) * (alpha / len(A))


def roots_in_both(B, A):
    Q_B, R_B = torch.linalg.qr(B)
    Q_A, R_A = torch.linalg.qr(A.T)
    U, s, Vh = torch.linalg.svd(R_B @ R_A.T)
    return Q_B @ (U * s.sqrt()), s.sqrt().diag() @ Vh @ Q_A.T


def sizes_in_A_and_signs_turned(B, A):
    Q_B, R_B = torch.linalg.qr(B)
    U, s, Vh = torch.linalg.svd(R_B @ A, full_matrices=False)
    return -(Q_B @ U), -(s[:, None] * Vh)


def by_counting_up(budget, shapes):
    r = 0
    while (r + 1) * sum(map(sum, shapes)) <= budget and r + 1 <= min(map(min, shapes)):
        r += 1
    return r


@pytest.mark.parametrize(
    "name, answer",
    [
        ("effective_rank", by_walking),
        ("effective_rank", by_searching),
        ("spectrum", by_gram_matrices),
        ("spectrum", by_one_qr),
        ("truncate", sum_of_outer_products),
        ("truncate", other_ranks_masked),
        ("in_order", roots_in_both),
        ("in_order", sizes_in_A_and_signs_turned),
        ("rank_for", by_counting_up),
    ],
)
def test_a_right_answer_passes_however_it_is_written(name, answer):
    feedback = checked(name, answer)
    assert feedback, str(feedback)


@pytest.mark.parametrize("answer", [by_gram_matrices, by_one_qr])
def test_a_spectrum_that_passes_holds_on_the_trained_update_of_the_next_cell(answer):
    one = deltas.update("rank-lora").factors["2.fc1"]
    theirs = low_rank.spectrum(one)
    torch.testing.assert_close(answer(one.B, one.A), theirs, rtol=0, atol=1e-3 * float(theirs[0]))


@pytest.mark.parametrize("answer", [roots_in_both, sizes_in_A_and_signs_turned])
def test_an_order_that_passes_holds_on_the_trained_update_of_the_next_cell(answer):
    lora = deltas.update("rank-lora")
    B, A = answer(lora.factors["2.fc1"].B, lora.factors["2.fc1"].A)
    for r in (1, 2, 4, 8):
        theirs = low_rank.ordered(lora).factors["2.fc1"].at(r)
        torch.testing.assert_close(B[:, :r] @ A[:r], theirs, rtol=0, atol=1e-2 * float(theirs.abs().max()))


# Wrong ones


def product_by_einsum(B, A):
    return torch.linalg.svdvals(torch.einsum("dr,rk->dk", B, A))[: len(A)]


def whole_Q(B, A):
    R_B = torch.linalg.qr(B, mode="complete").R
    return torch.linalg.svdvals(R_B @ A)[: len(A)]


def product_taken_apart(B, A):
    U, s, V = torch.svd(B @ A)
    r = B.shape[1]
    return U[:, :r] @ s[:r].diag(), V.T[:r]


@pytest.mark.parametrize(
    "name, answer",
    [("spectrum", product_by_einsum), ("spectrum", whole_Q), ("in_order", product_taken_apart)],
)
def test_an_answer_whose_numbers_are_right_but_that_forms_a_large_matrix_is_refused(name, answer):
    feedback = checked(name, answer)
    assert feedback.broken == "computes nothing larger than the factors", str(feedback)
    assert "60 x 50" in str(feedback) or "60 x 60" in str(feedback)


def test_the_counted_size_is_that_of_the_largest_tensor_and_the_factors_may_be_used_as_they_are():
    B, A = thin_factors()
    assert never_formed(lambda B, A: (B * 2, A.T + 1, B.T @ B), None, B, A) is None
    assert "60 x 50 was computed, 3,000 numbers" in never_formed(lambda B, A: (B @ A).sum(), None, B, A)


def square_root_of_energy(s, share):
    norm = torch.linalg.norm(s)
    return next(n for n in range(1, len(s) + 1) if torch.linalg.norm(s[:n]) / norm >= share)


def energy_not_divided(s, share):
    held = 0
    for n, one in enumerate(s.tolist(), start=1):
        held += one**2
        if held >= share:
            return n
    return len(s)


def in_the_order_R_A_R_B(B, A):
    return torch.linalg.svdvals(torch.linalg.qr(A.T).R.mT @ torch.linalg.qr(B).R)


def alpha_over_d(B, A, b, alpha):
    return B[:, :b] @ A[:b] * alpha / B.shape[0]


def guarded(B, A, b, alpha):
    return (alpha / b if b else 0.0) * (B[:, :b] @ A[:b])


@pytest.mark.parametrize(
    "name, answer, words",
    [
        ("effective_rank", square_root_of_energy, "a share of the norm"),
        ("effective_rank", energy_not_divided, "divide by all of the energy"),
        ("spectrum", in_the_order_R_A_R_B, "the factor of B stands first"),
        ("truncate", alpha_over_d, "number of outputs"),
        ("truncate", guarded, "alpha / b"),
    ],
)
def test_a_wrong_answer_is_called_by_its_name(name, answer, words):
    feedback = checked(name, answer)
    assert not feedback and words in str(feedback), str(feedback)


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda B, A: tuple(torch.linalg.svd(B @ A)), "no more"),
        (lambda B, A: B @ A, "several values"),
        (lambda B, A: (A, B), "shape (4, 2)"),
        (lambda B, A: (B.numpy(), A.numpy()), "a NumPy array"),
        (lambda B, A: (B.double(), A.double()), "torch.float64"),
    ],
)
def test_what_is_no_pair_of_factors_is_told_so_in_words_and_not_by_an_error_of_the_check(answer, words):
    feedback = checked("in_order", answer)
    assert not feedback and words in str(feedback), str(feedback)
    assert "Error" not in str(feedback)


# What the lab shows beside the answers


def test_the_exercises_are_what_labkit_does():
    torch.manual_seed(0)
    B, A = torch.randn(30, 4), torch.randn(4, 20)
    factors = low_rank.Factors(B, A)
    torch.testing.assert_close(EXERCISES["spectrum"].reference(B, A), low_rank.spectrum(factors))
    new_B, new_A = EXERCISES["in_order"].reference(B, A)
    torch.testing.assert_close(new_B @ new_A, B @ A, rtol=1e-4, atol=1e-4)
    sizes = new_B.norm(dim=0) * new_A.norm(dim=1)
    torch.testing.assert_close(sizes, torch.linalg.svdvals(B @ A)[:4])


def test_a_rank_for_a_budget_is_counted_as_labkit_counts_and_one_more_is_too_much():
    start = segmenter("tiny", in_chans=1, classes=3, decoder="linear")
    shapes = []
    for block in blocks(start.backbone):
        for place, _, of in LINEARS.values():
            rows, columns = block.get_submodule(place).weight.shape
            shapes.append((rows // of, columns))
    r = EXERCISES["rank_for"].reference(124_544, shapes)
    sizes = [
        count(
            tune(
                segmenter("tiny", in_chans=1, classes=3, decoder="linear"), DyLoRA(n, targets=tuple(LINEARS))
            )
        )
        for n in (r, r + 1)
    ]
    inserted = [size.inserted for size in sizes]
    assert inserted[0] <= 124_544 < inserted[1]


def test_truncate_is_what_a_dylora_layer_adds_at_that_rank():
    model = tune(segmenter("tiny", in_chans=1, classes=3, decoder="linear"), DyLoRA(4, 8, ("fc1",)))
    layer = blocks(model.backbone)[0].mlp.fc1
    torch.nn.init.normal_(layer.B)
    B, A = layer.B[0].detach(), layer.A[0].detach()
    for b in (0, 1, 4):
        with dylora.at_rank(model, b):
            added = (layer.weight - layer.original.weight).detach()
        torch.testing.assert_close(EXERCISES["truncate"].reference(B, A, b, 8), added, rtol=1e-4, atol=1e-5)
