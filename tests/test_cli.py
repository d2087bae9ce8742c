"""The `labkit` command as a user meets it: in a process of its own."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from labkit import threads
from labkit.cli import main

LABKIT = [sys.executable, "-m", "labkit"]


def labkit(*arguments, **more):
    return subprocess.run([*LABKIT, *map(str, arguments)], capture_output=True, text=True, **more)


def fails_in_one_sentence(answer, said):
    assert answer.returncode == 2
    assert "Traceback" not in answer.stderr
    last = answer.stderr.strip().splitlines()[-1]
    assert said in last, answer.stderr


def fetch(address):
    """A page of a server that has just said its address and may not listen yet."""
    for _ in range(100):
        try:
            with urllib.request.urlopen(address, timeout=60) as page:
                return page.read()
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError):
                raise
            time.sleep(0.2)
    raise TimeoutError(address)


def test_help_lists_every_command_with_examples():
    text = labkit("--help").stdout
    for command in ("start", "doctor", "build", "run", "train", "distill"):
        assert re.search(rf"^  {command} ", text, re.MULTILINE)
    assert "labkit run 02" in text and "labkit start --no-browser" in text


@pytest.mark.parametrize(
    "own, inherited",
    [
        ({}, f"{threads.SPINS} None"),
        ({"GOMP_SPINCOUNT": "7"}, "7 None"),
        ({"OMP_WAIT_POLICY": "active"}, "None active"),
    ],
)
def test_what_a_command_starts_waits_briefly_for_its_threads_unless_the_user_said_how(own, inherited):
    child = "import os; print(os.environ.get('GOMP_SPINCOUNT'), os.environ.get('OMP_WAIT_POLICY'))"
    command = (
        "import atexit, subprocess, sys; from labkit.cli import main; sys.argv[1:] = ['--help']; "
        f"atexit.register(subprocess.run, [sys.executable, '-c', {child!r}]); main()"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP_", "OMP_"))}
    said = subprocess.run([sys.executable, "-c", command], env=clean | own, capture_output=True, text=True)
    assert said.stdout.splitlines()[-1] == inherited, said.stderr


@pytest.mark.parametrize(
    "command, option",
    [
        ("start", "--no-browser"),
        ("doctor", "--workbook"),
        ("build", "names"),
        ("run", "--out"),
        ("train", "--seconds"),
        ("distill", "--teacher"),
    ],
)
def test_every_command_explains_itself(command, option):
    assert option.lower() in labkit(command, "--help").stdout.lower()


def test_help_does_not_wait_for_torch_or_jupyter():
    code = "import sys, labkit.cli; print({'torch', 'numpy', 'jupyterlab', 'IPython'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_mistakes_are_one_sentence_and_exit_code_2(tmp_path, monkeypatch, capsys):
    fails_in_one_sentence(labkit("run", "no-such-lab"), "no-such-lab")

    def here(*arguments):
        """The same in this process, which has imported what commands need."""
        monkeypatch.setattr(sys, "argv", ["labkit", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return subprocess.CompletedProcess(arguments, end.value.code, *capsys.readouterr())

    fails_in_one_sentence(here("start", "--port", "99999"), "--port")
    fails_in_one_sentence(here("train", "--data", tmp_path, "--steps", "5", "--seconds", "5"), "not both")
    (tmp_path / "mine.safetensors").write_text("mine")
    answer = here("train", "--data", tmp_path, "--out", tmp_path / "mine.safetensors")
    fails_in_one_sentence(answer, "mine.safetensors: name a new folder")
    assert (tmp_path / "mine.safetensors").read_text() == "mine"
    fails_in_one_sentence(here("train", "--smoke", "--out", tmp_path / "new.safetensors"), "--smoke takes")
    fails_in_one_sentence(
        here(
            "distill",
            "--images",
            tmp_path / "none.npz",
            "--teacher",
            tmp_path / "none",
            "--out",
            tmp_path / "out",
        ),
        "none.npz",
    )


def test_doctor_prints_a_cure_under_what_is_wrong_and_exits_with_1(tmp_path):
    (tmp_path / "workbook").write_text("a file in the way")
    answer = labkit("doctor", "--workbook", tmp_path / "workbook")
    assert answer.returncode == 1
    lines = answer.stdout.splitlines()
    wrong = next(n for n, line in enumerate(lines) if line.startswith("fail  workbook"))
    assert "-> rename" in lines[wrong + 1]


def test_start_serves_a_lab_beside_one_that_holds_the_port(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        server = subprocess.Popen(
            [
                *LABKIT,
                "start",
                "--no-browser",
                "--port",
                str(taken),
                "--workbook",
                str(tmp_path / "workbook"),
            ],
            stdin=subprocess.DEVNULL,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            said = ""
            while "token=" not in said:
                line = server.stdout.readline()
                assert line, f"the server ended:\n{said}"
                said += line
            address = re.search(r"http://\S+", said).group()
            assert b"jupyter-config-data" in fetch(address)
        finally:
            server.terminate()
            server.communicate(timeout=60)
    assert f"Port {taken} is taken" in said and f":{taken}/" not in address
    assert (tmp_path / "workbook").is_dir()
