import hashlib
import shutil
import webbrowser
from dataclasses import FrozenInstanceError
from importlib import metadata
from pathlib import Path

import pytest

from labkit import doctor, paths


def seal(data: Path) -> None:
    """Write data/SHA256SUMS as `sha256sum` would."""
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(data).as_posix()}\n"
        for file in sorted(data.rglob("*"))
        if file.is_file()
    ]
    (data / "SHA256SUMS").write_text("".join(lines))


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    (folder / "backbones").mkdir(parents=True)
    (folder / "backbones" / "tiny.safetensors").write_bytes(bytes(range(200)))
    (folder / "backbones" / "README.md").write_text("how it was made")
    seal(folder)
    return folder


def lock(tmp_path, text):
    path = tmp_path / "requirements.lock"
    path.write_text(text)
    return path


def test_every_weight_that_the_kit_carries_has_its_sum():
    """`cd data && sha256sum backbones/*.safetensors deltas/*.safetensors > SHA256SUMS`."""
    listed = {line.split()[1] for line in (paths.data_dir() / "SHA256SUMS").read_text().splitlines()}
    there = {
        path.relative_to(paths.data_dir()).as_posix() for path in paths.data_dir().rglob("*.safetensors")
    }
    assert listed == there


def test_a_sound_set_up_has_no_failure(tmp_path, data):
    found = doctor.examine(
        lock=lock(tmp_path, f"numpy=={metadata.version('numpy')}\n"),
        data=data,
        workbook=tmp_path / "workbook",
        cache=tmp_path / "cache",
    )
    assert [one.name for one in found] == [
        "Python",
        "packages",
        "cores",
        "memory",
        "disk",
        "data",
        "workbook",
        "cache",
        "browser",
        "test browser",
    ]
    assert all(one.status in ("ok", "warn") for one in found), found
    assert all(one.cure for one in found if one.status != "ok")
    with pytest.raises(FrozenInstanceError):
        found[0].status = "ok"


def test_the_shipped_data_is_whole_and_every_weight_file_is_listed():
    assert doctor.bundled(paths.data_dir()).status == "ok", doctor.bundled(paths.data_dir())
    listed = (paths.data_dir() / "SHA256SUMS").read_text()
    assert all(file.name in listed for file in paths.data_dir().rglob("*.safetensors"))


def test_one_flipped_bit_in_the_data_is_found(data):
    assert doctor.bundled(data).status == "ok"
    weights = data / "backbones" / "tiny.safetensors"
    content = bytearray(weights.read_bytes())
    content[100] ^= 1
    weights.write_bytes(content)
    found = doctor.bundled(data)
    assert (found.status, found.detail) == ("fail", "tiny.safetensors is not the file it should be")
    assert "git checkout" in found.cure


def test_a_missing_data_file_and_a_missing_list_are_found(data):
    (data / "backbones" / "tiny.safetensors").unlink()
    assert doctor.bundled(data).detail == "tiny.safetensors is missing"
    shutil.rmtree(data)
    assert doctor.bundled(data).status == "fail"


def test_another_version_than_the_locks_is_a_warning_and_a_missing_package_a_failure(tmp_path):
    here = metadata.version("numpy")
    other = doctor.packages(lock(tmp_path, "# head\nnumpy==1.0\n"))
    assert (other.status, other.detail) == ("warn", f"not as in the lock: numpy {here} instead of 1.0")
    missing = doctor.packages(lock(tmp_path, f"numpy=={here}\nno-such-package==1.0\n"))
    assert (missing.status, missing.detail) == ("fail", "missing: no-such-package")
    assert "python3 lab.py" in missing.cure


def test_a_package_for_another_computer_is_not_missed(tmp_path):
    ours = f"numpy=={metadata.version('numpy')}"
    elsewhere = "else==1 ; sys_platform == 'nowhere'"
    assert doctor.packages(lock(tmp_path, f"{ours}\n{elsewhere}\n")).detail == "1 as in the lock"


def test_a_build_of_torch_without_cuda_is_the_same_version(tmp_path):
    release = metadata.version("torch").split("+")[0]
    assert doctor.packages(lock(tmp_path, f"torch=={release}\n")).status == "ok"


def test_a_file_where_the_workbook_should_be_is_found(tmp_path):
    (tmp_path / "workbook").write_text("not a folder")
    found = doctor.writable("workbook", tmp_path / "workbook")
    assert found.status == "fail" and "a file where a folder is needed" in found.cure


def test_a_cache_that_cannot_be_made_names_the_way_out(tmp_path):
    (tmp_path / "used").write_text("not a folder")
    assert doctor.writable("cache", tmp_path / "used" / "cache").status == "fail"


def test_looking_leaves_nothing_behind(tmp_path):
    assert doctor.writable("workbook", tmp_path / "new" / "workbook").status == "ok"
    assert list(tmp_path.iterdir()) == []


def test_without_any_browser_the_cures_are_named(tmp_path, monkeypatch):
    for variable in ("LABKIT_CHROMIUM", "PROGRAMFILES", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    if not Path("/Applications/Google Chrome.app").exists():
        found = doctor.test_browser()
        assert found.status == "warn" and "Chromium" in found.cure
    monkeypatch.setattr(webbrowser, "_tryorder", [])  # what webbrowser found at its only look
    assert "--no-browser" in doctor.default_browser().cure


def test_the_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    assert paths.cache_dir() == tmp_path
    monkeypatch.delenv("LABKIT_CACHE")
    assert paths.cache_dir().name.lower() == "labkit" or "labkit" in paths.cache_dir().parts
