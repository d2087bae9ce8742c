import pytest

from labkit.efficient.vtab import GROUPS, RESULTS, Result, result


def test_nineteen_tasks_in_three_groups():
    assert [len(tasks) for tasks in GROUPS.values()] == [7, 4, 8]


@pytest.mark.parametrize(
    ("method", "by_group", "by_task"),
    [
        ("Full", 68.97, 65.57),
        ("Linear", 57.64, 52.94),
        ("BitFit", 65.22, 62.05),
        ("VPT-Shallow", 67.82, 64.85),
        ("VPT-Deep", 71.97, 69.43),
        ("Adapter", 73.86, 71.44),
        ("AdaptFormer", 74.75, 72.32),
        ("LoRA", 74.60, 72.25),
        ("SSF", 75.69, 73.10),
        ("NOAH", 75.48, 73.25),
        ("FacT", 75.55, 73.23),
    ],
)
def test_both_averages_of_every_method(method, by_group, by_task):
    assert RESULTS[method].group_mean == pytest.approx(by_group, abs=0.011)
    assert RESULTS[method].task_mean == pytest.approx(by_task, abs=0.011)


def test_the_two_averages_disagree_on_who_is_ahead():
    ssf, noah = RESULTS["SSF"], RESULTS["NOAH"]
    assert ssf.group_mean > noah.group_mean and ssf.task_mean < noah.task_mean


def test_a_result_from_its_nineteen_accuracies():
    accuracies = {task: 10 * i for i, tasks in enumerate(GROUPS.values()) for task in tasks}
    assert result(accuracies, 0.1) == Result(0, 10, 20, 0.1)
    assert result(accuracies, 0.1).task_mean == pytest.approx(sum(accuracies.values()) / 19)


def test_a_missing_task_is_named():
    accuracies = {task: 1.0 for tasks in GROUPS.values() for task in tasks if task != "SVHN"}
    with pytest.raises(ValueError, match="SVHN"):
        result(accuracies, 0.1)
