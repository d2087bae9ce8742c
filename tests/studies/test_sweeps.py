"""Sweeps on patients and trainings cut short by quick mode, in folders of the tests' own."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from labkit.methods import Adapter, BitFit, LoRA
from labkit.studies import sweeps

RECIPE = """
about = "Which is better?"
seeds = [0, 1]
decoder = "linear"
data = { organ = "brain", ghosts = true, train = 1, validation = 1, test = 1 }
recipe = { steps = 2, batch_size = 1, slices = 2 }
rival = "head"
[[row]]
name = "head"
method = { head = {} }
head_lr = [2e-3]
[[row]]
name = "LoRA, r = 2"
method = { lora = { r = 2, targets = ["q", "v"] } }
lr = [1e-3, 1e-1]
"""


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "which.toml"
    file.write_text(RECIPE)
    return file


@pytest.fixture
def asked(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_QUICK", "1")
    return sweeps.read(recipe, tmp_path / "results")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The recipe and its trainings, all of them made; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "which.toml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_QUICK", "1")
        made = sweeps.read(folder / "which.toml", folder / "results")
        made.run()
    return made


def files(folder) -> dict[str, dict]:
    """Trainings by file, without what depends on the moment."""
    found = {path.name: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    return {name: {key: one[key] for key in one if key != "took"} for name, one in found.items()}


def pretend(asked, row: str, rate: int, seed: int, validation: float = 0.5, dice: float = 0.5) -> None:
    """A training's file with these scores for two patients."""
    row = asked.row(row)
    rate = row.rates[rate]
    asked.folder.mkdir(exist_ok=True)
    test = {score: {"ET": [dice, dice], "WT": [dice, dice + 0.1]} for score in sweeps.SCORES}
    found = dict(training=row.training(rate, seed), tuned=7, validation=validation, test=test)
    asked.place(row, rate, seed).write_text(json.dumps(found | {"patients": ["a", "b"]}))


def test_every_recipe_of_the_kit_has_rows_that_differ():
    for file in sorted(sweeps.RECIPES.glob("*.toml")):
        asked = sweeps.sweep(file.stem)
        assert asked.about and len({asked.place(row, row.rates[0], 0) for row in asked.rows}) == len(
            asked.rows
        )
        assert asked.rival is None or asked.row(asked.rival)


def test_a_sweep_makes_each_training_once_and_the_same_again(asked, finished):
    first = files(finished.folder)
    assert len(first) == 5  # head: a rate, two seeds; LoRA: two rates and another seed of the better one
    assert {len(one["test"]["dice"]["ET"]) for one in first.values()} == {1}
    assert finished.missing(finished.rows) == []
    assert "| LoRA, r = 2 |" in finished.table() and "not computed yet" not in finished.table()
    shutil.copytree(finished.folder, asked.folder)
    lost = asked.place(asked.rows[1], asked.rate(asked.rows[1]), 1)
    times = {path.name: path.stat().st_mtime_ns for path in asked.folder.iterdir()}
    lost.unlink()
    asked.run(["LoRA, r = 2"])
    assert files(asked.folder) == first, "the same numbers to the last digit"
    changed = [p.name for p in asked.folder.iterdir() if p.stat().st_mtime_ns != times[p.name]]
    assert changed == [lost.name], "the others were not trained again"


def test_the_rate_is_chosen_on_validation_patients_alone(asked):
    pretend(asked, "LoRA, r = 2", 0, 0, validation=0.6, dice=0.3)
    assert asked.rate(asked.row("LoRA, r = 2")) is None, "one of two was tried"
    pretend(asked, "LoRA, r = 2", 1, 0, validation=0.5, dice=0.9)
    assert asked.rate(asked.row("LoRA, r = 2")) == {"lr": 1e-3}
    assert [(row.name, *one) for row, *one in asked.missing(asked.rows)] == [
        ("head", {"head_lr": 2e-3}, 0),
        ("LoRA, r = 2", {"lr": 1e-3}, 1),
    ]


def test_numbers_of_another_recipe_do_not_count(asked, recipe, tmp_path):
    pretend(asked, "head", 0, 0)
    assert len(asked.trainings(asked.row("head"))) == 1
    recipe.write_text(RECIPE.replace("steps = 2", "steps = 3"))
    other = sweeps.read(recipe, asked.folder)
    assert other.trainings(other.row("head")) == []


def test_the_table_has_mean_spread_and_the_paired_difference(asked):
    for seed, dice in ((0, 0.5), (1, 0.6)):
        pretend(asked, "head", 0, seed, dice=dice)
        pretend(asked, "LoRA, r = 2", 0, seed, validation=0.6, dice=dice + 0.2)
    pretend(asked, "LoRA, r = 2", 1, 0, validation=0.5)
    head, lora = asked.table().splitlines()[2:]
    assert head == "| head | 7 | 0.002 | 55.0 | 60.0 | 57.5 (7.1) | 2 |  |"
    assert lora == "| LoRA, r = 2 | 7 | 0.001 | 75.0 | 80.0 | 77.5 (7.1) | 2 | +20.0 (20.0 to 20.0) |"
    assert "| head | 7 | 0.002 | 0.6 | 0.6 | 0.6 (0.1) |" in asked.table("false_lesions")  # counts


def test_a_paired_difference_is_that_of_a_t_test():
    from scipy import stats

    a, b = np.array([0.8, 0.6, 0.9, 0.7]), np.array([0.78, 0.56, 0.88, 0.62])
    difference, half = sweeps.paired(a, b)
    interval = stats.ttest_rel(a, b).confidence_interval()
    assert (difference - half, difference + half) == pytest.approx(tuple(interval))


def test_a_method_is_one_or_several():
    assert sweeps.method_of({"lora": {"r": 2, "targets": ["q"]}}) == LoRA(r=2, targets=("q",))
    assert sweeps.method_of({"bitfit": {}, "adapter": {"m": 4}}) == (BitFit(), Adapter(m=4))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("seeds = [0, 1]", "seeds = [0, 1"),
        ("seeds = [0, 1]", ""),
        ("about", "abbout"),
        ("lora =", "lorra ="),
        ("r = 2, t", "rank = 2, t"),
        ("lr = [1e-3, 1e-1]", ""),
        ('name = "head"', 'name = "LoRA, r = 2"'),
        ("steps = 2", "stepps = 2"),
        ('rival = "head"', 'rival = "haed"'),
        ('decoder = "linear"', 'decoder = "linnear"'),
        ('"brain"', '"spleen"'),
        ("slices = 2 }", 'slices = 2, augment = "stronng" }'),
    ],
)
def test_a_broken_recipe_is_refused_in_a_sentence_that_names_it(recipe, tmp_path, right, wrong):
    recipe.write_text(RECIPE.replace(right, wrong, 1))
    with pytest.raises(ValueError, match="which.toml"):
        sweeps.read(recipe, tmp_path)


def test_an_unknown_sweep_or_row_is_answered_with_the_known_ones(asked):
    with pytest.raises(ValueError, match="no sweep 'brian'; there are .*brain"):
        sweeps.sweep("brian")
    with pytest.raises(ValueError, match="no row 'lora'; it has 'head', 'LoRA, r = 2'"):
        asked.run(["lora"])


def test_quick_mode_writes_no_results_that_are_kept(asked, monkeypatch):
    kept = sweeps.sweep("brain")
    with pytest.raises(ValueError, match="LABKIT_QUICK=1 trains too briefly"):
        kept.run()


ANEW = """
import json, sys
from hashlib import sha256
from labkit.studies import sweeps
from labkit.tuning import delta
for one in json.loads(sys.argv[1]):
    patients = sweeps.volumes("brain", "train", 1, None, ghosts=True)
    model = sweeps.fresh(sweeps.method_of(one["method"]), patients[0].case, 0, one["decoder"])
    losses = [row["loss"] for row in sweeps.fit(model, patients, sweeps.Recipe(**one["recipe"]))]
    print(losses, sha256(b"".join(p.detach().numpy().tobytes() for p in delta(model).values())).hexdigest())
"""


def test_two_rows_are_trained_to_the_same_bits_in_another_process(asked):
    """Losses and all numbers that learned: after two steps, scores are still 0 and would show nothing."""
    trainings = json.dumps([row.training(row.rates[0], 0) for row in asked.rows])
    command, one_thread = [sys.executable, "-c", ANEW, trainings], os.environ | {"OMP_NUM_THREADS": "1"}
    first, again = (subprocess.check_output(command, env=one_thread, text=True) for _ in range(2))
    assert first == again
    assert len(set(first.splitlines())) == len(asked.rows), "the rows differ"


def test_the_file_of_a_row_is_named_after_what_the_recipe_says_alone(asked):
    """Committed trainings are found by these names: a new field of `training.Recipe` must not change them."""
    row = asked.row("head")
    assert asked.place(row, row.rates[0], 0).name == "brain-head-9caa81de25f8.json"


@pytest.mark.slow
def test_a_sweep_that_is_killed_again_and_again_ends_with_the_same_files(asked, recipe, finished):
    """Killed at random moments; LABKIT_KILLS says how often, once by default for CI's sake."""
    expected = files(finished.folder)
    other = asked.folder.with_name("killed")
    code = "import sys; from pathlib import Path; from labkit import sweeps; "
    code += "sweeps.read(Path(sys.argv[1]), Path(sys.argv[2])).run()"
    moments = random.Random(0)
    for _ in range(int(os.environ.get("LABKIT_KILLS", 1))):
        run = subprocess.Popen([sys.executable, "-c", code, recipe, other], stderr=subprocess.DEVNULL)
        time.sleep(4 + 8 * moments.random())
        run.send_signal(signal.SIGKILL)
        run.wait()
    sweeps.read(recipe, other).run()
    assert files(other) == expected
    assert {path.suffix for path in other.iterdir()} == {".json"}, "nothing half-written is left"


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_makes_the_same_files(asked, recipe, finished):
    from distributed import LocalCluster

    other = sweeps.read(recipe, asked.folder.with_name("cluster"))
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        first = cluster.workers[0].pid

        def kill_once():
            while not any(other.folder.glob("*.json")):
                time.sleep(0.1)
            os.kill(first, signal.SIGKILL)

        killer = threading.Thread(target=kill_once)
        killer.start()
        other.run(scheduler=cluster.scheduler_address)
        killer.join()
        assert cluster.workers[0].pid != first, "another worker took over"
    assert files(other.folder) == files(finished.folder)
