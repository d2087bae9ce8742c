"""In the jail: a parent that has imported torch once and forks a kernel for every exercise.

bubblewrap has built the jail (read-only system, no network); this process runs in it, reads nothing of a
student's, and answers JSON lines on stdin. Each kernel gets namespaces of its own (processes, mounts,
network, IPC), its own empty folders, and loses every privilege before it is told of the first cell:

    zygote -- warden (waits)  -- init, process 1 of the kernel's own space -- kernel, without privileges
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import struct
import sys

CLONE = {"mount": 0x20000, "uts": 0x4000000, "ipc": 0x8000000, "pid": 0x20000000, "net": 0x40000000}
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, REC, PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
PDEATHSIG, NO_NEW_PRIVS, CAPBSET_DROP, SECCOMP, FILTER = 1, 38, 24, 22, 2
LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    preload = json.loads(sys.argv[1])
    gc.disable()  # what is imported stays: looking for rubbish in it takes a quarter of the time
    for name in preload:
        importlib.import_module(name)
    gc.freeze()  # kernels share what is here for as long as nobody counts it again
    gc.enable()
    wake_out, wake_in = os.pipe()
    os.set_blocking(wake_in, False)
    signal.set_wakeup_fd(wake_in)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    kernels: dict[int, int] = {}  # process -> number
    say({"ready": True})
    pending = b""
    while True:
        ready, _, _ = select.select([0, wake_out], [], [])
        if wake_out in ready:
            os.read(wake_out, 4096)
            while kernels:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                say({"exit": os.waitstatus_to_exitcode(status), "number": kernels.pop(pid)})
        if 0 in ready:
            data = os.read(0, 1 << 16)
            if not data:
                return
            *lines, pending = (pending + data).split(b"\n")
            for line in map(json.loads, lines):
                if line["do"] == "start":
                    kernels[_fork(line)] = line["number"]
                elif line["do"] == "kill":
                    for pid in kernels:
                        os.kill(pid, signal.SIGTERM)
                say({"did": line["do"], "number": line["number"]})


def say(message: dict) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


def _fork(request: dict) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _warden(request)
    except BaseException as error:
        os.write(2, f"jail: {error}\n".encode())
    os._exit(70)


def _warden(request: dict) -> None:
    _check(LIBC.unshare(sum(CLONE.values())), "unshare")
    init = os.fork()
    if init == 0:
        try:
            _check(LIBC.prctl(PDEATHSIG, signal.SIGKILL), "death signal")
            _init(request)
        except BaseException as error:
            os.write(2, f"jail: {type(error).__name__} {error}\n".encode())
        os._exit(70)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(init, signal.SIGKILL))
    _, status = os.waitpid(init, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _init(request: dict) -> None:
    """Process 1: builds the kernel's view, starts it, closes the door behind its sockets, reaps."""
    _mounts(request)
    ours, theirs = socket.socketpair()
    kernel = os.fork()
    if kernel == 0:
        ours.close()
        _kernel(request, theirs)
        os._exit(0)
    theirs.close()
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    if ours.recv(1):  # its sockets are bound: from here on it can write only into its own small folders
        _mount(None, request["sockets"], None, REMOUNT | BIND | RDONLY | NOSUID | NODEV | NOEXEC)
        ours.send(b"!")
    while True:
        pid, status = os.wait()
        if pid == kernel:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def _mounts(request: dict) -> None:
    _mount(None, "/", None, REC | PRIVATE)
    _mount("proc", "/proc", "proc", NOSUID | NODEV | NOEXEC)
    size = f"mode=1777,size={request['files']},nr_inodes={request['files'] >> 12}"
    for folder in ("/box", "/tmp", "/dev/shm"):
        _mount("none", folder, "tmpfs", NOSUID | NODEV, size)
    _mount(request["course"], "/course", None, BIND)
    for hidden in request["hide"]:
        _mount(f"{request['course']}/away", hidden, None, BIND)
    _mount("none", "/courses", "tmpfs", RDONLY | NOSUID | NODEV | NOEXEC, "size=4k")
    others = os.path.dirname(request["sockets"])
    here = os.open(request["sockets"], os.O_PATH)
    _mount("none", others, "tmpfs", NOSUID | NODEV | NOEXEC, "size=4k,mode=755")
    os.mkdir(request["sockets"])
    _mount(f"/proc/self/fd/{here}", request["sockets"], None, BIND)
    os.close(here)
    _mount(None, others, None, REMOUNT | BIND | RDONLY | NOSUID | NODEV | NOEXEC)
    with open("/tmp/kernel.json", "w") as file:
        json.dump(request["connection"], file)
    os.chmod("/tmp/kernel.json", 0o644)


def _kernel(request: dict, door: socket.socket) -> None:
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):  # stderr, our log, only until it is ready
        os.dup2(null, fd)
    os.closerange(3, door.fileno())
    os.closerange(door.fileno() + 1, 1024)
    _renounce(request)
    os.chdir("/box")
    sys.path[:0] = ["/agent", "/course"]
    from ipykernel.kernelapp import IPKernelApp

    app = IPKernelApp.instance()
    app.initialize(["-f", "/tmp/kernel.json", "--HistoryManager.enabled=False", "--IPKernelApp.log_level=50"])
    door.send(b"!")
    door.recv(1)
    door.close()
    os.dup2(0, 2)
    app.start()


def _renounce(request: dict) -> None:
    """No privilege, no way to get one, and limits; raises when one of these cannot be had."""
    for capability in range(64):
        if LIBC.prctl(CAPBSET_DROP, capability, 0, 0, 0):
            break  # the last one of this Linux
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(request["user"], request["user"], request["user"])
        os.setresuid(request["user"], request["user"], request["user"])
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    _check(LIBC.capset(header, (ctypes.c_uint32 * 6)()), "capset")
    _check(LIBC.prctl(NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    mapped = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    for limit, value in (
        (resource.RLIMIT_AS, mapped + request["memory"]),
        (resource.RLIMIT_FSIZE, request["files"]),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_NPROC, request["processes"]),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, request["cpu"] + 5),  # per process; the trusted side counts them all
    ):
        resource.setrlimit(limit, (value, value))
    _filter(bytes.fromhex(request["seccomp"]))


def _filter(code: bytes) -> None:
    """From here on the system calls that seccomp.py names are refused, in this process and all it starts."""
    instructions = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(instructions))  # struct sock_fprog
    _check(LIBC.prctl(SECCOMP, FILTER, ctypes.c_char_p(program), 0, 0), "filter of system calls")


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    a, b, c, d = (None if text is None else os.fsencode(text) for text in (source, target, kind, options))
    _check(LIBC.mount(a, b, c, flags, d), f"mount {target}")


def _check(failed: int, what: str) -> None:
    if failed:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main()
