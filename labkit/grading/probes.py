"""Try to break out of the jail, with the means that a student has, before one is let in."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import tempfile
from pathlib import Path

from labkit.grading import seccomp
from labkit.grading.jail import JailBroken, Limits, Zygote, course, masks, unusable
from labkit.grading.watch import Fault

PROBE = """
import ctypes, json, os, resource, socket, sys
found = []
libc = ctypes.CDLL(None, use_errno=True)


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
def call(number, error, first=0):
    return libc.syscall(number, first, 0, 0, 0, 0) != -1 or ctypes.get_errno() != error


for name, (number, error) in CALLS.items():
    can(f"could call {name}", lambda: call(number, error))
THREAD, NEWUSER, EPERM = 0x10000, 0x10000000, 1  # the two are no valid flags of clone, if it looks at them
can("could make a user namespace", lambda: call(CLONE, EPERM, THREAD | NEWUSER))
for name in ("AF_PACKET", "AF_ALG", "AF_VSOCK"):
    can(f"could make a socket of {name}", lambda: socket.socket(getattr(socket, name), socket.SOCK_RAW))
size = (socket.SOL_SOCKET, socket.SO_SNDBUF)
with socket.socket(socket.AF_UNIX) as one:
    before = one.getsockopt(*size)
    one.setsockopt(*size, before // 4)
    can("could change what a socket holds", lambda: one.getsockopt(*size) != before)
print(json.dumps(found))
"""
MEMORY_OF_MANY = """
import mmap, os, time
for _ in range(5):
    if os.fork() == 0:
        block = mmap.mmap(-1, 256 << 20)  # shared, so in no process's private memory
        for _ in range(256):
            block.write(bytes(1 << 20))
        time.sleep(60)
time.sleep(60)
"""
NOBODYS_CHILDREN = """
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Linux then forgets what a child used
while True:
    if os.fork() == 0:
        end = time.monotonic() + 0.1
        while time.monotonic() < end:
            pass
        os._exit(0)
    time.sleep(0.11)
"""
CHATTER = """
import time
while True:
    print(end=".", flush=True)
    time.sleep(0.05)
"""
OVERRUNS = (  # what a student may try, the limits it meets, the Fault that must end it
    ("memory of several processes", MEMORY_OF_MANY, Limits(memory=1 << 30, wall=20), "memory"),
    ("processor time of children nobody waits for", NOBODYS_CHILDREN, Limits(cpu=1, wall=20), "processor"),
    ("time of a kernel that keeps talking", CHATTER, Limits(wall=1), "did not end"),
)


def escapes(zygote: Zygote, courses: Path, limits: Limits, outside: list[str]) -> list[str]:
    """What a kernel of this jail could do and must not, each as a short sentence; empty when it holds.

    `outside` names paths of ours that must not exist in there. JailBroken when no kernel starts.
    """
    calls, clone = seccomp.denied(), seccomp.CLONE[list(seccomp.ARCHITECTURES).index(platform.machine())]
    values = {"OUTSIDE": outside, "SOCKETS": [f"/sockets/{zygote.count + 1}"], "GRADER": os.getpid()}
    values |= {"CALLS": calls, "CLONE": clone}
    setting = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    try:
        return json.loads(_said(zygote, courses, limits, setting + PROBE).splitlines()[-1])
    except (Fault, ValueError, IndexError) as error:
        raise JailBroken(f"the probes of the jail did not run: {error}") from error


def overruns(zygote: Zygote, courses: Path) -> list[str]:
    """The limits that did not hold in this jail, each as a short sentence."""
    found = []
    for what, source, limits, sign in OVERRUNS:
        try:
            _said(zygote, courses, limits, source)
            found.append(f"was not stopped: {what}")
        except Fault as fault:
            if sign not in str(fault):
                found.append(f"was stopped for another reason than the {what}: {fault}")
    return found


def _said(zygote: Zygote, courses: Path, limits: Limits, source: str) -> str:
    """What some code prints in a kernel of its own; Fault when that is stopped."""
    from labkit.grading.kernel import JailedKernel

    kernel = JailedKernel(zygote, course(courses, []), masks(()), limits)
    try:
        message = kernel.execute_cell_input(source, allow_stdin=False)
        kernel.await_reply(message)
        text = ""
        while True:
            got = kernel.get_message("iopub", timeout=5)
            if got["parent_header"].get("msg_id") == message:
                if got["msg_type"] == "stream":
                    text += got["content"]["text"]
                if got["content"].get("execution_state") == "idle":
                    return text
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
            found = escapes(zygote, folder / "courses", Limits(), [])
            found += overruns(zygote, folder / "courses")
            return [f"a probe inside the jail {what}" for what in found]
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
