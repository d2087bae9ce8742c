"""Try to break out of the jail, with the means that a student has, before one is let in."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path

from labkit.grading.jail import JailBroken, Limits, Zygote, course, masks, unusable

PROBE = """
import json, os, resource, socket, sys
found = []


def can(what, attempt):
    try:
        if attempt() is not False:
            found.append(what)
    except (OSError, ValueError):
        pass


def write(folder):
    with open(os.path.join(folder, "probe"), "w") as file:
        file.write("x")
    os.remove(os.path.join(folder, "probe"))


status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
can("reached the network", lambda: socket.create_connection(("1.1.1.1", 53), 1))
can("has a network", lambda: any(name != "lo" for _, name in socket.if_nameindex()))
for path in OUTSIDE + ["/etc/passwd", "/etc/shadow", "/home", "/var"]:
    can(f"saw {path}", lambda: os.path.exists(path))
ours = ["/course", "/courses", "/agent", "/labkit-data", "/sockets", *SOCKETS]
for folder in ["/", "/usr", "/dev", *ours, sys.prefix]:
    can(f"wrote into {folder}", lambda: write(folder))
can("saw processes outside", lambda: sum(name.isdigit() for name in os.listdir("/proc")) > 2)
can("signalled the grader", lambda: os.kill(GRADER, 0) if GRADER > 2 else False)
can("is root", lambda: os.getuid() == 0 or os.setuid(0))
capabilities = ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")
can("has privileges", lambda: any(int(status[name], 16) for name in capabilities))
can("can gain privileges", lambda: status["NoNewPrivs"].strip() != "1")
for limit in ("AS", "FSIZE", "NPROC", "NOFILE", "CPU"):
    can(f"has no limit {limit}", lambda: resource.getrlimit(getattr(resource, "RLIMIT_" + limit))[1] < 0)
print(json.dumps(found))
"""


def escapes(zygote: Zygote, courses: Path, limits: Limits, outside: list[str]) -> list[str]:
    """What a kernel of this jail could do and must not, each as a short sentence; empty when it holds.

    `outside` names paths of ours that must not exist in there. JailBroken when no kernel starts.
    """
    from labkit.grading.kernel import Fault, JailedKernel

    kernel = JailedKernel(zygote, course(courses, []), masks(()), limits)
    sockets = [f"/sockets/{zygote.count}"]
    values = f"OUTSIDE, SOCKETS, GRADER = {outside!r}, {sockets!r}, {os.getpid()}\n"
    try:
        message = kernel.execute_cell_input(values + PROBE, allow_stdin=False)
        kernel.await_reply(message)
        text = ""
        while True:
            got = kernel.get_message("iopub", timeout=5)
            if got["parent_header"].get("msg_id") == message:
                if got["msg_type"] == "stream":
                    text += got["content"]["text"]
                if got["content"].get("execution_state") == "idle":
                    break
        return json.loads(text.splitlines()[-1])
    except (Fault, ValueError, IndexError) as error:
        raise JailBroken(f"the probes of the jail did not run: {error}") from error
    finally:
        kernel.stop()


def report() -> list[str]:
    """For `labkit doctor --sandbox`: why students' code cannot be graded here; empty if it can."""
    if why := unusable():
        return [why]
    with tempfile.TemporaryDirectory(prefix="labkit-") as name, _inside(Path(name)) as folder:
        zygote = None
        try:
            (folder / "courses").mkdir()
            course(folder / "courses", [])
            zygote = Zygote(folder, folder / "courses", preload=("ipykernel.kernelapp",)).ready()
            return [
                f"a probe inside the jail {what}"
                for what in escapes(zygote, folder / "courses", Limits(), [])
            ]
        except JailBroken as error:
            return [str(error)]
        finally:
            if zygote:
                zygote.close()


@contextlib.contextmanager
def _inside(folder: Path):
    """Work in a folder: the paths of sockets are relative to it."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield folder.resolve()
    finally:
        os.chdir(before)
