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
from dataclasses import replace

import pytest

from labkit.methods import Adapter, BitFit, LoRA
from labkit.studies import recipe as recipes
from labkit.studies.recipe import method_of
from labkit.studies.run import run
from labkit.studies.statistics import SCORES
from labkit.studies.store import Results, place_of, read_lines, results
from labkit.studies.table import RULE, best_by_validation, line, table

RECIPE = """
about = "Which is better?"
seeds = [0, 1]
decoder = "linear"
data = { organ = "brain", ghosts = true, train = 1, validation = 1, test = 1 }
recipe = { steps = 2, batch_size = 1, slices = 2 }
rival = "head"
[[row]]
name = "threshold"
method = { threshold = {} }
[[row]]
name = "frozen random"
method = { head = {} }
weights = "random"
head_lr = [2e-3]
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
    return Results(recipes.read(recipe), tmp_path / "results")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The recipe and its trainings, all of them made; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "which.toml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_QUICK", "1")
        made = Results(recipes.read(folder / "which.toml"), folder / "results")
        run(made)
    return made


def lines(results: Results) -> list[dict]:
    """The trainings of a file in its order, without what depends on the moment."""
    return [{key: line[key] for key in line if key != "took"} for line in read_lines(results.path)]


def pretend(asked, row: str, rate: int, seed: int, validation: float = 0.5, dice: float = 0.5) -> None:
    """A training's line with these scores for two patients."""
    row = asked.sweep.row(row)
    test = {score: {"ET": [dice, dice], "WT": [dice, dice + 0.1]} for score in SCORES}
    result = dict(tuned=7, inserted=3, validation=validation, test=test, patients=["a", "b"], took={})
    asked.add(row, row.rates[rate], seed, result)


def test_every_recipe_of_the_kit_has_rows_that_differ():
    for name in recipes.names():
        asked = recipes.sweep(name)
        assert asked.about
        assert len({row.training(row.rates[0], 0).key for row in asked.rows}) == len(asked.rows)
        assert all(row.rival is None or asked.row(row.rival) for row in asked.rows)


def test_every_rate_of_the_kits_recipes_is_one_of_three_or_more():
    for name in recipes.names():
        for row in recipes.sweep(name).rows:
            assert row.is_threshold or len(row.rates) >= 3, (name, row.name)


def test_committed_results_are_sorted_whole_and_belong_to_their_keys():
    for name in recipes.names():
        asked = results(name)
        if not asked.path.is_file():
            continue
        found = read_lines(asked.path)
        assert found == sorted(found, key=place_of)
        assert [recipes.Training(**one["training"]).key for one in found] == [one["key"] for one in found]


def test_a_sweep_makes_each_training_once_and_the_same_again(asked, finished):
    first = lines(finished)
    assert len(first) == 8  # two heads: a rate, two seeds each; LoRA: two rates, another seed of the better
    assert {len(line["test"]["dice"]["ET"]) for line in first} == {1}
    assert finished.missing() == []
    assert "| LoRA, r = 2 |" in table(finished) and "not computed yet" not in table(finished)
    asked.path.parent.mkdir()
    lora = asked.sweep.row("LoRA, r = 2")
    lost = lora.training(finished.rate(lora), 1).key
    kept = [text for text in finished.path.read_text().splitlines(keepends=True) if lost not in text]
    asked.path.write_text("".join(kept))
    assert [job[1:] for job in asked.missing()] == [(finished.rate(lora), 1)]
    run(asked, ["LoRA, r = 2"])
    assert lines(asked) == first, "the same numbers to the last digit"
    assert set(kept) < set(asked.path.read_text().splitlines(keepends=True)), "others were not trained again"


def test_two_sweeps_share_a_training_that_is_the_same_in_both(finished, tmp_path, monkeypatch):
    """Another recipe with the same head: its line is taken over, not trained."""
    monkeypatch.setenv("LABKIT_QUICK", "1")
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "which.toml").write_text(RECIPE)
    (tmp_path / "recipes" / "other.toml").write_text(
        RECIPE.replace('name = "head"', 'name = "probe"', 1).replace('rival = "head"', "")
    )
    monkeypatch.setattr(recipes, "RECIPES", tmp_path / "recipes")
    shutil.copytree(finished.path.parent, tmp_path / "results")
    other = results("other", tmp_path / "results")
    other.take_over([results("which", tmp_path / "results")])
    assert other.missing() == [] and [line["row"] for line in lines(other)].count("probe") == 2
    assert {line["key"] for line in lines(other)} == {line["key"] for line in lines(finished)}


def test_two_writers_at_once_lose_nothing(asked):
    row = asked.sweep.row("head")
    test = {score: {"ET": [0.5]} for score in SCORES}
    result = dict(tuned=7, inserted=3, validation=0.5, test=test, patients=["a"], took={})

    def write(seeds):
        mine = Results(asked.sweep, asked.path.parent)
        for seed in seeds:
            mine.add(row, row.rates[0], seed, result)

    writers = [threading.Thread(target=write, args=(range(start, 40, 4),)) for start in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [line["seed"] for line in lines(asked)] == list(range(40))


def test_a_broken_line_is_named_with_its_number(asked):
    pretend(asked, "head", 0, 0)
    asked.path.write_text(asked.path.read_text() + '{"row": "hea')
    with pytest.raises(ValueError, match="which.jsonl, line 2 is no training"):
        asked.missing()


def test_the_rate_is_chosen_on_validation_patients_alone(asked):
    pretend(asked, "LoRA, r = 2", 0, 0, validation=0.6, dice=0.3)
    assert asked.rate(asked.sweep.row("LoRA, r = 2")) is None, "one of two was tried"
    pretend(asked, "LoRA, r = 2", 1, 0, validation=0.5, dice=0.9)
    assert asked.rate(asked.sweep.row("LoRA, r = 2")) == {"lr": 1e-3}
    assert [(row.name, *job) for row, *job in asked.missing()] == [
        ("threshold", {}, 0),
        ("frozen random", {"head_lr": 2e-3}, 0),
        ("head", {"head_lr": 2e-3}, 0),
        ("LoRA, r = 2", {"lr": 1e-3}, 1),
    ]


def test_numbers_of_another_recipe_do_not_count(asked, recipe, tmp_path):
    pretend(asked, "head", 0, 0)
    assert len(asked.trainings(asked.sweep.row("head"))) == 1
    recipe.write_text(RECIPE.replace("steps = 2", "steps = 3"))
    other = Results(recipes.read(recipe), asked.path.parent)
    assert other.trainings(other.sweep.row("head")) == []


def test_the_table_has_means_intervals_edges_and_the_difference_to_the_rival(asked):
    for seed, dice in ((0, 0.5), (1, 0.6)):
        pretend(asked, "head", 0, seed, dice=dice)
        pretend(asked, "LoRA, r = 2", 0, seed, validation=0.6, dice=dice + 0.2)
    pretend(asked, "LoRA, r = 2", 1, 0, validation=0.5)
    threshold, random, head, lora = table(asked).splitlines()[2:6]
    assert threshold.startswith("| threshold | not computed yet") and "not computed yet" in random
    assert head.startswith("| head | 7 | 0.002 | 55.0 | 60.0 | 57.5 (") and head.endswith("| 2 |  |")
    assert lora.startswith("| LoRA, r = 2 | 7 | 0.001 (edge) | 75.0 | 80.0 | 77.5 (")
    assert lora.endswith("| 2 | +20.0 (20.0 to 20.0) head |")
    assert "a better one may lie beyond" in table(asked) and RULE in table(asked)
    assert "| head | 7 | 0.002 | 0.6 | 0.6 | 0.6 (" in table(asked, "false_lesions")  # counts


def test_one_training_is_called_one_training(asked):
    pretend(asked, "head", 0, 0)
    assert "Fewer seeds than asked for: head. One training:" in table(asked)


def test_a_patient_without_the_region_is_left_out_of_its_mean_alone(asked):
    row = asked.sweep.row("head")
    test = {"dice": {"ET": [0.5, None, 0.7], "WT": [0.2, 0.4, 0.6]}}
    test |= {"lesion_dice": test["dice"], "false_lesions": {"ET": [0, 3, 0], "WT": [1, 1, 1]}}
    result = dict(tuned=7, inserted=3, validation=0.5, test=test, patients=["a", "b", "c"], took={})
    asked.add(row, row.rates[0], 0, result)
    shown = line(asked, row, "dice")
    assert shown["ET (n = 2)"] == "60.0" and shown["WT (n = 3)"] == "40.0"
    assert shown["mean (95 %)"].startswith("50.0 (")
    assert line(asked, row, "false_lesions")["ET (n = 3)"] == "1.0", "what was found there all the same"


def test_a_rival_is_chosen_by_validation_patients_whatever_the_test_patients_say(asked):
    """Rows are told apart by nothing but `validation`: the one with the worst test scores is chosen."""
    pretend(asked, "head", 0, 0, validation=0.7, dice=0.1)
    for rate in (0, 1):
        pretend(asked, "LoRA, r = 2", rate, 0, validation=0.6, dice=0.8)
    assert best_by_validation(asked, ["head", "LoRA, r = 2", "threshold"]) == "head"
    assert best_by_validation(asked, ["threshold"]) is None


@pytest.mark.parametrize(
    ("best", "edge"), [((0.9, 0.5, 0.5), True), ((0.5, 0.9, 0.5), False), ((0.5, 0.5, 0.9), True)]
)
def test_the_lowest_or_highest_of_the_rates_is_an_edge(recipe, tmp_path, best, edge):
    recipe.write_text(RECIPE.replace("lr = [1e-3, 1e-1]", "lr = [1e-3, 1e-2, 1e-1]"))
    asked = Results(recipes.read(recipe), tmp_path / "results")
    for rate, validation in enumerate(best):
        pretend(asked, "LoRA, r = 2", rate, 0, validation)
    assert asked.at_edge(asked.sweep.row("LoRA, r = 2")) == edge


def test_another_folder_quick_mode_and_other_code_are_other_trainings(asked, recipe, tmp_path, monkeypatch):
    """Whatever changes a training's numbers changes its key."""
    file = recipe.with_name("folder.toml")
    file.write_text(RECIPE.replace('organ = "brain", ghosts = true', 'organ = "folder"'))
    for name, content in (("a", b"1"), ("b", b"2")):
        (tmp_path / name / "imagesTr").mkdir(parents=True)
        (tmp_path / name / "imagesTr" / "x.nii").write_bytes(content)
    keys = {
        recipes.read(file, tmp_path / folder).rows[2].training({"head_lr": 2e-3}, 0).key for folder in "ab"
    }
    training = asked.sweep.row("head").training({"head_lr": 2e-3}, 0)
    assert training.quick, "these tests run in quick mode"
    keys |= {training.key, replace(training, quick=False).key}
    keys |= {replace(training, revision=training.revision + 1).key, replace(training, weights="random").key}
    assert len(keys) == 6
    with pytest.raises(ValueError, match="no such folder"):
        recipes.read(file, tmp_path / "none")


def test_a_method_is_one_or_several():
    assert method_of({"lora": {"r": 2, "targets": ["q"]}}) == LoRA(r=2, targets=("q",))
    assert method_of({"bitfit": {}, "adapter": {"m": 4}}) == (BitFit(), Adapter(m=4))


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
        ('decoder = "linear"', 'decoder = "linear"\nnetwork = { bacbone = "vit_b16" }'),
        ('"brain"', '"spleen"'),
        ("slices = 2 }", 'slices = 2, augment = "stronng" }'),
    ],
)
def test_a_broken_recipe_is_refused_in_a_sentence_that_names_it(recipe, tmp_path, right, wrong):
    recipe.write_text(RECIPE.replace(right, wrong, 1))
    with pytest.raises(ValueError, match="which.toml"):
        recipes.read(recipe)


def test_an_unknown_sweep_or_row_is_answered_with_the_known_ones(asked):
    with pytest.raises(ValueError, match="no sweep 'brian'; there are .*brain"):
        recipes.sweep("brian")
    with pytest.raises(ValueError, match="no row 'lora'; it has 'threshold', .*'head', 'LoRA, r = 2'"):
        run(asked, ["lora"])


def test_quick_mode_writes_no_results_that_are_kept(asked, monkeypatch):
    with pytest.raises(ValueError, match="LABKIT_QUICK=1 trains too briefly"):
        run(results("brain"))


ANEW = """
import json, sys
from hashlib import sha256
from labkit.studies.recipe import method_of
from labkit.studies.run import volumes
from labkit.training.fit import Recipe, fit, fresh
from labkit.tuning import delta
for training in json.loads(sys.argv[1]):
    patients = volumes("brain", "train", 1, None, ghosts=True)
    model = fresh(method_of(training["method"]), patients[0].case, 0, training["decoder"])
    losses = [row["loss"] for row in fit(model, patients, Recipe(**training["recipe"]))]
    print(losses, sha256(b"".join(p.detach().numpy().tobytes() for p in delta(model).values())).hexdigest())
"""


TWO = {"head": {"head_lr": 2e-3}, "LoRA, r = 2": {"lr": 1e-3}}


@pytest.mark.slow  # test_own_study.py looks at bits after a kill in CI
def test_two_rows_are_trained_to_the_same_bits_in_another_process(asked):
    """Losses and all numbers that learned: after two steps, scores are still 0 and would show nothing."""
    trainings = json.dumps([vars(asked.sweep.row(name).training(rate, 0)) for name, rate in TWO.items()])
    command, one_thread = [sys.executable, "-c", ANEW, trainings], os.environ | {"OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen(command, env=one_thread, text=True, stdout=subprocess.PIPE) for _ in range(2)]
    first, again = (process.communicate()[0] for process in both)
    assert first == again and not any(process.returncode for process in both)
    assert len(set(first.splitlines())) == len(TWO), "the rows differ"


def test_the_key_of_a_training_is_made_of_what_the_recipe_says_alone(asked):
    """Committed trainings are found by these keys: a new field of `fit.Recipe` must not change them."""
    row = asked.sweep.row("head")
    assert replace(row.training(row.rates[0], 0), revision=1, quick=False).key == "dff7c8b321da"


KILLED = """
import sys
from pathlib import Path
from labkit.studies import recipe, run, store
run.run(store.Results(recipe.read(Path(sys.argv[1])), Path(sys.argv[2])))
"""


@pytest.mark.slow
def test_a_sweep_that_is_killed_again_and_again_ends_with_the_same_lines(asked, recipe, finished):
    """Killed at random moments; LABKIT_KILLS says how often, once by default for CI's sake."""
    other = Results(asked.sweep, asked.path.parent.with_name("killed"))
    moments = random.Random(0)
    for _ in range(int(os.environ.get("LABKIT_KILLS", 1))):
        command = [sys.executable, "-c", KILLED, recipe, other.path.parent]
        killed = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(4 + 8 * moments.random())
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    run(other)
    assert lines(other) == lines(finished)
    left = {path.suffix for path in other.path.parent.iterdir()}
    assert left <= {".jsonl", ".lock"}, "nothing half-written is left"


@pytest.mark.slow
def test_two_at_once_make_the_same_lines_as_one_after_another(asked, finished):
    other = Results(asked.sweep, asked.path.parent.with_name("two"))
    run(other, workers=2)
    assert lines(other) == lines(finished)


def test_workers_beside_a_scheduler_are_refused(asked):
    with pytest.raises(ValueError, match="--workers or --scheduler, not both"):
        run(asked, scheduler="tcp://somewhere:8786", workers=2)


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_makes_the_same_lines(asked, finished):
    from distributed import LocalCluster

    other = Results(asked.sweep, asked.path.parent.with_name("cluster"))
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        first = cluster.workers[0].pid

        def kill_once():
            while not other.path.exists():
                time.sleep(0.1)
            os.kill(first, signal.SIGKILL)

        killer = threading.Thread(target=kill_once)
        killer.start()
        run(other, scheduler=cluster.scheduler_address)
        killer.join()
        assert cluster.workers[0].pid != first, "another worker took over"
    assert lines(other) == lines(finished)


def test_a_recipe_of_ones_own_is_a_file_and_its_results_lie_beside_it(recipe, tmp_path):
    found = results(str(recipe))
    assert (
        found.path == tmp_path / "which.jsonl" and [row.name for row in found.sweep.rows][-1] == "LoRA, r = 2"
    )
    with pytest.raises(ValueError, match="There is no file .*none.toml"):
        results(str(tmp_path / "none.toml"))
    with pytest.raises(ValueError, match="a file of yours, NAME.toml"):
        results("none")


def test_the_kits_own_trainings_are_read_in_quick_mode_as_well(monkeypatch, asked):
    kit = results("kidney")
    row = kit.sweep.row("LoRA")
    in_full = kit.trainings(row)
    monkeypatch.setenv("LABKIT_QUICK", "1")
    assert in_full and results("kidney").trainings(row) == in_full
    key = asked.sweep.row("head").training({"head_lr": 2e-3}, 0).key
    monkeypatch.delenv("LABKIT_QUICK")
    assert asked.sweep.row("head").training({"head_lr": 2e-3}, 0).key != key, (
        "elsewhere quick is another training"
    )
