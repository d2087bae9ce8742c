from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from labkit import lessons, paths
from labkit.lessons import Challenge, Exercise, Lab, NotSolved, check, difference, flaws, labs, start, unequal
from labkit.lessons.compare import show


def dice(p, t):
    return 2 * (p & t).sum() / (p.sum() + t.sum())


def jaccard(p, t):
    return (p & t).sum() / (p | t).sum()


def no_two(p, t):
    return (p & t).sum() / (p.sum() + t.sum())


def always_one(p, t):
    return torch.tensor(1.0)


def mask(*voxels):
    return torch.tensor(voxels, dtype=torch.bool)


JACCARD = "You divided by the union: that is the Jaccard index."
NO_TWO = "What both have is counted once; Dice counts it twice."
ALWAYS = "It gives 1 whatever it is given."

DICE = Exercise(
    reference=dice,
    challenges=(
        Challenge("one voxel, found", lambda: (mask(1), mask(1))),
        Challenge("two voxels, one of them found", lambda: (mask(1, 0), mask(1, 1))),
        Challenge("random masks", lambda: (torch.rand(4, 9) > 0.5, torch.rand(4, 9) > 0.5)),
    ),
    properties={"is symmetric": lambda answer, output, p, t: unequal(answer(t, p), output)},
    mistakes={JACCARD: jaccard, NO_TWO: no_two, ALWAYS: always_one},
    hints=(
        "Count twice what both have.",
        "2 |P and T| / (|P| + |T|)",
        "2 * (p & t).sum() / (p.sum() + t.sum())",
    ),
)


def freeze(model):
    model.requires_grad_(False)
    model[-1].requires_grad_(True)


FREEZE = Exercise(
    reference=freeze,
    challenges=(Challenge("two layers", lambda: (nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)),)),),
    result=lambda output, model: {name: p.requires_grad for name, p in model.named_parameters()},
    changes=("model",),
)

COUNT = Exercise(reference=lambda: 12)


def test_a_right_answer_passes_and_is_true():
    feedback = check("dice", DICE, lambda a, b: 2 * (a * b).sum() / (a.sum() + b.sum()))
    assert feedback and feedback.status == "PASS" and str(feedback).startswith("PASS: dice")
    assert (
        check("freeze", FREEZE, freeze)
        and check("count", COUNT, 12)
        and check("count", COUNT, torch.tensor(12))
    )


@pytest.mark.parametrize("stub", [None, ..., "raises", "raises bare"])
def test_an_untouched_stub_is_not_attempted_and_not_wrong(stub):
    def raises(p, t):
        raise NotImplementedError("dice")

    def bare(p, t):
        raise NotImplementedError

    feedback = check("dice", DICE, {"raises": raises, "raises bare": bare}.get(stub, stub))
    assert not feedback and feedback.status == "NOT ATTEMPTED"
    assert check("count", COUNT, None).status == "NOT ATTEMPTED"


def test_an_answer_that_runs_into_another_exercises_stub_or_an_abstract_method_is_not_taken_for_untouched():
    feedback = check("dice", DICE, lambda p, t: nn.Module()(p))
    assert feedback.status == "NOT YET" and "forward" in str(feedback)


def test_a_wrong_answer_shows_the_smallest_counter_example_and_names_the_misconception():
    feedback = check("dice", DICE, lambda p, t: (p & t).sum() / (p | t).sum())
    text = str(feedback)
    assert feedback.status == "NOT YET" and feedback.misconception == JACCARD and JACCARD in text
    assert "two voxels, one of them found" in text and "random" not in text
    assert "p = tensor([ True, False])" in text and "0.666667" in text and "0.5" in text


def test_a_wrong_answer_of_no_known_kind_is_given_no_misconception():
    assert check("dice", DICE, lambda p, t: dice(p, t) * (1 if p.numel() < 9 else 0.9)).misconception == ""


def test_a_property_that_fails_is_named_with_its_sentence():
    feedback = check("dice", DICE, lambda p, t: 2 * (p & t).sum() / (2 * p.sum()))
    assert feedback.broken == "is symmetric" and "expected" in str(feedback)


@pytest.mark.parametrize(
    "answer, broken, says",
    [
        (lambda p, t: print(dice(p, t)), "returns its result", "return hands it"),
        (lambda p, t: dice(p, t)[None], "has the right shape", "one number is expected"),
        (lambda p, t: "1", "has the right type", "not a text"),
        (lambda p, t: t.logical_and_(p).sum() * 2 / 3, "leaves its inputs as they are", "changed t"),
        (lambda p: 1, "runs to its end", "called with 2 inputs: (p, t)"),
        (lambda p, t: p / 0 @ t.nothing, "runs to its end", "At"),
        (lambda p, t: exit(), "runs to its end", "SystemExit"),
        (0.5, "is a function", "pass the function itself"),
    ],
)
def test_the_property_that_failed_is_named(answer, broken, says):
    feedback = check("dice", replace(DICE, challenges=DICE.challenges[1:]), answer)
    assert feedback.status == "NOT YET" and feedback.broken == broken and says in str(feedback)


def test_an_exception_is_shown_with_the_line_of_the_answer_not_of_a_library():
    def answer(p, t):
        wide = p.float()
        return wide @ torch.zeros(7, 7)  # the guilty line

    text = str(check("dice", DICE, answer))
    assert "RuntimeError" in text and "# the guilty line" in text


def test_what_an_answer_prints_is_shown_with_the_failure_only(capsys):
    def answer(p, t):
        print("looking at", p.tolist())
        return 0

    assert "Printed" in (text := str(check("dice", DICE, answer))) and "looking at [True]" in text
    assert capsys.readouterr().out == ""


def test_changing_what_the_exercise_allows_is_fine_and_anything_else_is_not():
    assert check("freeze", FREEZE, freeze)
    feedback = check("freeze", replace(FREEZE, changes=()), freeze)
    assert feedback.broken == "leaves its inputs as they are" and "0.weight.requires_grad" in str(feedback)
    feedback = check("freeze", FREEZE, lambda model: model.requires_grad_(False))
    assert "1.weight: expected True, got False (and 1 more like this)." in str(feedback)


def test_an_answer_that_spoils_its_inputs_spoils_neither_the_reference_nor_later_trials():
    allowed = replace(DICE, changes=("p", "t"), properties={})
    feedback = check("dice", allowed, lambda p, t: p.zero_().sum())
    assert "expected 1, got 0" in str(feedback) and "p = tensor([ True])" in str(feedback)


def test_a_value_is_an_answer_too_and_counts_are_exact():
    assert check("count", COUNT, lambda: 12)
    feedback = check("count", COUNT, 12.00001)
    assert feedback.broken == "has the right values" and "Inputs" not in str(feedback)


def test_the_notebooks_random_numbers_and_modes_go_on_as_if_nothing_had_been_checked():
    def answer(p, t):
        torch.set_grad_enabled(False)
        random.random(), np.random.rand()
        return torch.rand(1)

    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    expected = torch.rand(2), np.random.rand(2), random.random()
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    first = torch.rand(1), np.random.rand(1)
    check("dice", DICE, answer)
    assert torch.is_grad_enabled()
    assert torch.equal(torch.cat([first[0], torch.rand(1)]), expected[0])
    assert (
        np.array_equal(np.append(first[1], np.random.rand(1)), expected[1]) and random.random() == expected[2]
    )


def test_random_answers_are_compared_with_the_same_random_numbers():
    noisy = Exercise(
        reference=lambda x: x + torch.rand(3), challenges=(Challenge("noise", lambda: (torch.ones(3),)),)
    )
    assert check("noisy", noisy, lambda x: torch.rand(3) + x)


def test_an_exercise_without_flaws_has_none_and_every_flaw_is_found():
    assert flaws("dice", DICE) == []
    assert (
        "reference does not pass"
        in flaws(
            "dice",
            replace(
                DICE,
                properties={"is never 1": lambda answer, output, p, t: "it is 1" if output == 1 else None},
            ),
        )[0]
    )
    twin = replace(DICE, mistakes={**DICE.mistakes, "Its twin.": jaccard, "None at all.": dice})
    assert [("taken for" in flaw, "not catch" in flaw) for flaw in flaws("dice", twin)] == [
        (True, False),
        (False, True),
    ]
    assert len(flaws("dice", replace(DICE, mistakes={}, hints=()))) == 2


def test_feedback_is_safe_and_accessible_html_with_words_beside_colours():
    html = check("dice", DICE, lambda p, t: "<script>alert(1)</script>")._repr_html_()
    assert "<script>" not in html and "&lt;script&gt;" in html
    assert "aria-label='NOT YET: dice'" in html and "<strong>NOT YET: dice</strong>" in html
    assert "<th scope='row'" in html and html.count("<section") == html.count("</section>") == 1


@pytest.fixture
def lab():
    return Lab("99_demo", {"dice": DICE, "count": COUNT})


def test_a_lab_remembers_what_is_solved_and_how_many_hints_were_given(lab):
    assert "0 of 2 solved" in str(lab.progress())
    assert lab.check("dice", dice) and not lab.check("count", 11)
    assert str(lab.hint("dice")).count("\n") == 1 and "hint 2 of 3" in str(lab.hint("dice"))
    assert "last one" in str(lab.hint("dice")) and "hint 3 of 3" in str(lab.hint("dice"))
    text = str(lab.progress())
    assert "1 of 2 solved" in text and "3 hints used" in text and "NOT YET" in text


def test_an_exercise_without_hints_says_so(lab):
    assert "no hints" in str(lab.hint("count"))


def test_later_cells_get_a_working_answer_whatever_the_student_wrote(lab, capsys):
    right = lambda p, t: dice(p, t)  # noqa: E731
    assert lab.working("dice", right) is right and capsys.readouterr().out == ""
    assert lab.working("dice", jaccard) is dice and lab.working("count", None) == 12
    assert "labkit's own" in capsys.readouterr().out


def test_a_strict_lab_raises_what_it_would_show(lab, monkeypatch):
    monkeypatch.setenv("LABKIT_STRICT", "1")
    assert lab.check("dice", dice)
    for answer in (jaccard, None):
        with pytest.raises(NotSolved, match="dice"):
            lab.check("dice", answer)
        with pytest.raises(NotSolved):
            lab.working("dice", answer)


def test_unknown_labs_and_exercises_are_answered_with_what_there_is(lab):
    with pytest.raises(ValueError, match="no exercise 'dise'; it has dice, count"):
        lab.check("dise", dice)
    with pytest.raises(ValueError, match="no lab '77'"):
        start("77")


@dataclass
class Pair:
    a: int
    b: torch.Tensor


DEMO = """
from labkit.lessons import Exercise
EXERCISES = {"count": Exercise(reference=lambda: 12)}
"""


@pytest.mark.parametrize("name", ["98", "98_demo"])
def test_starting_a_lab_finds_its_exercises_seeds_and_prints_one_line(tmp_path, monkeypatch, capsys, name):
    (tmp_path / "lab98_demo.py").write_text(DEMO)
    monkeypatch.setattr(lessons, "__path__", [*lessons.__path__, str(tmp_path)])
    monkeypatch.setattr(paths, "data_dir", lambda: tmp_path)
    lab, first = start(name), (torch.rand(1), np.random.rand(), random.random())
    said = capsys.readouterr().out
    assert lab.name == "98_demo" and lab.check("count", 12) and "98_demo" in labs()
    assert said.count("\n") == 1 and "Lab 98_demo: 1 exercise" in said and "SHA256SUMS is missing" in said
    start(name)
    assert (torch.rand(1), np.random.rand(), random.random()) == first


def test_an_output_the_exercise_cannot_read_is_the_students_fault_or_the_authors():
    pair = Exercise(
        reference=lambda: (1, 2),
        challenges=(Challenge("", tuple),),
        result=lambda out: {"a": out[0], "b": out[1]},
    )
    assert check("pair", pair, (1, 2)) and check("pair", pair, 3).broken == "has the right type"
    with pytest.raises(RuntimeError, match="course's own answer"):
        check("pair", replace(pair, reference=lambda: 3), (1, 2))
    assert check("dice", DICE, lambda p, t: torch.eye(2).to_sparse()).broken == "has the right shape"
    sparse = Exercise(reference=lambda: torch.eye(2))
    assert "cannot be compared" in str(check("sparse", sparse, torch.eye(2).to_sparse()))


@pytest.mark.parametrize(
    "got, expected, aspect, says",
    [
        (torch.ones(2), torch.ones(3), "shape", "(3,), got (2,)"),
        (torch.ones(2), np.ones(2), "type", "a NumPy array is expected, not a tensor"),
        (torch.ones(2), torch.ones(2).double(), "dtype", "float64"),
        (
            torch.tensor([1, 2]),
            torch.tensor([1, 5]),
            "values",
            "1 of 2 values differ, most at [1]: expected 5, got 2",
        ),
        (torch.tensor([1.0, float("nan")]), torch.ones(2), "values", "at [1]: expected 1, got nan"),
        (torch.ones(2, dtype=torch.bfloat16), torch.zeros(2, dtype=torch.bfloat16), "values", "2 of 2"),
        (1.0, float("nan"), "values", "expected nan"),
        (float("inf"), 1.0, "values", "got inf"),
        (True, 1, "type", "whole number"),
        (None, 1, "type", "not None"),
        ({"a": 1}, {"a": 1, "b": 2}, "names", "missing 'b'"),
        ([1, 2, 3], [1, 2], "shape", "2 elements"),
        ({"a": [1, 2]}, {"a": [1, 3]}, "values", "a[1]: expected 3, got 2"),
        (Pair(1, torch.ones(2)), Pair(1, torch.zeros(2)), "values", "b: 2 of 2"),
        (nn.ReLU(), 3, "type", "one number is expected, not a ReLU"),
        (nn.Dropout().eval(), nn.Dropout(), "values", "training mode: expected True, got False"),
        ("dice", "hd95", "values", "expected 'hd95', got 'dice'"),
        ({1}, {2}, "values", "{2}"),
    ],
)
def test_a_difference_says_its_aspect_and_place(got, expected, aspect, says):
    found = difference(got, expected)
    assert found.aspect == aspect and says in found.sentence and found.sentence.endswith(".")


def test_equal_things_do_not_differ():
    layer = nn.Linear(2, 2)
    for value in (
        1,
        0.1 + 0.2,
        float("nan"),
        torch.zeros(0),
        np.array("text"),
        [1, (2, {"a": None})],
        layer,
        dice,
        {"w": layer.weight},
        Pair(1, torch.ones(2)),
        torch.tensor([float("inf"), float("nan")]),
        range(3),
    ):
        assert difference(value, value) is None
    assert difference(0.3, 0.1 + 0.2) is None and difference(np.float32(0.3), torch.tensor(0.3)) is None
    assert difference([1, 2], (1, 2)) is None


def test_an_object_that_claims_to_equal_everything_is_not_believed():
    class Liar:
        def __eq__(self, other):
            return True

    assert difference(Liar(), 1).aspect == "type" and difference(Liar(), torch.ones(1)).aspect == "type"


@pytest.mark.parametrize(
    "value, text",
    [
        (torch.tensor([1.5, 2]), "tensor([1.5, 2. ])"),
        (torch.zeros(3, 9), "tensor of shape (3, 9), float32, from 0 to 0"),
        (torch.ones(3, 9) > 0, "tensor of shape (3, 9), bool, 27 True"),
        (torch.full((20,), float("nan")), "tensor of shape (20,), float32, with 20 values not finite"),
        (nn.Sequential(nn.Linear(2, 2)), "Sequential with 6 parameters"),
        (nn.Linear(2, 2), "Linear(in_features=2, out_features=2, bias=True)"),
        ({"a": torch.zeros(2)}, "{'a': tensor([0., 0.])}"),
        ((1,), "(1,)"),
        (1 / 3, "0.333333"),
        (dice, "function dice"),
    ],
)
def test_values_are_shown_small(value, text):
    assert show(value) == text


def test_nothing_shown_holds_an_address():
    assert "0x" not in show(object()) and "0x" not in show([object(), lambda: 0])
