from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from labkit import lessons, paths
from labkit.lessons import (
    Challenge,
    Exercise,
    Lab,
    Mistake,
    NotSolved,
    check,
    difference,
    filled,
    flaws,
    labs,
    start,
)
from labkit.lessons.compare import alike, show


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
    properties={"is symmetric": lambda answer, output, p, t: difference(answer(t, p), output)},
    mistakes=(Mistake(JACCARD, jaccard), Mistake(NO_TWO, no_two), Mistake(ALWAYS, always_one)),
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
    challenges=(
        Challenge(
            "two layers", lambda: (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)),)
        ),
    ),
    result=lambda output, model: None,
    changes=("model",),
)

COUNT = Exercise(reference=lambda: 12)


def test_a_right_answer_passes_and_is_true():
    feedback = check("dice", DICE, lambda a, b: 2 * (a * b).sum() / (a.sum() + b.sum()))
    assert feedback and feedback.status == "PASS" and str(feedback).startswith("PASS: dice")
    assert (
        check("freeze", FREEZE, freeze) and check("count", COUNT, 12) and check("count", COUNT, np.int64(12))
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
    assert (
        "p = tensor([ True, False])" in text
        and "Expected    tensor(0.6667)" in text
        and "Got         tensor(0.5000)" in text
    )


def test_comparing_with_known_mistakes_warns_of_no_challenge_that_is_not_shown():
    """A warning of the last challenge would stand in red above feedback about the first."""
    import warnings

    def warns(p, t):
        if p.numel() > 2:
            warnings.warn("0 / 0", RuntimeWarning, stacklevel=1)
        return torch.tensor(0.5)

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        text = str(check("dice", DICE, warns))
    assert "one voxel, found" in text and not said


def test_a_wrong_answer_of_no_known_kind_is_given_no_misconception():
    assert check("dice", DICE, lambda p, t: dice(p, t) * (1 if p.numel() < 9 else 0.9)).misconception == ""


def test_a_property_that_fails_is_named_with_its_sentence():
    feedback = check("dice", DICE, lambda p, t: 2 * (p & t).sum() / (2 * p.sum()))
    assert feedback.broken == "is symmetric" and "expected" in str(feedback)


@pytest.mark.parametrize(
    "answer, broken, says",
    [
        (lambda p, t: print(dice(p, t)), "returns its result", "return hands it"),
        (lambda p, t: dice(p, t)[None], "has the right shape", "shape (1,): tensor([0.6667])"),
        (lambda p, t: "1", "has the right type", "Got       a text"),
        (
            lambda p, t: t.logical_and_(p).sum() * 2 / 3,
            "leaves its inputs as they are (work on a copy)",
            "Where     t",
        ),
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


def and_more(more):
    def answer(model):
        freeze(model)
        with torch.no_grad():
            more(model)

    return answer


@pytest.mark.parametrize(
    "more, where",
    [
        (lambda model: model[0].weight.zero_(), "model.0.weight"),
        (lambda model: model.eval(), "model.training"),
        (lambda model: model[1].eval(), "model.1.training"),
        (lambda model: model[1].running_mean.add_(1), "model.1.running_mean"),
        (lambda model: model[0].bias.requires_grad_(True), "model.0.bias.requires_grad"),
    ],
)
def test_whatever_an_in_place_answer_does_to_a_module_beyond_the_reference_is_found(more, where):
    feedback = check("freeze", FREEZE, and_more(more))
    assert feedback.broken == "leaves model as it should be" and f"Where     {where}\n" in str(feedback)
    assert check("freeze", FREEZE, and_more(lambda model: model.train())), "which it is already"


def test_changing_what_the_exercise_does_not_name_is_wrong():
    feedback = check("freeze", replace(FREEZE, changes=()), lambda model: model.requires_grad_(False))
    assert feedback.broken.startswith("leaves its inputs as they are")
    feedback = check("freeze", FREEZE, lambda model: model.requires_grad_(False))
    assert "model.2.weight.requires_grad" in str(feedback) and "And 1 more like this" in str(feedback)


@pytest.mark.parametrize(
    "returned", [torch.tensor(0.5), torch.tensor(0.5, requires_grad=True), np.array(0.5)]
)
def test_where_a_plain_number_is_asked_a_tensor_or_an_array_with_no_dimensions_is_refused(returned):
    half = Exercise(reference=lambda x: x / 2, challenges=(Challenge("one", lambda: (1.0,)),))
    feedback = check("half", half, lambda x: returned)
    assert feedback.broken == "has the right type" and ".item()" in str(feedback)
    for right in (0.5, np.float64(0.5), np.float32(0.5)):
        assert check("half", half, lambda x, right=right: right)


def test_an_answer_that_spoils_its_inputs_spoils_neither_the_reference_nor_later_trials():
    feedback = check("dice", replace(DICE, properties={}), lambda p, t: p.zero_().sum())
    assert "Expected  tensor([True])" in str(feedback) and "p = tensor([True])" in str(feedback)
    assert check("dice", DICE, dice)


def test_a_mistake_that_raises_is_named_by_its_error_and_another_error_is_not():
    product = Exercise(
        reference=lambda x, A: x @ A.T,
        challenges=(Challenge("two rows", lambda: (torch.ones(2, 3), torch.ones(1, 3))),),
        mistakes=(Mistake("A is not transposed.", lambda x, A: x @ A),),
    )
    assert check("product", product, lambda x, A: torch.matmul(x, A)).misconception == "A is not transposed."
    feedback = check("product", product, lambda x, A: x @ torch.ones(7, 7))
    assert feedback.broken == "runs to its end" and feedback.misconception == ""


class Adapter(nn.Module):
    def __init__(self, d, m):
        super().__init__()
        self.down, self.up = nn.Linear(d, m), nn.Linear(m, d)

    def forward(self, x):
        return x + self.up(self.down(x).relu())


class OtherOrder(Adapter):
    def __init__(self, d, m):
        super().__init__(d, m)
        self.down = self._modules.pop("down")  # registered last, started with other numbers
        nn.init.ones_(self.down.weight)


class NoSkip(Adapter):
    def forward(self, x):
        return self.up(self.down(x).relu())


class Broken(Adapter):
    def forward(self, x):
        return x + self.up(x)  # the guilty line


class Renamed(Adapter):
    def __init__(self, d, m):
        super().__init__(d, m)
        self.narrow = self._modules.pop("down")


ADAPTER = Exercise(
    reference=Adapter,
    challenges=tuple(Challenge(f"width {d}", lambda d=d: (d, 2)) for d in (3, 4, 5, 6)),
    result=lambda adapter, d, m: filled(adapter, torch.ones(2, d)),
    mistakes=(Mistake("The skip is missing.", NoSkip),),
)


def test_a_class_is_an_answer_and_is_compared_with_the_same_weights():
    assert check("adapter", ADAPTER, Adapter) and check("adapter", ADAPTER, OtherOrder)
    assert check("adapter", ADAPTER, NoSkip).misconception == "The skip is missing."
    assert "# the guilty line" in str(check("adapter", ADAPTER, Broken))
    assert (
        "names" in (feedback := check("adapter", replace(ADAPTER, result=lambda a, d, m: a), Renamed)).broken
    )
    assert "narrow.weight" in str(feedback)


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
    twin = replace(
        DICE, mistakes=(*DICE.mistakes, Mistake("Its twin.", jaccard), Mistake("None at all.", dice))
    )
    assert [("taken for" in flaw, "not catch" in flaw) for flaw in flaws("dice", twin)] == [
        (True, False),
        (False, True),
    ]
    assert len(flaws("dice", replace(DICE, mistakes=()))) == len(flaws("dice", replace(DICE, hints=()))) == 1


def test_feedback_is_safe_and_accessible_html_with_words_beside_colours():
    html = check("dice", DICE, lambda p, t: {}["<script>alert(1)</script>"])._repr_html_()
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
    assert "hint 3 of 3" in str(lab.hint("dice")) and "hint 3 of 3" in str(lab.hint("dice"))
    text = str(lab.progress())
    assert "1 of 2 solved" in text and "hints used: 3" in text and "NOT YET" in text


def test_an_exercise_without_hints_says_so(lab):
    assert "hint 0 of 0" in str(lab.hint("count"))


def test_later_cells_get_a_working_answer_whatever_the_student_wrote(lab, capsys):
    right = lambda p, t: dice(p, t)  # noqa: E731
    assert lab.working("dice", right) is right and capsys.readouterr().out == ""
    assert lab.working("dice", jaccard) is dice and lab.working("count", None) == 12
    assert "labkit's own" in capsys.readouterr().out


def test_what_a_lab_lent_is_no_answer_when_the_cell_of_the_answer_did_not_run(lab):
    lent = lab.working("dice", jaccard)  # then the student's next answer has a syntax error: `lent` stays
    feedback = lab.check("dice", lent)
    assert feedback.status == "NOT YET" and "run the cell of your answer" in str(feedback)
    assert lab.working("dice", lent) is lent and "0 of 2 solved" in str(lab.progress())
    right = lambda p, t: dice(p, t)  # noqa: E731
    assert lab.check("dice", right) and lab.working("dice", right) is right


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


W = nn.Parameter(torch.ones(1))


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
    (tmp_path / "lab98_demo").mkdir()
    (tmp_path / "lab98_demo" / "__init__.py").write_text(DEMO)
    monkeypatch.setattr(lessons, "__path__", [*lessons.__path__, str(tmp_path)])
    monkeypatch.setattr(paths, "data_dir", lambda: tmp_path)
    lab, first = start(name), (torch.rand(1), np.random.rand(), random.random())
    said = capsys.readouterr().out
    assert lab.name == "98_demo" and lab.check("count", 12) and "98_demo" in labs()
    assert said.count("\n") == 1 and "Lab 98_demo: 1 exercise" in said and "SHA256SUMS is missing" in said
    start(name)
    assert (torch.rand(1), np.random.rand(), random.random()) == first


@pytest.mark.parametrize("room, there", [("networks.segmenter", True), ("explore.plots", False)])
def test_a_lab_with_networks_has_their_library_before_python_stops_looking_through(room, there):
    """Else a slider would stop for a moment whenever all of timm is looked through for rubbish."""
    says = f"import gc, sys, labkit.{room}; from labkit.lessons import start; start('00'); "
    says += "print('timm' in sys.modules, len(gc.get_objects()) < 20_000)"
    done = subprocess.run([sys.executable, "-c", says], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"{there} True"


def test_of_two_mistakes_at_once_the_first_that_shows_is_named():
    both = check("dice", DICE, lambda p, t: 2 * jaccard(p, t) if len(p) == 1 else no_two(p, t))
    assert both.misconception == ""  # on the voxel that is found, nobody gets 2
    late = check("dice", DICE, lambda p, t: jaccard(p, t) if p.ndim == 1 else no_two(p, t))
    assert late.misconception == JACCARD
    alike = replace(DICE, mistakes=(Mistake(ALWAYS, always_one), Mistake(JACCARD, jaccard)))
    assert check("dice", alike, jaccard).misconception == JACCARD, "alike on most challenges"


def test_a_check_imports_nothing_that_a_student_would_wait_for():
    """torch.testing.assert_close imports torch.distributed.tensor and sympy when it is first called."""
    code = "import sys, torch; from labkit.lessons.compare import difference as d; "
    code += "assert d(torch.eye(9), torch.zeros(9, 9)) and not d(1.0, 1.0); "
    code += "sys.exit('torch.distributed.tensor' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_no_error_of_the_check_itself_reaches_a_student():
    """`kd_loss` looks at gradients, which a plain number does not have."""
    kd = lessons.exercises("02")["kd_loss"]
    feedback = str(check("kd_loss", kd, lambda z, v, T: kd.reference(z, v, T).item()))
    assert "is_leaf" not in feedback and "Error" not in feedback and "a plain number" in feedback
    array = str(check("kd_loss", kd, lambda z, v, T: kd.reference(z, v, T).detach().numpy()))
    assert "a NumPy array" in array and "Error" not in array


def test_an_output_the_exercise_cannot_read_is_the_students_fault_or_the_authors():
    pair = Exercise(
        reference=lambda: (1, 2),
        challenges=(Challenge("", tuple),),
        result=lambda out: {"a": out[0], "b": out[1]},
    )
    assert check("pair", pair, (1, 2))
    feedback = check("pair", pair, 3)
    assert "it returned 3" in str(feedback) and feedback.broken == "returns what is asked for"
    with pytest.raises(RuntimeError, match="course's own answer"):
        check("pair", replace(pair, reference=lambda: 3), (1, 2))
    assert check("dice", DICE, lambda p, t: torch.eye(2).to_sparse()).broken == "has the right shape"
    sparse = Exercise(reference=lambda: torch.eye(2))
    assert "layout" in str(difference(torch.eye(13).to_sparse(), torch.eye(13)))
    assert not check("sparse", sparse, torch.eye(2).to_sparse())


@pytest.mark.parametrize(
    "got, expected, aspect, says",
    [
        (torch.ones(2), torch.ones(3), "shape", "expected shape (3,): tensor([1., 1., 1.]), got shape (2,)"),
        (torch.ones(2), np.ones(2), "type", "expected a NumPy array, got a tensor"),
        (torch.ones(2), torch.ones(2).double(), "dtype", "expected torch.float64, got torch.float32"),
        (torch.tensor([1, 2]), torch.tensor([1, 5]), "values", "expected tensor([1, 5]), got tensor([1, 2])"),
        (
            torch.arange(20),
            torch.arange(20).clamp(max=18),
            "values",
            "1 of 20 numbers differ (5.0%)\nThe greatest difference: 1 at index (19,)",
        ),
        (torch.tensor([1.0, float("nan")]), torch.ones(2), "values", "got tensor([1., nan])"),
        (np.arange(20)[::-1] > 0, np.ones(20, bool), "values", "1 of 20 numbers differ (5.0%)"),
        (np.zeros(20, np.uint8), np.full(20, 255, np.uint8), "values", "The greatest difference: 255"),
        (torch.ones(20, dtype=torch.bfloat16), torch.zeros(20, dtype=torch.bfloat16), "values", "20 of 20"),
        (1.0, float("nan"), "values", "expected nan, got 1"),
        (float("inf"), 1.0, "values", "got inf"),
        (0.30004, 0.3, "values", "expected 0.3, got 0.30004"),
        (True, 1, "type", "expected a whole number, got True or False"),
        (None, 1, "type", "got None"),
        (torch.tensor(1.0), 1.0, "type", "expected a plain number, got a tensor. `.item()`"),
        (1.0, torch.tensor(1.0), "type", "expected a tensor, got a plain number"),
        ({"a": 1}, {"a": 1, "b": 2}, "names", "expected b"),
        ([1, 2, 3], [1, 2], "names", "expected no more, got [2] = 3"),
        ([1], [1, 2], "names", "expected [1] = 2, got none of it"),
        ({"a": 1, "x": 7}, {"a": 1, "b": 2}, "names", "expected b, got x"),
        ({"a": [1, 2]}, {"a": [1, 3]}, "values", "a[1]: expected 3, got 2"),
        (Pair(1, torch.ones(2)), Pair(1, torch.zeros(2)), "values", "b: expected tensor([0., 0.])"),
        (nn.ReLU(), 3, "type", "got ReLU"),
        (nn.Dropout().eval(), nn.Dropout(), "values", "training: expected True, got False"),
        ("dice", "hd95", "values", "expected 'hd95', got 'dice'"),
        ({1}, {2}, "values", "{2}"),
        (torch.optim.SGD([W], 0.1), torch.optim.SGD([W], 0.2), "values", "param_groups[0].lr: expected 0.2"),
    ],
)
def test_a_difference_says_its_aspect_and_place(got, expected, aspect, says):
    found = difference(got, expected)
    assert found.aspect == aspect and says in str(found) and not alike(got, expected)


def test_equal_things_do_not_differ():
    layer = nn.Linear(2, 2)
    for value in (
        1,
        0.1 + 0.2,
        float("nan"),
        torch.zeros(0),
        [1, (2, {"a": None})],
        layer,
        dice,
        {"w": layer.weight},
        Pair(1, torch.ones(2)),
        torch.tensor([float("inf"), float("nan")]),
        range(3),
    ):
        assert difference(value, value) is None and alike(value, value)
    assert difference(0.3, 0.1 + 0.2) is None and difference(np.float32(0.3), 0.3) is None
    assert difference([1, 2], (1, 2)) is None and difference(12.0, 12) is None and difference(1, 1.0) is None


def test_an_object_that_claims_to_equal_everything_is_not_believed():
    class Liar:
        def __eq__(self, other):
            return True

    assert difference(Liar(), 1).aspect == "type" and difference(Liar(), torch.ones(1)).aspect == "type"


@pytest.mark.parametrize(
    "value, text",
    [
        (torch.tensor([1.5, 2]), "tensor([1.5000, 2.0000])"),
        (torch.zeros(3, 9), "tensor of shape (3, 9), torch.float32, from 0 to 0, sum 0"),
        (torch.ones(3, 9) > 0, "tensor of shape (3, 9), torch.bool, from 1 to 1, sum 27"),
        (np.ones((3, 9)), "array of shape (3, 9), float64, from 1 to 1, sum 27"),
        (torch.full((20,), float("nan")), "tensor of shape (20,), torch.float32, from nan to nan, sum nan"),
        (nn.Sequential(nn.Linear(2, 2)), "Sequential with 6 parameters"),
        (nn.Linear(2, 2), "Linear(in_features=2, out_features=2, bias=True)"),
        ({"a": torch.zeros(2)}, "{'a': tensor([0., 0.])}"),
        ((1,), "(1)"),
        (1 / 3, "0.333333"),
        (torch.optim.SGD([W], 0.1), "SGD with lr 0.1"),
        (dice, "<function dice>"),
    ],
)
def test_values_are_shown_small(value, text):
    assert show(value) == text


def test_what_breaks_when_it_is_looked_at_stops_no_notebook():
    class Shy:
        def __repr__(self):
            raise RuntimeError

    many = Exercise(reference=lambda: np.zeros(20))
    for answer in (
        Shy(),
        np.array(["a"] * 30),
        np.array([Shy()] * 30),
        torch.zeros(30, dtype=torch.complex64),
    ):
        assert check("many", many, answer).status == "NOT YET"
    assert show(Shy()) == "Shy that cannot be shown"


def test_nothing_shown_holds_an_address():
    assert "0x" not in show(object()) and "0x" not in show([object(), lambda: 0])
