"""The zip for Gradescope, unpacked into a bare root that is laid out as Gradescope's container."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from labkit.classroom import autograder, submit
from labkit.classroom.autograder import build, student

SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/passwd")


@pytest.fixture(scope="module")
def built(released, tmp_path_factory):
    return build(released, tmp_path_factory.mktemp("zip") / "autograder.zip", "00")


@pytest.fixture
def gradescope(built, tmp_path):
    """/autograder as Gradescope lays it out, for the hand-in of one student; its .venv is to be mounted."""
    with zipfile.ZipFile(built) as archive:
        archive.extractall(tmp_path / "source")
    (tmp_path / "source" / "labkit" / ".venv").mkdir()
    (tmp_path / "run_autograder").write_bytes((tmp_path / "source" / "run_autograder").read_bytes())
    (tmp_path / "submission").mkdir()
    about = {"id": 71, "users": [{"id": 5, "name": "Zo\u00eb Bell", "email": "zoe@example.edu"}]}
    (tmp_path / "submission_metadata.json").write_text(json.dumps(about))
    return tmp_path


def run(gradescope: Path, *more: str, program: str = "/autograder/run_autograder") -> dict:
    """results.json after `program` ran in a root that has a system, this Python, and /autograder alone."""
    bound = [path for path in (*SYSTEM, sys.base_prefix) if os.path.exists(path)]
    links = {path: os.readlink(path) for path in bound if os.path.islink(path)}
    command = ["bwrap", *(["--unshare-user", "--uid", "0"] if os.getuid() else []), "--unshare-pid"]
    command += ["--unshare-net", "--die-with-parent", "--cap-add", "ALL", "--clearenv"]
    command += ["--setenv", "PATH", "/usr/bin:/bin", "--setenv", "OMP_NUM_THREADS", "1"]
    command += [word for path in bound if path not in links for word in ("--ro-bind", path, path)]
    command += [word for path, to in links.items() for word in ("--symlink", to, path)]
    command += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    command += ["--bind", str(gradescope), "/autograder"]
    command += ["--ro-bind", sys.prefix, "/autograder/source/labkit/.venv"]
    done = subprocess.run(
        [*command, *more, "bash", program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    results = gradescope / "results" / "results.json"
    assert results.exists(), done.stdout + done.stderr
    return json.loads(results.read_text()) | {"printed": done.stdout + done.stderr}


def answered(edition, **answers: str) -> str:
    notebook = edition("student", "00_welcome")
    right = {cell["id"]: cell["source"] for cell in edition("instructor", "00_welcome")["cells"]}
    for cell in notebook["cells"]:
        if cell["metadata"].get("labkit", {}).get("role") == "answer":
            cell["source"] = answers.get(cell["id"], right[cell["id"]])
    return json.dumps(notebook)


UNION = """def dice(prediction, truth):
    both = np.count_nonzero(prediction & truth)
    return both / np.count_nonzero(prediction | truth) if (prediction | truth).any() else 1.0"""


@pytest.mark.slow
def test_a_hand_in_is_graded_in_a_bare_root(jailed, gradescope, edition):
    (gradescope / "submission" / "my lab.ipynb").write_text(answered(edition, dice=UNION))
    (gradescope / "submission" / ".ipynb_checkpoints").mkdir()
    (gradescope / "submission" / ".ipynb_checkpoints" / "my lab.ipynb").write_text("{}")
    found = run(gradescope)
    tests = {test["name"]: test for test in found["tests"]}
    assert set(tests) == {"regions", "dice", "tumour_ml"}, found
    assert [name for name, test in tests.items() if test["status"] == "failed"] == ["dice"]
    assert "looks like: You divided by the union" in tests["dice"]["output"]
    assert found["score"] == sum(test["score"] for test in found["tests"])


@pytest.mark.parametrize(
    ("more", "missing"),
    [
        (["--cap-drop", "ALL"], "`bwrap` fails"),
        (["--ro-bind", "/dev/null", "/usr/bin/bwrap"], "`bwrap` is not installed"),
    ],
)
def test_without_a_jail_nothing_runs_and_the_result_says_what_is_missing(
    jailed, gradescope, edition, more, missing
):
    noticed = "import pathlib\npathlib.Path('/autograder/ran').touch()\n" + UNION
    (gradescope / "submission" / "lab.ipynb").write_text(answered(edition, dice=noticed))
    found = run(gradescope, *more)
    assert found["score"] == 0 and found["tests"] == [] and not (gradescope / "ran").exists()
    assert found["output"].startswith("Not graded, and no mark.") and missing in found["output"]
    assert "\n" not in found["output"] and "apt install bubblewrap" in found["printed"]


def test_a_result_is_there_before_python_starts(jailed, gradescope):
    found = run(gradescope, "--tmpfs", "/autograder/source/labkit/.venv")
    assert found["score"] == 0 and "Not graded, and no mark." in found["output"]
    assert "ended before it had a result" in found["output"]


def test_other_things_than_one_notebook_get_a_sentence(jailed, gradescope):
    (gradescope / "submission" / "lab.py").write_text("1")
    assert "0 were handed in" in run(gradescope)["output"]
    for name in "ab":
        (gradescope / "submission" / f"{name}.ipynb").symlink_to("/etc/passwd")
    assert "2 were handed in" in run(gradescope)["output"]
    (gradescope / "submission" / "b.ipynb").unlink()
    assert "a link" in run(gradescope)["output"]


def test_a_student_has_the_name_that_collect_gives(tmp_path):
    path = tmp_path / "submission_metadata.json"
    path.write_text('{"id": 71, "users": [{"name": "Zo\u00eb Bell"}, {"email": "b@c.d"}]}', encoding="utf-8")
    assert student(path) == "Zoe Bell and b@c.d_71"
    for broken in ("", "[]", '{"id": "x", "users": []}', '{"users": [1], "id": 1}'):
        path.write_text(broken)
        assert student(path) == "student"
    assert student(tmp_path / "none") == "student"


def test_the_zip_holds_one_lab_and_everything_that_setting_up_needs(built):
    with zipfile.ZipFile(built) as archive:
        names = set(archive.namelist())
        modes = {name: archive.getinfo(name).external_attr >> 16 & 0o777 for name in names}
    assert {"setup.sh", "run_autograder", "labkit/lab.py", "labkit/requirements.lock"} <= names
    assert {name for name in names if name.startswith("released/")} == {
        *("released/release.json", "released/grading/bundle.json", "released/student/00_welcome.ipynb")
    }
    assert modes["setup.sh"] == modes["run_autograder"] == 0o755
    assert not any("__pycache__" in name or ".git" in name for name in names)


@pytest.mark.parametrize("wheels", [False, True])
def test_set_up_takes_packages_from_a_folder_where_there_is_one(jailed, gradescope, wheels):
    for name in ("setup.sh", "run_autograder"):
        subprocess.run(["bash", "-n", gradescope / "source" / name], check=True)
    if wheels:
        (gradescope / "source" / "wheels").mkdir()
    programs = gradescope / "programs"  # stand for what needs a network
    programs.mkdir()
    (gradescope / "results").mkdir()
    for name, status in (("apt-get", 0), ("python3", 3)):
        asked = f'#!/bin/bash\necho "{name} $*" >> /autograder/asked\nexit {status}\n'
        (programs / name).write_text(asked)
        (programs / name).chmod(0o755)
    (gradescope / "results" / "results.json").write_text("{}")
    run(
        gradescope,
        "--setenv",
        "PATH",
        "/autograder/programs:/usr/bin:/bin",
        program="/autograder/source/setup.sh",
    )
    asked = (gradescope / "asked").read_text().splitlines()
    assert "bubblewrap" in asked[1] and "python3-venv" in asked[1]
    source = " --wheels ../wheels" if wheels else ""
    assert asked[2:] == [f"python3 lab.py{source} doctor --sandbox"]


@pytest.mark.parametrize(
    ("files", "counts"),
    [
        ({"a.ipynb": "00", "scratch.ipynb": "{}"}, "a.ipynb"),
        ({"a.ipynb": "00", "b.ipynb": "01", "c.ipynb": "no notebook"}, "a.ipynb"),
        ({"z/a.ipynb": "00", "b.ipynb": "{}", "__MACOSX/._a.ipynb": "00"}, "z/a.ipynb"),
        ({"only.ipynb": "{}"}, "only.ipynb"),
        ({"a.ipynb": "00", "b.ipynb": "00"}, "2 were handed in, of which 2 with cells of 00_welcome."),
        ({"a.ipynb": "01", "b.ipynb": "{}"}, "2 were handed in, of which none with cells of 00_welcome."),
        ({"a.txt": ""}, "Hand in one notebook (.ipynb); 0 were handed in."),
    ],
)
def test_of_several_notebooks_the_one_with_the_labs_cells_is_graded(tmp_path, monkeypatch, files, counts):
    texts = {lab: json.dumps(submit.edition(lab)) for lab in ("00", "01")}
    for name, text in files.items():
        (tmp_path / "submission" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "submission" / name).write_text(texts.get(text, text) + " " * len(name))
    graded = {}

    def grade(root, lab, data):
        graded["data"] = data
        return {"output": "graded"}

    monkeypatch.setattr(autograder, "_graded", grade)
    found = autograder.result(tmp_path, "00_welcome")
    if not counts.endswith(".ipynb"):
        assert found["output"].endswith(counts) and found["score"] == 0 and not graded
        return
    assert graded["data"] == (tmp_path / "submission" / counts).read_bytes()
    said = f"graded Of {len(files) - ('MACOSX' in str(files))} notebooks, '{counts}' was looked at"
    assert found["output"] == "graded" if len(files) == 1 else found["output"].startswith(said)
