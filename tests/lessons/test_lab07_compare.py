"""Lab 07: right answers that look unlike ours pass; what would mislead or stop a later cell does not, and is
named; the exercises' intervals are the kit's; and the rates that the lab prints are the kit's choice."""

from __future__ import annotations

import ast
import math

import numpy as np
import pytest
import torch
from scipy import stats

from labkit.lessons import check, exercises
from labkit.paths import checkout_root
from labkit.studies import statistics, store

EXERCISES = exercises("07")


def checked(name, answer):
    return check(name, EXERCISES[name], answer)


# Right answers


def paired_by_scipy(a, b):
    found = stats.ttest_rel(a, b)
    low, high = found.confidence_interval(0.95)
    return np.mean(a - b), (high - low) / 2


def standard_error_by_mean_squares(y):
    S, P = y.shape
    by_seed, by_patient = y.mean(1), y.mean(0)
    seeds = P * ((by_seed - y.mean()) ** 2).sum() / (S - 1)
    patients = S * ((by_patient - y.mean()) ** 2).sum() / (P - 1)
    rest = (((y - y.mean()) ** 2).sum() - (S - 1) * seeds - (P - 1) * patients) / ((S - 1) * (P - 1))
    return math.sqrt((patients + (seeds - rest if seeds > rest else 0)) / (S * P))


def choose_by_sorting(runs):
    first = sorted((run for run in runs if run[1] == 0), key=lambda run: run[2])
    rate = first[-1][0]
    rates = sorted({run[0] for run in first})
    tests = [run[3] for run in runs if run[0] == rate]
    return rate, sum(tests) / len(tests), rate == rates[0] or rate == rates[-1]


def pareto_by_cost(points):
    """From cheap to dear, as one draws it."""
    front, best = [], -math.inf
    for cost in sorted({cost for cost, _ in points}):
        top = max(score for c, score in points if c == cost)
        if top > best:
            front += [i for i, p in enumerate(points) if p == (cost, top)]
            best = top
    return front


def pareto_as_a_set(points):
    return set(pareto_by_cost(points))


def pareto_by_numpy(points):
    p = np.array(points)
    beats = (p[:, None] <= p).astype(int)  # of cost; scores the other way
    no_worse = (beats[..., 0] == 1) & (p[:, None, 1] >= p[:, 1])
    strictly = (p[:, None] != p).any(-1)
    return np.flatnonzero(~(no_worse & strictly).any(0))


def kept_from_above(n, widths, learns, input_learns):
    layers = range(len(learns))
    inputs = sum(widths[i] for i in layers if learns[i])
    gelus = sum(widths[i + 1] for i in layers[:-1] if input_learns or any(learns[: i + 1]))
    return n * (inputs + gelus)


def v_first(A_q, B_q, A_v, B_v, alpha):
    zero = torch.zeros_like(B_q)
    bands = torch.cat([zero, B_q], 1), torch.cat([zero, zero], 1), torch.cat([B_v, zero], 1)
    return torch.cat([A_v, A_q]), torch.cat(bands), 2 * alpha


def two_B_and_alpha_kept(A_q, B_q, A_v, B_v, alpha):
    A, B, _ = EXERCISES["as_peft"].reference(A_q, B_q, A_v, B_v, alpha)
    return A, 2 * B, alpha


def filled_in_place(A_q, B_q, A_v, B_v, alpha):
    (r, d) = len(A_q), len(B_q)
    B = torch.zeros(3 * d, 2 * r)
    B[:d, :r], B[2 * d :, r:] = B_q, B_v
    return torch.vstack((A_q, A_v)), B, float(2 * alpha)


def patients_from_above(sd, apart):
    """Down from far too many, as long as one fewer still suffices."""

    def enough(n):
        return stats.t.ppf(0.975, n - 1) * sd / math.sqrt(n) < apart

    n = 1000
    while n > 2 and enough(n - 1):
        n -= 1
    return n


@pytest.mark.parametrize(
    "name, answer",
    [
        ("paired", paired_by_scipy),
        ("standard_error", standard_error_by_mean_squares),
        ("choose_rate", choose_by_sorting),
        ("pareto", pareto_by_cost),
        ("pareto", pareto_as_a_set),
        ("pareto", pareto_by_numpy),
        ("kept", kept_from_above),
        ("as_peft", v_first),
        ("as_peft", two_B_and_alpha_kept),
        ("as_peft", filled_in_place),
        ("patients_needed", patients_from_above),
    ],
)
def test_a_right_answer_passes_however_it_is_written(name, answer):
    feedback = checked(name, answer)
    assert feedback, str(feedback)


# Wrong answers, named


def many(a, b):
    d = a - b
    return float(d.mean()), float(1.96 * stats.sem(d))


def without_signs(a, b):
    return paired_by_scipy(np.maximum(a, b), np.minimum(a, b))


def size_of_the_mean(a, b):
    mean, half = paired_by_scipy(a, b)
    return abs(mean), half


def two_groups(a, b):
    low, high = stats.ttest_ind(a, b).confidence_interval(0.95)
    return float((a - b).mean()), float((high - low) / 2)


def many_and_size_of_the_mean(a, b):
    """Two mistakes at once."""
    mean, half = many(a, b)
    return abs(mean), half


def half_strict(points):
    return [
        i for i, (cost, score) in enumerate(points) if not any(c < cost and s >= score for c, s in points)
    ]


def without_twins(points):
    front = pareto_by_cost(points)
    return [i for k, i in enumerate(front) if points[i] not in [points[j] for j in front[:k]]]


def lowest_by_index(n, widths, learns, input_learns):
    lowest = 0 if input_learns else learns.index(True)
    gelus = range(lowest, len(learns) - 1)
    inputs = sum(width for width, one in zip(widths[:-1], learns, strict=True) if one)
    return n * (sum(widths[i + 1] for i in gelus) + inputs)


def gelu_of_nothing(n, widths, learns, input_learns):
    """2000 where nothing learns at all."""
    if not any(learns) and not input_learns:
        return n * sum(widths[1:-1])
    return kept_from_above(n, widths, learns, input_learns)


def flag_too_late(n, widths, learns, input_learns):
    layers = range(len(learns))
    inputs = sum(widths[i] for i in layers if learns[i])
    return n * (inputs + sum(widths[i + 1] for i in layers[:-1] if input_learns or any(learns[:i])))


@pytest.mark.parametrize(
    "name, answer, words",
    [
        ("paired", many, "1.96, the quantile for many"),
        ("paired", without_signs, "size of each difference without its sign"),
        ("paired", size_of_the_mean, "size of the mean without its sign"),
        ("paired", two_groups, "pooled the variances"),
        ("paired", many_and_size_of_the_mean, "1.96, the quantile for many"),
        ("pareto", half_strict, "strictly cheaper"),
        ("pareto", without_twins, "dropped its twins"),
        ("kept", lowest_by_index, "Where nothing learns there is no backward"),
        ("kept", flag_too_late, "set the flag after the GELU"),
        ("kept", gelu_of_nothing, ""),
    ],
)
def test_a_wrong_answer_fails_and_hears_why(name, answer, words):
    feedback = checked(name, answer)
    assert not feedback and words in feedback.misconception, str(feedback)


@pytest.mark.parametrize(
    "name, answer, words",
    [
        ("pareto", lambda points: [True] * len(points), "has the right"),
        ("pareto", lambda points: np.ones(len(points), bool), "the indices themselves"),
        ("pareto", lambda points: len(points), "return a list of indices, not a int"),
        ("pareto", lambda points: [0.0], "whole numbers: 0 for the first"),
        ("as_peft", lambda *lora: lora[0], "return three things"),
        ("as_peft", lambda *lora: (lora[0].numpy(), lora[1], 2.0), "A must be a tensor, not a ndarray"),
        ("as_peft", lambda *lora: (lora[0].double(), lora[1], 2.0), "leave the numbers in the float32"),
        (
            "as_peft",
            lambda *lora: (*filled_in_place(*lora)[:2], torch.ones(1)),
            "alpha must be a plain number",
        ),
        ("as_peft", lambda A_q, B_q, *rest: (A_q, B_q, 1.0), "A must have the shape (2, 3)"),
    ],
)
def test_what_cannot_be_judged_is_told_in_a_sentence_without_the_checks_own_errors(name, answer, words):
    feedback = str(checked(name, answer))
    assert words in feedback and "Error" not in feedback, feedback


# The exercises and the kit say the same


def test_paired_is_the_kits_interval_of_one_training():
    a, b = np.random.default_rng(0).random((2, 9))
    kit = statistics.difference(a[None, None], b[None, None])
    assert EXERCISES["paired"].reference(a, b) == pytest.approx((kit.mean, kit.half))


@pytest.mark.parametrize("spread", [0.0, 3.0])  # of seeds; without one their part is negative, and held at 0
def test_a_standard_error_times_a_quantile_of_t_is_the_kits_interval(spread):
    numbers = np.random.default_rng(4)
    y = spread * numbers.standard_normal((3, 1)) + numbers.standard_normal(20) + numbers.random((3, 20))
    ratio = statistics.estimate(y[:, None]).half / EXERCISES["standard_error"].reference(y)
    least, most = stats.t.ppf(0.975, 19), stats.t.ppf(0.975, 2)
    assert least - 1e-9 <= ratio <= most if spread else ratio == pytest.approx(least)


def rates_of_the_lab():
    """What the notebook writes into its table of rates, and the rows' names in the files."""
    found = {}
    for node in ast.parse((checkout_root() / "notebooks" / "07_compare.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in ("NAMES", "KIDNEY_RATES"):
            found[node.targets[0].id] = ast.literal_eval(node.value)
    return {found["NAMES"][name]: rate for name, rate in found["KIDNEY_RATES"].items()}


@pytest.mark.parametrize("of", ["kidney", "hippocampus"])
def test_the_exercise_chooses_from_the_files_what_the_kit_chooses(of, monkeypatch):
    monkeypatch.setenv("LABKIT_QUICK", "")
    kit, printed = store.results(of), rates_of_the_lab()
    for row in (row for row in kit.sweep.rows if row.name in printed):
        lines = [line for line in store.read_lines(kit.path) if line["row"] == row.name]
        runs = [(one.get("lr", one.get("head_lr")), one["seed"], one["validation"], 0.0) for one in lines]
        rate, _, edge = EXERCISES["choose_rate"].reference(runs)
        assert [rate] == list(kit.rate(row).values()) and edge == kit.at_edge(row)
        at_rate = [line["key"] for line, run in zip(lines, runs, strict=True) if run[0] == rate]
        assert at_rate == [line["key"] for line in kit.trainings(row)]
        if of == "kidney":
            assert rate == printed[row.name]
