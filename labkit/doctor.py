"""What may be wrong on this computer, one finding per line, each with its cure."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
import webbrowser
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

INSTALL = "run `python3 lab.py`, or `pip install -r requirements.lock` where you do without it"
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
GB = 1e9


@dataclass(frozen=True)
class Finding:
    """One thing looked at: `status` is "ok", "warn" (the lab runs, something does not) or "fail"."""

    name: str
    status: str
    detail: str
    cure: str = ""


def examine(lock: Path, data: Path, workbook: Path, cache: Path) -> list[Finding]:
    """Everything that `labkit doctor` reports."""
    return [
        python(),
        packages(lock),
        cores(),
        memory(),
        disk(cache),
        bundled(data),
        writable("workbook", workbook),
        writable("cache", cache),
        default_browser(),
        test_browser(),
    ]


def python() -> Finding:
    """This Python against the versions that the lock is for."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info >= (3, 14):
        return Finding("Python", "warn", f"{version}, newer than the lock", "use Python 3.10 to 3.13")
    return Finding("Python", "ok", version)


def packages(lock: Path) -> Finding:
    """Installed versions against the lock; a local suffix as in 2.14.1+cpu counts as the same version."""
    from packaging.requirements import Requirement

    if not lock.is_file():
        return Finding("packages", "warn", f"no {lock} to compare with", "run labkit from a checkout")
    lines = (line.split("#")[0].strip() for line in lock.read_text().splitlines())
    asked = [Requirement(line) for line in lines if line]
    asked = [one for one in asked if one.marker is None or one.marker.evaluate()]
    missing, other = [], []
    for one in asked:
        try:
            version = installed(one.name)
        except metadata.PackageNotFoundError:
            missing.append(one.name)
        else:
            if not one.specifier.contains(version, prereleases=True):
                other.append(f"{one.name} {version} instead of {str(one.specifier).lstrip('=')}")
    if missing:
        return Finding("packages", "fail", f"missing: {', '.join(missing)}", INSTALL)
    if other:
        return Finding("packages", "warn", f"not as in the lock: {', '.join(other)}", INSTALL)
    return Finding("packages", "ok", f"{len(asked)} as in the lock")


def installed(name: str) -> str:
    """The version of an installed package; `metadata.version` would parse its whole README for it."""
    found = metadata.distribution(name)
    line = re.search(r"^Version: *(\S+)", found.read_text("METADATA") or "", re.MULTILINE)
    return line[1] if line else found.version


def cores() -> Finding:
    """Processor cores that this process may use."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if count < 2:
        return Finding("cores", "warn", "1", "expect training cells to take twice their minute")
    return Finding("cores", "ok", str(count))


def memory() -> Finding:
    """Free memory in GB."""
    import psutil

    free = psutil.virtual_memory().available / GB
    detail = f"{free:.1f} GB free"
    if free < 1.5:
        return Finding("memory", "fail", detail, "close other programs until 3 GB are free")
    return Finding("memory", *(("ok", detail) if free >= 3 else ("warn", detail, "close other programs")))


def disk(folder: Path) -> Finding:
    """Free space in GB where a folder lies or will lie."""
    free = shutil.disk_usage(_existing(folder)).free / GB
    detail = f"{free:.1f} GB free for {folder}"
    if free < 0.2:
        return Finding("disk", "fail", detail, "delete what you do not need until 2 GB are free")
    return Finding("disk", *(("ok", detail) if free >= 2 else ("warn", detail, "make room: 2 GB are enough")))


def bundled(data: Path) -> Finding:
    """The files under data/ against data/SHA256SUMS (lines as `sha256sum` writes them)."""
    cure = "restore them with `git checkout -- data`"
    sums = data / "SHA256SUMS"
    if not sums.is_file():
        return Finding("data", "fail", f"{sums} is missing", cure)
    wrong = []
    lines = [line.split(maxsplit=1) for line in sums.read_text().splitlines() if line.strip()]
    for digest, name in lines:
        file = data / name.lstrip("*")
        if not file.is_file():
            wrong.append(f"{file.name} is missing")
        elif hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            wrong.append(f"{file.name} is not the file it should be")
    if wrong:
        return Finding("data", "fail", ", ".join(wrong), cure)
    return Finding("data", "ok", f"{len(lines)} files unchanged")


def writable(name: str, folder: Path) -> Finding:
    """Whether a file can be written in `folder`, or where `folder` would be made; leaves nothing behind."""
    place = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"labkit")
    except OSError as error:
        return Finding(name, "fail", f"{place} cannot be written ({error.strerror})", _way_out(name, place))
    return Finding(name, "ok", str(folder))


def default_browser() -> Finding:
    """The browser that JupyterLab opens in."""
    try:
        return Finding("browser", "ok", f"JupyterLab opens in {webbrowser.get().name}")
    except webbrowser.Error:
        return Finding(
            "browser",
            "warn",
            "none found to open JupyterLab in",
            "start with --no-browser and open the printed address in any browser",
        )


def chromium() -> str | None:
    """The Chromium that the browser tests drive: the environment's LABKIT_CHROMIUM, or one installed."""
    installed = (
        Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"),
        *(
            Path(os.environ.get(place, "/"), "Google/Chrome/Application/chrome.exe")
            for place in ("PROGRAMFILES", "LOCALAPPDATA")
        ),
    )
    return (
        os.environ.get("LABKIT_CHROMIUM")
        or next(filter(None, map(shutil.which, CHROMIUMS)), None)
        or next((str(path) for path in installed if path.is_file()), None)
    )


def test_browser() -> Finding:
    """The Chromium that browser tests drive."""
    found = chromium()
    if found:
        return Finding("test browser", "ok", found)
    return Finding(
        "test browser",
        "warn",
        "no Chromium found: the browser tests will be skipped",
        "install Chromium or Google Chrome, or set LABKIT_CHROMIUM to its path",
    )


def _existing(folder: Path) -> Path:
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _way_out(name: str, place: Path) -> str:
    if not place.is_dir():
        return f"rename {place}: it is a file where a folder is needed"
    if name == "cache":
        return f"make {place} writable, or set LABKIT_CACHE to a folder of yours"
    return f"make {place} writable, or choose another folder with --workbook"
