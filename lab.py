#!/usr/bin/env python3
"""Set up the lab and start it. Needs Python 3.10 or newer, and nothing else.

    python3 lab.py                  set up, make your workbook, open JupyterLab in it
    python3 lab.py --no-browser     the same, but print the address instead of opening a browser
    python3 lab.py --port 9000      the same, on another port
    python3 lab.py run 02           execute one lab without a browser and print where the result lies
    python3 lab.py test             run every test; options go to pytest: python3 lab.py test -k dice
    python3 lab.py doctor           look for what is wrong on this computer, with the cure
    python3 lab.py train --help     what another labkit command does

For a class without internet, from a folder on a stick or a shared drive:

    python3 lab.py --fill-wheels DIR    where there is internet: put all packages into DIR
    python3 lab.py --wheels DIR         where there is none: set up from DIR, then start; give --wheels first

The first start installs about 170 packages into .venv, by uv where it can be had, otherwise by pip. Later
starts take seconds.
Deleting .venv undoes it. Your own work lies in workbook/ and is never overwritten.
"""

import argparse
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
LOCK = ROOT / "requirements.lock"
VENV = ROOT / ".venv"
STAMP = VENV / "labkit-is-set-up"  # written last: whoever reads it finds a finished .venv
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
UV = VENV / ("Scripts/uv.exe" if os.name == "nt" else "bin/uv")
LARGE = r"(Downloading|Using cached) .*\d *[MG]i?B\)"  # lines of pip and uv that are worth showing
COMMANDS = (
    *("start", "test", "check", "progress", "run", "doctor"),
    *(
        "submit",
        "build",
        "release",
        "demo-class",
        "collect",
        "grade",
        "regrade",
        "feedback",
        "export",
        "autograder",
    ),
    *("get", "train", "predict", "sweep", "report", "table", "deltas", "distill", "explorer"),
)

CAUSES = (  # what pip prints, what it means
    (r"No space left|Errno 28|not enough space|Disk quota", "the disk is full: make 8 GB free"),
    (
        r"NameResolution|new connection|NewConnection|ConnectTimeout|ProxyError|unreachable|getaddrinfo",
        "no connection while fetching {package}: connect to the internet (behind a proxy, set HTTPS_PROXY)",
    ),
    (
        r"ReadTimeout|Read timed out|IncompleteRead|ConnectionReset|Connection broken|DO NOT MATCH THE HASH",
        "the connection broke off while fetching {package}: nothing is lost",
    ),
    (
        r"No matching distribution found",
        "{package} was not found for Python {python} on {computer}: use "
        "64-bit Python 3.10 to 3.13 on Linux, Windows or an Apple-silicon Mac with macOS 14 or newer",
    ),
    (
        r"Failed building wheel|Failed to build|error: subprocess-exited",
        "{package} could not be built for Python {python} on {computer}: use Python 3.10 to 3.13, 64 bit",
    ),
    (
        r"Permission denied|Errno 13|Access is denied",
        "a file of {package} could not be written: close all programs that use .venv, and check who owns it",
    ),
)


def complaint(version):
    """One sentence when Python is too old, otherwise an empty string."""
    if version[:2] >= (3, 10):
        return ""
    return f"The lab needs Python 3.10 or newer, not {version[0]}.{version[1]}: start lab.py with such a one."


def parse(arguments):
    """Folder to fill, folder to set up from, arguments for the Python inside .venv; ends here on --help and
    mistakes, before any set-up."""
    parser = argparse.ArgumentParser(
        usage="python3 lab.py [COMMAND] [OPTIONS]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    parser.add_argument("--port", type=int, help="JupyterLab's port (8888, or the next one that is free)")
    parser.add_argument("--fill-wheels", type=Path, metavar="DIR", help="download all packages into DIR")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="set up from DIR, without a network")
    wheels = None
    if arguments[:1] == ["--wheels"]:
        wheels, arguments = parser.parse_args(arguments[:2]).wheels.resolve(), arguments[2:]
        if not any(wheels.glob("*.whl")):
            parser.error(f"{wheels} holds no packages: fill it with `python3 lab.py --fill-wheels {wheels}`")
    if not arguments or arguments[0].startswith("-"):
        options = parser.parse_args(arguments)
        if options.wheels:
            parser.error("--wheels comes first: python3 lab.py --wheels DIR --no-browser")
        return options.fill_wheels, wheels, ["-m", "labkit", "start", *arguments]
    if arguments[0] == "test":
        return None, wheels, ["-m", "pytest", *arguments[1:]]
    if arguments[0] in COMMANDS:
        return None, wheels, ["-m", "labkit", *arguments]
    parser.error(f"there is no command {arguments[0]!r}; there are: {', '.join(COMMANDS)}")


def fingerprint():
    """What a finished .venv depends on: the lock, the project file, this Python, this place."""
    parts = (
        LOCK.read_bytes(),
        (ROOT / "pyproject.toml").read_bytes(),
        platform.python_version().encode(),
        str(ROOT).encode(),
    )
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def works(code):
    """Whether .venv has a Python that runs this code."""
    try:
        return subprocess.run([PYTHON, "-c", code], cwd=VENV, capture_output=True).returncode == 0
    except OSError:
        return False


def explain(log):
    """Why pip failed and what to do, in one sentence from what it printed, followed by its own last word."""
    named = (
        r"No matching distribution found for (\S+)",
        r"Failed building wheel for (\S+)",
        r"Failed to build (\S+)",
        r"^Collecting (\S+)",
    )
    found = [re.findall(pattern, log, re.MULTILINE) for pattern in named]
    facts = {
        "package": next((names[-1] for names in found if names), "labkit"),
        "python": platform.python_version(),
        "computer": platform.system() + " " + platform.machine(),
    }
    cause = next((text for signs, text in CAUSES if re.search(signs, log)), "{package} was not installed")
    said = re.findall(r"^ *((?:ERROR|\w+Error): .+)", log, re.MULTILINE) or ["-"]
    return f"Set-up failed: {cause.format(**facts)}; then start again, it continues here.\n(pip: {said[-1]})"


def install(wheels, *arguments):
    """Install into .venv, by uv or, where that fails, by pip, which then says why."""
    if not by_uv(wheels, *arguments):
        source = ["--no-index", "--find-links", wheels] if wheels else []
        pip("install", *source, *arguments)


def by_uv(wheels, *arguments):
    """Install by uv, which downloads side by side and links what it has unpacked before; whether it could.

    uv is the user's own, or one wheel that pip puts into .venv first.
    """
    uv = shutil.which("uv") or UV
    if uv == UV and not UV.exists():
        source = ["--no-index", "--find-links", wheels] if wheels else []
        got, _ = run(
            [PYTHON, "-m", "pip", "install", "--retries=1", "--timeout=10", *source, "uv"], os.environ
        )
        if not got:
            return False
    options, environment = (["--no-index", "--find-links", wheels], {}) if wheels else settings_of_pip()
    command = [uv, "pip", "install", "--python", PYTHON, *options, *arguments]
    return run(command, {**os.environ, "UV_NO_CONFIG": "1", **environment})[0]


def settings_of_pip():
    """Where pip is told to look for packages, as options and variables of uv."""
    listed = subprocess.run([PYTHON, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    options, environment = (
        ["--index-strategy", "unsafe-best-match"],
        {},
    )  # the best of all places, as pip does
    for name, value in re.findall(r"^\S*\.([\w-]+)='(.*)'$", listed, re.MULTILINE):
        if name == "index-url":
            options += ["--default-index", value]
        elif name in ("extra-index-url", "find-links"):
            option = "--index" if name == "extra-index-url" else "--find-links"
            options += [word for place in value.replace("\\n", " ").split() for word in (option, place)]
        elif name == "no-index" and value.lower() in ("1", "true", "yes", "on"):
            options += ["--no-index"]
        elif name == "cert":
            environment["SSL_CERT_FILE"] = value
    return options, environment


def pip(command, *arguments):
    """Install, or another command of pip; on failure the program ends with the cause."""
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PIP_USER": "0"}
    command = [PYTHON, "-m", "pip", command, "--progress-bar=off", *arguments]
    done, log = run(command, environment)
    if not done:
        sys.exit(explain(log))


def run(command, environment):
    """Run pip or uv and show its large downloads; whether it succeeded, and all that it printed."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        errors="replace",
    )
    log = ""
    for line in process.stdout:
        log += line
        if re.search(LARGE, line):
            print("   ", line.split("/")[-1].replace("Downloading ", "").strip(), flush=True)
        elif line.startswith("Installing collected packages") and "," in line:
            print(f"    unpacking {line.count(',') + 1} packages, please wait", flush=True)
        elif re.match(r"(Prepared|Installed) \d+ packages? in ", line):  # uv's
            print("   ", line.strip().lower(), flush=True)
    return process.wait() == 0, log


def make_venv():
    """A .venv whose Python is this one and has pip; one that is there and works stays."""
    if works(f"import sys, pip; assert sys.version_info[:2] == {tuple(sys.version_info[:2])}"):
        return
    if importlib.util.find_spec("ensurepip") is None:
        sys.exit("Set-up failed: this Python lacks venv; on Debian or Ubuntu: apt install python3-venv.")
    subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)


def fill(folder):
    """Put what the lock needs on a computer like this one into a folder, as wheels."""
    make_venv()
    print(f"Filling {folder} with the packages of requirements.lock (gigabytes) ...", flush=True)
    pip("wheel", "--wheel-dir", folder, "-r", LOCK)
    run(
        [PYTHON, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, "uv"], os.environ
    )  # faster; not needed
    size = sum(path.stat().st_size for path in folder.glob("*.whl")) / 1e9
    count, python = len(list(folder.glob("*.whl"))), platform.python_version()
    print(f"{folder}: {count} packages, {size:.1f} GB, for Python {python} on a computer like this one.")
    print(f"There: python3 lab.py --wheels {folder}")


def set_up(wheels=None):
    """Make .venv what the lock asks for; quick when it is, and healing what an interruption left behind.

    From a folder of wheels nothing is fetched; another build of a locked version, such as a CPU-only torch
    (torch-2.0.0+cpu for 2.0.0), is taken when it lies there.
    """
    if STAMP.is_file() and STAMP.read_text() == fingerprint() and works("import labkit"):
        return
    print(f"Setting up {VENV} (the first time takes minutes) ...", flush=True)
    make_venv()
    if STAMP.exists():
        STAMP.unlink()
    for metadata in VENV.glob("[Ll]ib/**/site-packages/*.dist-info"):
        if not (metadata / "INSTALLER").exists():  # killed while this package was written
            shutil.rmtree(metadata)
    install(wheels, "-r", LOCK)
    install(wheels, "--no-deps", "--no-build-isolation", "-e", ROOT)
    unfinished = STAMP.with_suffix(".new")
    unfinished.write_text(fingerprint())
    os.replace(unfinished, STAMP)
    print("Set up.", flush=True)


def hand_over(arguments):
    """Go on as the Python inside .venv; Ctrl-C is its business from here."""
    if arguments[1] == "pytest":
        os.chdir(ROOT)
    if os.name == "posix":
        os.execv(PYTHON, [str(PYTHON), *arguments])
    signal.signal(signal.SIGINT, lambda *_: None)
    sys.exit(subprocess.call([PYTHON, *arguments]))


def main():
    if complaint(sys.version_info):
        sys.exit(complaint(sys.version_info))
    folder, wheels, arguments = parse(sys.argv[1:])
    try:
        if folder:
            return fill(folder)
        set_up(wheels)
    except KeyboardInterrupt:
        sys.exit("Interrupted; the next start continues here.")
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"Set-up failed: {error}; make sure that {ROOT} can be written and 8 GB are free.")
    hand_over(arguments)


if __name__ == "__main__":
    main()
