"""The cache gives back what was made, heals, and bears two processes at once."""

import os
import subprocess
import sys

import numpy as np
import pytest

from labkit.paths import cache_dir
from labkit.phantoms import cache as cache_module
from labkit.phantoms.cache import cached, fingerprint


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    return tmp_path


def counting(value=1):
    calls = []

    def make():
        calls.append(1)
        return {"a": np.full((3, 4), value, np.uint16)}

    return make, calls


def test_the_second_call_reads_what_the_first_made(folder):
    make, calls = counting()
    first, second = cached("x/a", make), cached("x/a", make)
    assert len(calls) == 1 and (folder / "x" / "a.npz").exists()
    assert second["a"].dtype == np.uint16 and (first["a"] == second["a"]).all()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:60],
        lambda data: b"",
        lambda data: b"no archive",
        lambda data: data[:70] + bytes(b ^ 255 for b in data[70:80]) + data[80:],
    ],
)
def test_a_broken_file_is_made_again(folder, damage):
    make, calls = counting()
    cached("a", make)
    path = folder / "a.npz"
    path.write_bytes(damage(path.read_bytes()))
    assert (cached("a", make)["a"] == 1).all() and len(calls) == 2
    cached("a", make)
    assert len(calls) == 2


def test_a_folder_that_cannot_be_written_costs_time_and_is_said_with_the_cure(folder, monkeypatch):
    (folder / "file").write_text("not a folder")
    monkeypatch.setenv("LABKIT_CACHE", str(folder / "file"))
    make, calls = counting()
    with pytest.warns(UserWarning, match="cannot be kept in .*Make room there, or set LABKIT_CACHE"):
        assert (cached("a", make)["a"] == 1).all() and (cached("a", make)["a"] == 1).all()
    assert len(calls) == 2


def test_an_error_while_making_leaves_nothing_behind(folder):
    def fail():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        cached("a", fail)
    assert list(folder.iterdir()) == []


def test_processes_that_make_the_same_thing_at_once_all_get_it_whole(folder):
    code = (
        "import numpy as np; from labkit.phantoms.cache import cached\n"
        "for i in range(40):\n"
        "    a = cached(f'n{i % 2}', lambda: {'a': np.arange(50000)})['a']\n"
        "    assert a[-1] == 49999"
    )
    running = [subprocess.Popen([sys.executable, "-c", code], env=os.environ) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert sorted(path.name for path in folder.iterdir()) == ["n0.npz", "n1.npz"]


def test_the_environment_names_the_folder_else_the_platform_does(folder, monkeypatch):
    import platformdirs

    assert cache_dir() == folder
    monkeypatch.delenv("LABKIT_CACHE")
    assert str(cache_dir()) == platformdirs.user_cache_dir("labkit")


def test_a_home_folder_in_the_environment_is_meant_where_data_are_kept(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("LABKIT_CACHE", "~/lk")
    cached("a", counting()[0])
    assert (folder / "lk" / "a.npz").is_file()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_others_on_a_shared_computer_may_read_the_cache(folder):
    mask = os.umask(0o022)
    try:
        cached("a", counting()[0])
    finally:
        os.umask(mask)
    assert (folder / "a.npz").stat().st_mode & 0o044 == 0o044


def test_the_fingerprint_changes_with_the_source(tmp_path):
    class Module:
        __file__ = str(tmp_path / "m.py")

    (tmp_path / "m.py").write_text("a = 1")
    before = fingerprint(Module, cache_module)
    (tmp_path / "m.py").write_text("a = 2")
    assert before != fingerprint(Module, cache_module)
