"""The process of a bench, started by worker.py: first the jail's own process, then what it needs itself.

Both take seconds to import torch, and so do it at the same time. What they import stays: looking for rubbish
in it would take a quarter of that time.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
from pathlib import Path

from labkit.grading.jail import Zygote

PDEATHSIG = 1


def main() -> None:
    """Run as `python -c ... FOLDER`, with the setup as the first line of stdin."""
    die_with_parent()
    gc.disable()
    folder = Path(sys.argv[1])
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever prints goes to the log
    setup = json.loads(sys.stdin.readline())
    os.chdir(folder)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    zygote = start_zygote(folder, setup)

    from labkit.grading.bench import Bench

    bench = Bench(folder, setup, zygote)
    print(json.dumps({"ready": True, "escapes": bench.escapes}), file=replies, flush=True)
    for line in sys.stdin:
        print(json.dumps(bench.grade(json.loads(line))), file=replies, flush=True)
    if bench.zygote:  # none after a jail that broke
        bench.zygote.close()


def start_zygote(folder: Path, setup: dict) -> Zygote:
    courses = folder / "courses"
    courses.mkdir(parents=True, exist_ok=True)
    return Zygote(folder, courses, setup["number"], setup["preload"])


def die_with_parent() -> None:
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
