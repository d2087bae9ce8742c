"""`labkit train --out RUN` on very small scans: what is kept, gone on with after a kill, read and refused."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from labkit import cli
from labkit.methods import METHODS, Head, LoRA
from labkit.paths import checkout_root, data_dir
from labkit.scans.folders import read_folder
from labkit.scans.slices import to_volume
from labkit.studies import own_study, recipe, report
from labkit.studies.own_study import alone_in, parts_of, rates_of, train_study
from labkit.studies.run_folder import best_network, figure, in_words, opened, write_results
from labkit.studies.statistics import estimate, scores
from labkit.studies.store import read_lines
from labkit.training.evaluate import predict
from labkit.training.fit import Recipe
from labkit.training.label_scan import label_scan, network_of

QUICK = Recipe(steps=2, batch_size=1)
MADE = ("table.md", "table.csv", "losses.csv", "figure.png")


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Eight cases of different sizes, each with two labels."""
    folder, rng = tmp_path_factory.mktemp("scans"), np.random.default_rng(0)
    for room in ("imagesTr", "labelsTr"):
        (folder / room).mkdir()
    for i in range(8):
        label = np.zeros((20 + i, 24, 3), np.uint8)
        label[4:12, 4:16], label[6:9, 6:10] = 1, 2
        image = (100 + 40 * label + rng.normal(0, 5, label.shape)).astype(np.float32)
        nib.save(nib.Nifti1Image(image, np.eye(4)), folder / "imagesTr" / f"p{i}.nii.gz")
        nib.save(nib.Nifti1Image(label, np.eye(4)), folder / "labelsTr" / f"p{i}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def done(scans, tmp_path_factory):
    """A whole study; not to be changed."""
    out = tmp_path_factory.mktemp("kept") / "RUN"
    train_study(scans, out, ["lora", "head"], (0, 1), (1e-3, 3e-3), recipe=QUICK)
    return out


@pytest.fixture
def copy(done, tmp_path):
    """The same study, to be changed."""
    return Path(shutil.copytree(done, tmp_path / "RUN"))


def change(run: Path, how) -> None:
    """Apply `how` to every line of a run's trainings."""
    lines = read_lines(run / "study.jsonl")
    for line in lines:
        how(line)
    (run / "study.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def contents(folder: Path) -> dict[str, object]:
    """All that a run keeps, without what depends on the moment."""
    found: dict[str, object] = {name: (folder / name).read_bytes() for name in ("study.json", *MADE)}
    found["lines"] = [
        {k: v for k, v in line.items() if k != "took"} for line in read_lines(folder / "study.jsonl")
    ]
    return found | {path.name: path.read_bytes() for path in (folder / "networks").iterdir()}


# What is kept


def test_a_study_keeps_every_network_its_table_losses_and_figure(done):
    kept = {path.name for path in (done / "networks").iterdir()}
    for row in ("frozen_random", "lora", "head"):
        with_seed_0 = {f"{row}-rate{rate}-seed0.safetensors" for rate in (0.001, 0.003)}
        of_row = {name for name in kept if name.startswith(f"{row}-")}
        (other,) = of_row - with_seed_0
        assert with_seed_0 < of_row and other.endswith("-seed1.safetensors")
    assert len(kept) == 9, "no checkpoint is left"
    model, about = network_of(done / "networks" / "lora-rate0.001-seed0.safetensors")
    assert model.tuned_by == LoRA() and about["slices"] == 1
    table = (done / "table.md").read_text()
    assert "Patients: 5 to train on, 1 to choose on, 2 tested" in table
    assert all(f"| {row} |" in table for row in ("threshold", "frozen random", "lora", "head"))
    losses = list(csv.DictReader((done / "losses.csv").open()))
    assert len(losses) == 9 * QUICK.steps
    assert {(one["row"], one["seed"]) for one in losses} >= {
        ("lora", "0"),
        ("lora", "1"),
        ("frozen random", "1"),
    }
    assert all(float(one["loss"]) > 0 for one in losses)
    assert (done / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_the_csv_has_the_numbers_of_the_trainings(done):
    asked, rows = opened(done), {row["row"]: row for row in csv.DictReader((done / "table.csv").open())}
    assert list(rows) == ["threshold", "frozen random", "lora", "head"]
    for name, cells in rows.items():
        trainings = asked.trainings(asked.sweep.row(name))
        whole = estimate(100 * scores(trainings))
        found = [float(cells[column]) for column in ("mean", "low", "high")]
        assert found == pytest.approx([whole.mean, whole.low, whole.high])
        assert (cells["seeds"], cells["patients"]) == (str(len(trainings)), "2")
        assert cells["label 1, patients"] == "2" and (cells["rival"] == "lora") == (name != "lora")
    assert rows["threshold"]["rate"] == "" and rows["lora"]["rate"] in ("0.001", "0.003")


def test_the_figure_names_what_it_shows(done):
    left, right = figure(opened(done)).axes
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["frozen random", "lora", "head"]
    styles = {(line.get_color(), line.get_linestyle()) for line in left.lines if line.get_linewidth() > 1}
    assert len({colour for colour, _ in styles}) == len({dash for _, dash in styles}) == 3
    assert [t.get_text() for t in right.get_yticklabels()] == ["head", "lora", "frozen random", "threshold"]
    assert len(right.get_legend().get_texts()) == 3 and "per cent" in right.get_xlabel()
    assert left.get_xlabel() == "step" and "Dice" in left.get_ylabel()


def test_what_is_marked_of_a_region_that_a_patient_lacks_is_said_under_the_table(copy):
    assert "lesions a patient" not in in_words(opened(copy))

    def lack(line):
        line["test"]["dice"]["label 2"][0] = None
        line["test"]["false_lesions"]["label 2"] = [3, 0]

    change(copy, lack)
    said = in_words(opened(copy))
    assert "label 2 (n = 1)" in said and "lesions a patient:" in said and "| 1.5 |" in said


def test_the_bar_says_which_training_runs_and_how_many_are_left(scans, tmp_path, capsys):
    train_study(scans, tmp_path / "RUN", ["head"], (0, 1), (1e-3, 3e-3), recipe=QUICK)
    bars = capsys.readouterr().err
    asked = opened(tmp_path / "RUN")
    best = asked.rate(asked.sweep.row("head"))["head_lr"]
    of_head = ["head, rate 0.001, seed 0", "head, rate 0.003, seed 0", f"head, rate {best:g}, seed 1"]
    places = [bars.index(f"{name}: ") for name in ("threshold, seed 0", *of_head)]
    assert places == sorted(places)
    left = [int(n) for n in re.findall(r"(\d+) left", bars)]
    assert left[0] == 7 and left[-1] == 1 and left == sorted(left, reverse=True)


def test_without_controls_and_with_one_rate_only_what_is_asked_for_is_trained(scans, tmp_path):
    out = tmp_path / "RUN"
    results = train_study(scans, out, ["head"], rates=[1e-3], controls=False, recipe=QUICK)
    assert [line["row"] for line in results.lines.values()] == ["head"]
    assert "(edge)" not in (out / "table.md").read_text()


def test_the_rates_of_every_method_bracket_those_of_the_kits_sweeps():
    for method in METHODS:
        assert len(rates_of(method)) >= 3 and sorted(rates_of(method)) == list(rates_of(method))
    for row in recipe.sweep("hippocampus").rows:
        (method,) = row.method
        if not row.is_threshold:
            assert {next(iter(rate.values())) for rate in row.rates} <= set(rates_of(method)), row.name


# Patients


def test_patients_to_choose_on_are_so_many_or_those_named(scans):
    cases, _ = read_folder(scans)
    by_default, three = parts_of(cases), parts_of(cases, ["3"])
    assert (len(three["validation"]), len(three["train"])) == (3, 3)
    assert three["test"] == by_default["test"], "the test patients do not depend on it"
    named = parts_of(cases, ["p3", "p5"])
    assert named["validation"] == ["p3", "p5"]
    assert sorted(sum(named.values(), [])) == [f"p{i}" for i in range(8)]


@pytest.mark.parametrize(
    ("validation", "said"),
    [
        (["0"], "--validation 0 can't be: of 8 patients 1 to 5"),
        (["6"], "--validation 6 can't be: of 8 patients 1 to 5"),
        (["p1", "q"], "--validation names q, but no usable patient is called so"),
        ([f"p{i}" for i in range(7)], "--validation names 7 of 8 patients; leave two"),
    ],
)
def test_patients_that_can_not_be_are_refused_in_a_sentence(scans, validation, said):
    with pytest.raises(ValueError, match=said):
        parts_of(read_folder(scans)[0], validation)


def test_two_patients_are_too_few_for_a_study(scans):
    with pytest.raises(ValueError, match="There are 2 usable patients; a study needs three"):
        parts_of(read_folder(scans)[0][:2])


# Stopped, gone on with, refused

KILLED = """
import os, signal, sys
from pathlib import Path
from labkit.studies import own_study, run, store
from labkit.training.fit import Recipe
scans, out, when = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
fit, trained = run.fit, []
def killed_within(model, train, recipe, **how):
    trained.append(recipe)
    if len(trained) == 2:
        how["on_step"] = lambda row: row["step"] == 3 and die()
    return fit(model, train, recipe, **how)
if when == "within a training":
    run.fit = killed_within
else:
    store.Results.add = die
own_study.train_study(scans, out, ["head"], (0, 1), (1e-3,), controls=False,
                      recipe=Recipe(steps=4, batch_size=1, check_every=1))
"""


@pytest.fixture(scope="module")
def whole(scans, tmp_path_factory):
    """What the study of KILLED comes to where nobody kills it."""
    out = tmp_path_factory.mktemp("whole") / "RUN"
    steps = Recipe(steps=4, batch_size=1, check_every=1)
    train_study(scans, out, ["head"], (0, 1), (1e-3,), controls=False, recipe=steps)
    return contents(out)


@pytest.mark.parametrize(
    ("when", "steps_left"),
    [("within a training", 2), pytest.param("before its line is written", 4, marks=pytest.mark.slow)],
)
def test_killed_and_resumed_it_ends_with_the_same_bytes_and_no_step_is_taken_twice(
    scans, tmp_path, whole, monkeypatch, when, steps_left
):
    out, step, steps = tmp_path / "RUN", Recipe(steps=4, batch_size=1, check_every=1), []
    killed = subprocess.run([sys.executable, "-c", KILLED, scans, out, when], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    from labkit.training import fit

    one = fit.training_step
    monkeypatch.setattr(fit, "training_step", lambda *args: steps.append(args[-1]) or one(*args))
    train_study(scans, out, ["head"], (0, 1), (1e-3,), controls=False, recipe=step, resume=True)
    assert len(steps) == steps_left
    assert contents(out) == whole
    left = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    assert left <= {"study.json", "study.jsonl", "study.lock", "networks", *MADE}
    assert not list(out.rglob("*.part")) and not list(out.rglob("*.checkpoint"))


def test_a_finished_study_is_read_again_and_nothing_is_trained(scans, copy, monkeypatch):
    before = contents(copy)
    monkeypatch.setattr("labkit.studies.run.train", None)
    train_study(scans, copy, ["lora", "head"], (0, 1), (1e-3, 3e-3), recipe=QUICK, resume=True)
    assert contents(copy) == before


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (dict(methods=["lora"]), "other methods, rates or controls"),
        (dict(rates=(1e-3,)), "other methods, rates or controls"),
        (dict(controls=False), "other methods, rates or controls"),
        (dict(seeds=(0, 2)), "other seeds"),
        (dict(validation=["2"]), "other patients or scans"),
        (dict(recipe=Recipe(steps=3, batch_size=1)), "other steps, slices or crop"),
        (dict(decoder="linear"), "other decoder"),
        (dict(weights=data_dir() / "backbones" / "tiny.safetensors"), "other backbone or weights"),
        (dict(seconds=1.0), "other seconds"),
    ],
)
def test_resume_refuses_other_settings_by_name_and_changes_nothing(scans, done, other, said):
    before = {path: path.read_bytes() for path in done.rglob("*") if path.is_file()}
    same = dict(methods=["lora", "head"], seeds=(0, 1), rates=(1e-3, 3e-3), recipe=QUICK)
    with pytest.raises(ValueError, match=f"RUN was begun with {said}; repeat"):
        train_study(scans, done, resume=True, **(same | other))
    assert before == {path: path.read_bytes() for path in done.rglob("*") if path.is_file()}


def test_resume_refuses_scans_that_have_changed(scans, done, tmp_path):
    changed = Path(shutil.copytree(scans, tmp_path / "scans"))
    shutil.copy(changed / "imagesTr" / "p1.nii.gz", changed / "imagesTr" / "p0.nii.gz")
    shutil.copy(changed / "labelsTr" / "p1.nii.gz", changed / "labelsTr" / "p0.nii.gz")
    with pytest.raises(ValueError, match="begun with other patients or scans"):
        train_study(changed, done, ["lora", "head"], (0, 1), (1e-3, 3e-3), recipe=QUICK, resume=True)


def test_what_is_there_is_never_overwritten(scans, done, tmp_path):
    with pytest.raises(
        ValueError, match="RUN holds a study; go on with it by --resume, or name a new folder"
    ):
        train_study(scans, done, ["lora"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for out, said in (
        ("mine", r"holds other files \(thesis.txt\)"),
        ("file", "name a new folder"),
        ("new.safetensors", "name a new folder"),
    ):
        with pytest.raises(ValueError, match=said):
            train_study(scans, tmp_path / out, ["lora"], resume=True)
    assert {path.name for path in tmp_path.rglob("*")} == {"mine", "thesis.txt", "file"}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (dict(methods=["lorra"]), "no method 'lorra'; choose one of"),
        (dict(methods=["lora", "lora"]), "--method lora lora can't be"),
        (dict(seeds=(1, 1)), "--seeds 1 1 can't be"),
        (dict(rates=(0.0,)), "--rate 0.0 can't be"),
        (dict(decoder="swin_unet"), "no decoder 'swin_unet' for tiny"),
        (dict(weights=Path("none.pth")), "no file of weights none.pth"),
    ],
)
def test_what_can_not_be_trained_is_refused_before_anything_is_kept(scans, tmp_path, asked, said):
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        train_study(scans, tmp_path / "RUN", **({"methods": ["head"], "recipe": QUICK} | asked))
    assert not (tmp_path / "RUN").exists()


def test_two_at_once_do_not_train_into_one_folder(tmp_path):
    with alone_in(tmp_path), pytest.raises(ValueError, match="Another process is training into"):
        with alone_in(tmp_path):
            pass


def test_seconds_are_timed_once_and_kept(scans, tmp_path, monkeypatch):
    asked = dict(methods=["head"], rates=(1e-3,), controls=False, recipe=QUICK, seconds=2.0)
    monkeypatch.setattr(own_study, "affordable", lambda *_: 1)
    train_study(scans, tmp_path / "RUN", **asked)
    monkeypatch.setattr(own_study, "affordable", None)
    results = train_study(scans, tmp_path / "RUN", **asked, resume=True)
    assert [len(line["losses"]) for line in results.lines.values()] == [1]


def test_a_rate_that_diverges_loses_and_the_others_go_on(scans, tmp_path, monkeypatch):
    from labkit.training import fit

    one = fit.backward
    broken = {3e-3}  # the head's rates at which the loss is no number

    def backward(model, *args):
        return float("nan") if recipes[-1] in broken else one(model, *args)

    recipes, step = [], fit.training_step
    monkeypatch.setattr(fit, "backward", backward)
    monkeypatch.setattr(fit, "training_step", lambda *a: recipes.append(a[3].head_lr) or step(*a))
    asked = dict(methods=["head"], seeds=(0, 1), rates=(1e-3, 3e-3), controls=False, recipe=QUICK)
    results = train_study(scans, tmp_path / "RUN", **asked)
    assert [line["head_lr"] for line in results.trainings(results.sweep.row("head"))] == [1e-3, 1e-3]
    assert "| head |" in (tmp_path / "RUN" / "table.md").read_text()
    broken.add(1e-3)
    results = train_study(scans, tmp_path / "NONE", **asked)
    assert "diverged at every rate" in in_words(results) and len(results.lines) == 2


# Read


def test_the_best_network_is_chosen_on_validation_patients_whatever_the_test_patients_say(copy):
    asked = opened(copy)
    chosen = {row.name: asked.rate(row) for row in asked.sweep.rows}

    def pretend(line):
        line["validation"] = 0.5 if chosen[line["row"]].items() <= line.items() else 0.4
        if line["row"] == "head" and line["seed"] == 1:
            line["validation"], line["test"]["dice"] = 0.9, {"label 1": [0.0, 0.0], "label 2": [0.0, 0.0]}
        if line["row"] == "frozen random":
            line["validation"] = 1.0

    change(copy, pretend)
    file, said, weights = best_network(opened(copy))
    assert file.name.startswith("head-") and file.name.endswith("seed1.safetensors") and weights is None
    assert said == "head, best of 2 on validation patients, seed 1"
    assert best_network(opened(copy), "lora")[0].name.startswith("lora-")
    file.unlink()
    with pytest.raises(ValueError, match="head-.* is not there any more"):
        best_network(opened(copy))
    with pytest.raises(
        ValueError, match="threshold is a control without a network; name one of frozen random"
    ):
        best_network(opened(copy), "threshold")
    with pytest.raises(ValueError, match="no row 'full'; it has"):
        best_network(opened(copy), "full")


def test_of_a_study_that_was_stopped_the_best_is_said_of_those_that_are_there(copy):
    lines = [line for line in read_lines(copy / "study.jsonl") if line["row"] != "head"]
    (copy / "study.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    _, said, _ = best_network(opened(copy))
    assert re.fullmatch(r"lora, best of 1 on validation patients \(no network yet: head\), seed [01]", said)


def test_a_study_that_has_only_begun_has_no_table_and_no_network(copy):
    (copy / "study.jsonl").unlink()
    assert write_results(opened(copy)) == []
    with pytest.raises(ValueError, match="holds no trained network yet; go on with --resume"):
        best_network(opened(copy))
    with pytest.raises(ValueError, match="is no run of `labkit train --out`"):
        opened(copy / "networks")


def test_a_network_on_weights_of_ones_own_labels_a_scan_without_naming_them_again(scans, tmp_path):
    weights = data_dir() / "backbones" / "tiny.safetensors"
    asked = dict(rates=(1e-3,), recipe=QUICK, weights=weights)
    results = train_study(scans, tmp_path / "RUN", ["head"], **asked)
    file, _, found = best_network(results)
    assert found == weights.resolve()
    label_scan(file, [scans / "imagesTr" / "p0.nii.gz"], tmp_path / "labels.nii.gz", weights=found)
    assert best_network(results, "frozen random")[2] is None
    assert network_of(best_network(results, "frozen random")[0])[0].tuned_by == Head()


def test_the_report_of_a_run_says_what_came_out_with_its_controls(copy, tmp_path):
    said = report.report_study(copy, tmp_path / "page")
    assert said == f"{tmp_path / 'page' / 'index.html'} and {tmp_path / 'page' / 'tables.md'}"
    page = (tmp_path / "page" / "index.html").read_text()
    assert "4 of 4 rows are there" in page and "test patients" in page
    for pair in ("lora is .* threshold", "head is .* frozen random", "head is .* lora"):
        assert any(re.search(pair, line) for line in page.split("<li>")), pair
    assert "takes the network of" in page and page.count("<img alt=") == 3
    assert "| lora |" in (tmp_path / "page" / "tables.md").read_text()
    (copy / "study.jsonl").unlink()
    report.report_study(copy, tmp_path / "begun")
    assert "0 of 4 rows are there" in (tmp_path / "begun" / "index.html").read_text()


# The command


def labkit(*words):
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def test_options_take_several_values_at_once(monkeypatch, scans):
    asked = []
    monkeypatch.setattr(own_study, "train_study", lambda *args: asked.append(args) or sys.exit(0))
    labkit(
        "train", "--data", scans, "--method", "lora", "full", "--seeds", 0, 1, 2, "--out", "R", "--rate", 1e-3
    )
    labkit(
        "train",
        "--data",
        scans,
        "--method",
        "lora",
        "--method",
        "full",
        "--seeds",
        0,
        "--seed",
        1,
        "--out",
        "R",
    )
    (_, _, methods, seeds, rates, *_), (_, _, again, other, none, *_) = asked
    assert (methods, seeds, list(rates)) == (["lora", "full"], [0, 1, 2], [1e-3])
    assert (again, other, list(none)) == (["lora", "full"], [0, 1], [])


def test_train_predict_and_report_by_the_words_of_their_help(scans, tmp_path):
    out, scan, labels = tmp_path / "RUN", scans / "imagesTr" / "p0.nii.gz", tmp_path / "labels.nii.gz"
    words = ("train", "--data", scans, "--method", "head", "--rate", 1e-3, "--steps", 1, "--out", out)
    answer = labkit(*words, "--no-controls")
    assert answer.exit_code == 0 and "| head |" in answer.stdout and f"labkit predict {out}" in answer.stdout
    answer = labkit("predict", out, scan, "--out", labels)
    assert answer.stdout.splitlines()[0] == "network: head, best of 1 on validation patients, seed 0"
    model, _ = network_of(out / "networks" / "head-rate0.001-seed0.safetensors")
    found = predict(model, to_volume(read_folder(scans, ["p0"])[0][0]))
    assert sorted(np.unique(nib.load(labels).get_fdata(), return_counts=True)[1]) == sorted(
        np.unique(found, return_counts=True)[1]
    )
    answer = labkit("report", out)
    assert answer.stdout.strip() == f"{out}/report/index.html and {out}/report/tables.md"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "--data", ".", "--resume"), "name a folder for it with --out"),
        (("train", "--data", ".", "--seeds", 0, 1), "name a folder for it with --out"),
        (("train", "--smoke", "--method", "lora", "head"), "--smoke takes one --method"),
        (("predict", "scan.nii.gz", "--out", "l.nii.gz"), "a network's file by --delta"),
        (
            ("predict", "--delta", "d", "s.nii", "--method", "full", "--out", "l.nii"),
            "--method chooses in RUN",
        ),
        (("report", "RUN", "--results", "."), "give RUN or --results, not both"),
    ],
)
def test_options_that_do_not_go_together_are_refused(words, said):
    answer = labkit(*words)
    assert answer.exit_code == 2
    assert said in " ".join(answer.output.split())


def test_peft_computes_what_the_lora_of_a_run_does_by_the_words_of_the_guide(done, tmp_path, monkeypatch):
    pytest.importorskip("peft")
    guide = (checkout_root() / "docs" / "research.md").read_text(encoding="utf-8")
    of_peft, _, beside = guide.partition("**In peft.**")[2].partition("The folder holds LoRA alone.")
    code = re.findall(r"^    (.+)$", of_peft, re.MULTILINE)
    (norm,) = re.findall(r"`(backbone\.norm\.[^`]+)`", beside)
    (tmp_path / "RUN").symlink_to(done)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec("\n".join([*code, norm]), names)
    x = torch.randn(2, 1, 96, 96)
    with torch.no_grad():
        expected = names["model"].backbone(x)
        torch.testing.assert_close(names["backbone"].eval()(x), expected, rtol=1e-4, atol=1e-4)
