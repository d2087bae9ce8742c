"""In the jail: a parent that has imported torch once and forks a kernel for every exercise.

bubblewrap has built the jail (read-only system, no network); the keeper runs in it, reads nothing of a
student's, and answers JSON lines on stdin. Each kernel gets namespaces of its own (processes, mounts,
network, IPC), its own empty folders, and loses every privilege before it is told of the first cell:

    keeper, which has imported nothing -- init, process 1 of the kernel's own space
    `-- zygote, which has imported torch -- kernel, which joins that space

A fork copies the tables of all memory that a process has: 30 ms for the zygote's, and as long at the end. So
only the kernel is forked from there.
"""

from __future__ import annotations

import contextlib
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
CHILD_SUBREAPER, NO_NEW_PRIVS, CAPBSET_DROP, SECCOMP, FILTER = 36, 38, 24, 22, 2
REQUEST = 1 << 16  # bytes that one may have
LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    zygote = os.fork()
    if zygote == 0:
        ours.close()
        for fd in (0, 1):
            os.dup2(os.open(os.devnull, os.O_RDWR), fd)
        with _or_exit():
            _zygote(json.loads(sys.argv[1]), theirs)
        os._exit(0)
    theirs.close()
    _keeper(ours, zygote)


def say(message: dict) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


# The keeper


def _keeper(zygote: socket.socket, number: int) -> None:
    """Until the grader is gone, or the zygote."""
    _check(LIBC.prctl(CHILD_SUBREAPER, 1), "reaper")  # of each process 1, whose own parent has ended
    ended = _ends_of_children()
    inits: dict[int, int] = {}  # number of a kernel -> process 1 of its space
    alone: set[int] = set()  # of those, the ones whose space was not built, so that no kernel will end
    pending = b""
    while True:
        ready, _, _ = select.select([0, ended, zygote], [], [])
        if zygote in ready:
            data = zygote.recv(REQUEST)
            if not data:
                return
            message = json.loads(data)
            if "exit" in message and message["number"] in inits:
                os.kill(inits[message["number"]], signal.SIGKILL)  # and all that the kernel started
            say(message)
        if ended in ready:
            for pid, status in _ended(ended):
                if pid == number:
                    return
                kernel = next(one for one, init in inits.items() if init == pid)
                del inits[kernel]
                if kernel in alone:
                    alone.remove(kernel)
                    say({"exit": status, "number": kernel})
        if 0 in ready:
            data = os.read(0, REQUEST)
            if not data:
                return
            *lines, pending = (pending + data).split(b"\n")
            for line in map(json.loads, lines):
                if line["do"] == "start":
                    init, door = _space(line)
                    inits[line["number"]] = init
                    if door.recv(1):
                        request = json.dumps({**line, "init": init}).encode()
                        socket.send_fds(zygote, [request], [door.fileno()])
                    else:
                        alone.add(line["number"])
                    door.close()
                elif line["do"] == "kill":
                    for pid in inits.values():
                        os.kill(pid, signal.SIGKILL)
                say({"did": line["do"], "number": line["number"]})


def _space(request: dict) -> tuple[int, socket.socket]:
    """Process 1 of a new space, and the kernel's end of the door, where it says a byte when that is built.

    Whoever has made a space for its children can make no other, so a process does that which then ends.
    """
    inside, outside = socket.socketpair()
    told, tell = os.pipe()
    between = os.fork()
    if between == 0:
        with _or_exit():
            _check(LIBC.unshare(CLONE["pid"]), "unshare")
            if pid := os.fork():
                os.write(tell, str(pid).encode())
                os._exit(0)
            null = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1):
                os.dup2(null, fd)
            _close_all_but(inside)
            _init(request, inside)
    os.waitpid(between, 0)
    inside.close()
    os.close(tell)
    pid = os.read(told, 32)
    os.close(told)
    if not pid:
        raise OSError("no new space of processes")
    return int(pid), outside


def _init(request: dict, door: socket.socket) -> None:
    """Process 1: builds the kernel's view, closes the door behind its sockets, reaps."""
    _check(LIBC.unshare(sum(CLONE.values()) - CLONE["pid"]), "unshare")
    _mounts(request)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    door.send(b"!")
    if door.recv(1):  # its sockets are bound: from here on it can write only into its own small folders
        _mount(None, request["sockets"], None, REMOUNT | BIND | RDONLY | NOSUID | NODEV | NOEXEC)
        door.send(b"!")
    door.close()
    while True:
        signal.sigwait({signal.SIGCHLD})
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


# The zygote


def _zygote(preload: list[str], keeper: socket.socket) -> None:
    """Until the keeper is gone."""
    gc.disable()  # what is imported stays: looking for rubbish in it takes a quarter of the time
    for name in preload:
        importlib.import_module(name)
    gc.freeze()  # kernels share what is here for as long as nobody counts it again
    gc.enable()
    ended = _ends_of_children()
    kernels: dict[int, int] = {}  # process -> number
    keeper.send(json.dumps({"ready": True}).encode())
    while True:
        ready, _, _ = select.select([keeper, ended], [], [])
        if ended in ready:
            for pid, status in _ended(ended):
                keeper.send(json.dumps({"exit": status, "number": kernels.pop(pid)}).encode())
        if keeper in ready:
            data, doors, _, _ = socket.recv_fds(keeper, REQUEST, 1)
            if not data:
                return
            request, door = json.loads(data), socket.socket(fileno=doors[0])
            try:
                kernels[_fork(request, door)] = request["number"]
            except OSError as error:  # its space is gone already
                os.write(2, f"jail: {error}\n".encode())
                keeper.send(json.dumps({"exit": 70, "number": request["number"]}).encode())
            door.close()


def _fork(request: dict, door: socket.socket) -> int:
    """A kernel in the space whose process 1 is `request["init"]`."""
    folder = f"/proc/{request['init']}/ns"
    space = {name: os.open(f"{folder}/{name}", os.O_RDONLY) for name in ("pid", "net", "ipc", "uts", "mnt")}
    pid = -1
    try:
        _check(LIBC.setns(space["pid"], CLONE["pid"]), "space of processes")  # of those forked from now on
        pid = os.fork()
    finally:
        if pid:
            for fd in space.values():
                os.close(fd)
    if pid:
        return pid
    with _or_exit():
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        del space["pid"]
        for name, fd in space.items():  # mounts at last: what lies at /proc is another space's from then on
            _check(LIBC.setns(fd, 0), f"space {name}")
        _kernel(request, door)
        os._exit(0)


# Both


@contextlib.contextmanager
def _or_exit():
    """What fails in a new process ends it: none goes back into the loop of its parent."""
    try:
        yield
    except BaseException as error:
        os.write(2, f"jail: {type(error).__name__} {error}\n".encode())
        os._exit(70)


def _ends_of_children() -> int:
    """A pipe that can be read when a child has ended."""
    out, into = os.pipe()
    os.set_blocking(into, False)
    signal.set_wakeup_fd(into)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return out


def _ended(pipe: int):
    """Children that have ended, and with what."""
    os.read(pipe, 4096)
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            code = os.waitstatus_to_exitcode(status)
            yield pid, code if code >= 0 else 128 - code


def _close_all_but(one: socket.socket) -> None:
    os.closerange(3, one.fileno())
    os.closerange(one.fileno() + 1, 1024)


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
    _close_all_but(door)
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
