"""Grading on a Dask cluster that loses workers, its scheduler or the disk: the same bytes in the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import psutil
import pytest
from distributed import LocalCluster

from labkit.grading import cluster, intake
from labkit.grading.grade import DEFAULT, grade
from labkit.grading.release import load, release
from labkit.paths import PACKAGE

WRONG = "def dice(p, t):\n    return (p & t).sum() / max((p | t).sum(), 1)  # of {number}"
SCHEDULER = """import time
from distributed import LocalCluster
if __name__ == "__main__":
    cluster = LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None)
    print(cluster.scheduler_address, flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def one_lab(jailed, tmp_path_factory):
    """The release of lab 00."""
    folder = tmp_path_factory.mktemp("one-lab")
    release(folder, ["00"])
    return folder


@pytest.fixture(scope="module")
def hand_ins(one_lab, tmp_path_factory):
    """Two hand-ins of lab 00, right and wrong, and one that is no notebook."""
    folder = tmp_path_factory.mktemp("in")
    notebook = json.loads((one_lab / "instructor" / "00_welcome.ipynb").read_text())
    answer = next(cell for cell in notebook["cells"] if cell["id"] == "dice")
    right = "".join(answer["source"])
    for number in range(2):
        answer["source"] = WRONG.format(number=number) if number % 2 else f"{right}\n# of {number}"
        (folder / f"student{number}.ipynb").write_text(json.dumps(notebook))
    (folder / "broken.ipynb").write_text("{")
    return folder


@pytest.fixture(scope="module")
def expected(one_lab, hand_ins, tmp_path_factory):
    """What is written here, without a cluster."""
    out = tmp_path_factory.mktemp("out")
    grade(hand_ins, one_lab, out, workers=1, progress=False)
    return contents(out)


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """A cluster with one worker, which comes back when it is killed."""
    scratch = str(tmp_path_factory.mktemp("scratch"))
    one = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**one, local_directory=scratch) as found:
        yield found


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 MB; mounting one takes root."""
    if os.geteuid():
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", disk], check=True)
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.fixture
def command():
    """`labkit grade` with these arguments; ended with the test."""
    running = []

    def start(*given) -> subprocess.Popen:
        running.append(
            subprocess.Popen(
                [sys.executable, "-m", "labkit", "grade", *map(str, given)],
                env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return running[-1]

    yield start
    for one in running:
        one.kill()
        one.wait()


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_writes_the_same_bytes(workers, one_lab, hand_ins, expected, tmp_path):
    first = workers.workers[0].pid
    killer = threading.Thread(target=lambda: wait_for(tmp_path) and os.kill(first, signal.SIGKILL))
    killer.start()
    grade(hand_ins, one_lab, tmp_path, progress=False, scheduler=workers.scheduler_address)
    killer.join()
    assert workers.workers[0].pid != first, "another worker took over"
    assert contents(tmp_path) == expected


@pytest.mark.slow
def test_a_cluster_that_loses_its_scheduler_writes_the_same_bytes(
    workers, one_lab, hand_ins, expected, command, tmp_path
):
    (tmp_path / "scheduler.py").write_text(SCHEDULER)
    other = subprocess.Popen([sys.executable, tmp_path / "scheduler.py"], stdout=subprocess.PIPE, text=True)
    address, out = other.stdout.readline().strip(), tmp_path / "out"
    running = command(hand_ins, one_lab, out, "--scheduler", address)
    assert wait_for(out)
    benches = [p for p in psutil.Process(other.pid).children(recursive=True) if "bench" in str(p.cmdline())]
    other.kill()
    other.wait()
    assert sentence(running) == (
        f"the Dask scheduler {address} was lost: run the same command again with one that runs; "
        "what is graded already stays."
    )
    assert benches and not psutil.wait_procs(benches, timeout=20)[1], "benches outlived their cluster"
    grade(hand_ins, one_lab, out, progress=False, scheduler=workers.scheduler_address)
    assert contents(out) == expected


@pytest.mark.slow
@pytest.mark.parametrize("where", ["here", "cluster"])
def test_a_full_disk_ends_in_a_sentence_and_then_in_the_same_bytes(
    where, small_disk, command, workers, one_lab, hand_ins, expected
):
    options = ["--workers", "1"] if where == "here" else ["--scheduler", workers.scheduler_address]
    out = small_disk / "out"
    running = command(hand_ins, one_lab, out, *options)
    assert wait_for(out)
    filler = small_disk / "filler"
    with open(filler, "wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(1 << 12))
    said = sentence(running)
    assert str(out) in said and "less than 16 MB left: make room and run the same command again" in said
    filler.unlink()
    again = command(hand_ins, one_lab, out, *options)
    assert again.wait() == 0, again.stderr.read()
    assert contents(out) == expected


def test_a_worker_says_what_it_lacks_and_a_cluster_grades_as_one_computer(
    workers, one_lab, hand_ins, expected, tmp_path
):
    address, found = workers.scheduler_address, load(one_lab)
    job = [("key", one) for one in intake.collect(hand_ins)[:1]]
    there = partial(cluster.results, job, found, DEFAULT, scheduler=address)
    with pytest.raises(cluster.Unfit, match="the worker tcp:.* cannot grade: .*missing holds no release"):
        next(there(release=tmp_path / "missing"))
    grade(hand_ins, one_lab, tmp_path / "out", progress=False, scheduler=address)
    assert contents(tmp_path / "out") == expected


def test_without_a_scheduler_nothing_is_graded(one_lab, hand_ins, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    with pytest.raises(OSError, match="no Dask scheduler answers at tcp://127.0.0.1:9: give its address"):
        grade(hand_ins, one_lab, tmp_path, progress=False, scheduler="tcp://127.0.0.1:9")
    assert not (tmp_path / "ledger.jsonl").exists()
    with pytest.raises(ValueError, match="not both"):
        grade(hand_ins, one_lab, tmp_path, workers=2, scheduler="tcp://127.0.0.1:9")


def sentence(running: subprocess.Popen) -> str:
    """What a command that ends with 2 has to say, which is all that it says but for its progress bar."""
    lines = running.communicate()[1].replace("\r", "\n").splitlines()
    said = [line for line in lines if line and "notebook" not in line.partition("|")[2]]
    assert running.returncode == 2 and len(said) == 1 and said[0].startswith("labkit: "), lines
    return said[0].removeprefix("labkit: ")


def wait_for(out, seconds: float = 120) -> bool:
    """Until something is graded."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (out / "ledger.jsonl").exists() or list((out / ".work" / "waiting").glob("*.json")):
            return True
        time.sleep(0.02)
    return False


def contents(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
