"""The jail: bubblewrap around the zygote, the course as a student may see it, and the limits."""

from __future__ import annotations

import ast
import contextlib
import fnmatch
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from labkit import paths
from labkit.grading import seccomp

HERE = Path(__file__).resolve().parent
START_SECONDS = 120
KERNEL_THREADS = 32  # Linux counts threads as processes
USER = 61_000  # as root, kernels run under this number plus that of their bench
PRELOAD = (  # what a kernel would import at its start or at a first optimizer (torch._dynamo)
    *("torch", "torch.nn.functional", "torch._dynamo", "numpy", "ipykernel.kernelapp", "ipykernel.debugger"),
    *(
        "IPython.core.completer",
        "IPython.core.completerlib",
        "IPython.core.debugger",
        "IPython.core.oinspect",
    ),
    *("IPython.extensions.storemagic", "tornado.platform.asyncio", "tornado.queues"),
)
REFUSAL = (
    "Grading needs a jail for students' code, and this computer has none: {why}\n"
    "  Debian, Ubuntu: sudo apt install bubblewrap\n"
    "  Ubuntu 24.04 and later also restrict user namespaces; allow them for bwrap with the profile "
    "bwrap-userns-restrict of the package apparmor-profiles, or run the grader as root\n"
    "  macOS, Windows: grade on a Linux computer or in a Linux virtual machine\n"
    "Nothing was graded. `labkit doctor --sandbox` says when it is cured."
)
OURS = (
    "labkit.lessons*",
    "labkit.grading*",
    "labkit.release*",
    "labkit.classroom*",
    "labkit.cli",
    "labkit.studies.commands",
)
ANSWER = "{} holds the course's own answer and is away while this exercise is graded"
AWAY = "this package is away while this exercise is graded: it is to be built by hand"
STUB = '''"""While an exercise is graded, the course's own answers are away."""


class _Lab:
    def __getattr__(self, name):
        return lambda *given, **named: given[-1] if given else None


def start(*given, **named):
    return _Lab()
'''


class JailBroken(RuntimeError):
    """Our own machinery failed; no fault of a student's, and no verdict."""


@dataclass(frozen=True)
class Limits:
    """What one exercise of one student may use."""

    cpu: int = 60  # seconds of all its processes together
    wall: int = 240  # seconds; only catches what waits for ever
    memory: int = 2 << 30  # bytes beyond what was there at the start, of all its processes together
    files: int = 64 << 20  # bytes in each of its folders
    processes: int = 64
    output: int = 8 << 20  # bytes shown, at one request
    messages: int = 2_000


class Zygote:
    """One jail with its pre-imported parent; kernels are started in it one after the other."""

    def __init__(self, folder: Path, courses: Path, number: int = 0, preload: Iterable[str] = PRELOAD):
        self.folder, self.user = folder, USER + number
        self.sockets = folder / "sockets"
        self.sockets.mkdir(parents=True, exist_ok=True)
        self.log = open(folder / "jail.log", "wb")  # noqa: SIM115 - lives as long as the jail
        self.count, self.pending, self.ends, self.done = 0, b"", {}, set()
        command = [*bwrap(self.sockets, courses), sys.executable, "-s", "/agent/zygote.py"]
        self.process = subprocess.Popen(
            [*command, json.dumps(list(preload))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            bufsize=0,
            start_new_session=True,
        )

    def ready(self) -> Zygote:
        """Wait until it has imported what kernels start with; its caller may import things meanwhile."""
        self._until(lambda: "ready" in self.done, START_SECONDS)
        self.family = [one.pid for one in _descendants(self.process.pid)]  # bwrap's process 1 and our own two
        self.proc = Path(f"/proc/{self.family[-1]}/root/proc")  # what is in the jail, by its own numbers
        self.own = {name for name in os.listdir(self.proc) if name.isdigit()}
        return self

    def start(self, connection: dict, course: str, hide: list[str], limits: Limits) -> Kernel:
        """Fork a kernel; `connection` is Jupyter's connection info without `ip`."""
        self.count += 1
        sockets = self.sockets_of(self.count)
        self._tell(
            do="start",
            number=self.count,
            connection={**connection, "ip": f"/sockets/{sockets.name}/k"},
            sockets=f"/sockets/{sockets.name}",
            course=f"/courses/{course}",
            hide=hide,
            user=self.user,
            memory=limits.memory,
            files=limits.files,
            cpu=limits.cpu,
            processes=limits.processes + KERNEL_THREADS + (_running() if os.getuid() else 0),
            seccomp=seccomp.program().hex(),
        )
        return Kernel(self, self.count)

    def sockets_of(self, number: int) -> Path:
        """The folder of a kernel's sockets, which it may write into until it is ready."""
        folder = self.sockets / str(number)
        if not folder.exists():
            folder.mkdir()
            if os.getuid() == 0:
                os.chown(folder, self.user, self.user)
        return folder

    def kill(self) -> None:
        """End whatever kernel runs; when this returns, no process of it is left."""
        self._tell(do="kill", number=0)
        self._until(lambda: not self.students(), 10)

    def ended(self, number: int) -> bool:
        """Whether a kernel is gone; JailBroken when the whole jail is."""
        self.listen()
        return number in self.ends

    def strike(self) -> None:
        """End whatever kernel runs without a word to the zygote, so from any thread."""
        import psutil

        for process in self._beyond():
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
                process.kill()  # process 1 of the kernel's own space is among them and takes all along

    def numbers(self) -> list[int]:
        """All processes that belong to a kernel, by their numbers outside the jail."""
        return [process.pid for process in self._beyond()]

    def _beyond(self) -> list:
        return [one for one in _descendants(self.process.pid) if one.pid not in self.family]

    def students(self) -> list[int]:
        """All processes that belong to a kernel, by their numbers in the jail."""
        try:
            return [int(name) for name in os.listdir(self.proc) if name.isdigit() and name not in self.own]
        except OSError:  # the jail itself ended
            return []

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()  # bwrap's process 1 dies with it, and with that all others
        self.process.wait()
        self.process.stdout.close()
        self.log.close()

    def listen(self, seconds: float = 0) -> None:
        """Read what the zygote says, waiting up to `seconds` for something."""
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        if not ready:
            return
        data = os.read(self.process.stdout.fileno(), 1 << 16)
        if not data:
            raise JailBroken(f"the jail ended: {self._last_words()}")
        *lines, self.pending = (self.pending + data).split(b"\n")
        for message in map(json.loads, lines):
            if "exit" in message:
                self.ends[message["number"]] = message["exit"]
            else:
                self.done.add("ready" if "ready" in message else (message["did"], message["number"]))

    def _tell(self, **request) -> None:
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise JailBroken(f"the jail does not listen ({error}): {self._last_words()}") from error

    def _until(self, holds, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                raise JailBroken(f"the jail does not answer: {self._last_words()}")
            self.listen(0.005)

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            return (self.folder / "jail.log").read_text(errors="replace")[-500:].strip()
        return ""


class Kernel:
    """A kernel in the jail, with as much of subprocess.Popen as Jupyter asks for."""

    stdin = stdout = stderr = None

    def __init__(self, zygote: Zygote, number: int):
        self.zygote, self.number, self.pid = zygote, number, zygote.process.pid

    def poll(self) -> int | None:
        self.zygote.listen()
        return self.zygote.ends.get(self.number)

    def wait(self, timeout: float | None = None) -> int:
        self.zygote._until(lambda: self.poll() is not None, timeout or 10)
        return self.poll()

    def kill(self) -> None:
        if self.poll() is None:
            self.zygote.kill()

    terminate = kill

    def send_signal(self, number: int) -> None:
        if number:
            self.kill()


def bwrap(sockets: Path, courses: Path) -> list[str]:
    """The command line of the jail: what is in it is listed here, and nothing else is."""
    system = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/", name)
        if path.is_symlink():
            system += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            system += ["--ro-bind", str(path), str(path)]
    for python in dict.fromkeys(map(os.path.realpath, (sys.base_prefix, sys.prefix))):
        if not Path(python).is_relative_to("/usr"):
            system += [*_above(python), "--ro-bind", python, python]
    if os.path.realpath(sys.prefix) != sys.prefix:
        system += [*_above(sys.prefix), "--symlink", os.path.realpath(sys.prefix), sys.prefix]
    environment = {
        "PATH": f"{sys.prefix}/bin:/usr/bin:/bin",
        **{name: "/box" for name in ("HOME", "PWD")},
        **{name: "student" for name in ("USER", "LOGNAME")},
        **{name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "LABKIT_HEADLESS")},
        **{"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONSAFEPATH": "1"},
        **{"TZ": "UTC", "LC_ALL": "C.UTF-8", "MPLBACKEND": "agg", "MPLCONFIGDIR": "/tmp/matplotlib"},
        **{"IPYTHONDIR": "/tmp/ipython", "JUPYTER_PLATFORM_DIRS": "1", "LABKIT_CACHE": "/tmp/labkit"},
    }
    return [
        shutil.which("bwrap") or "bwrap",
        *(["--unshare-user"] if os.getuid() else []),
        *("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--hostname", "notebook"),
        *("--die-with-parent", "--new-session", "--cap-add", "ALL", "--clearenv"),
        *(word for name, value in environment.items() for word in ("--setenv", name, value)),
        *system,
        *("--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"),
        *("--proc", "/proc", "--dev", "/dev", "--chdir", "/"),
        *(word for folder in ("/box", "/course", "/agent") for word in ("--dir", folder)),
        *("--tmpfs", "/tmp"),  # the zygote's, whose imports write there; each kernel gets its own
        *(word for name in ("zygote.py", "agent.py", "codec.py") for word in _agent(name)),
        *("--ro-bind", str(paths.data_dir()), "/labkit-data"),
        *("--ro-bind", str(courses), "/courses", "--bind", str(sockets), "/sockets"),
        *("--remount-ro", "/dev", "--remount-ro", "/"),
    ]


def _above(path: str) -> list[str]:
    """Folders that lead to `path`, for everybody to enter."""
    parents = [str(parent) for parent in reversed(Path(path).parents) if parent != Path("/")]
    return [word for parent in parents for word in ("--perms", "0755", "--dir", parent)]


def course(courses: Path, hidden: Iterable[str]) -> str:
    """A copy of labkit without what is in `hidden`, and its name under `courses`.

    Hidden is a module, "labkit.metrics", or, where an answer may use the rest of it, one of its functions,
    "labkit.metrics:dice".
    """
    hidden = sorted(set(hidden))
    name = "-".join(["labkit", *hidden])[:120]
    if (courses / name).exists():
        return name
    part = courses / f".{name}"
    shutil.rmtree(part, ignore_errors=True)
    for source in sorted(paths.PACKAGE.rglob("*.py")):
        inside = source.relative_to(paths.PACKAGE.parent)
        module = ".".join(inside.with_suffix("").parts).removesuffix(".__init__")
        if any(fnmatch.fnmatch(module, pattern) for pattern in OURS):
            continue
        (part / inside).parent.mkdir(parents=True, exist_ok=True)
        away = [name for where, _, name in (one.partition(":") for one in hidden) if where == module]
        if "" in away:
            (part / inside).write_text(f"raise ImportError({ANSWER.format(module)!r})\n")
        elif away:
            (part / inside).write_text(without(source.read_text(encoding="utf-8"), away), encoding="utf-8")
        else:
            shutil.copyfile(source, part / inside)
    (part / "labkit" / "lessons").mkdir()
    (part / "labkit" / "lessons" / "__init__.py").write_text(STUB)
    (part / "data").symlink_to("/labkit-data")
    (part / "away").mkdir()  # what is found in place of a package that is not to be used
    (part / "away" / "__init__.py").write_text(f"raise ModuleNotFoundError({AWAY!r})\n")
    part.rename(courses / name)
    return name


def without(source: str, names: Iterable[str]) -> str:
    """The source of a module in which some of its functions say that they are away."""
    tree = ast.parse(source)
    for function in tree.body:
        if isinstance(function, ast.FunctionDef) and function.name in names:
            function.body = ast.parse(f"raise ImportError({ANSWER.format(function.name)!r})").body
    return ast.unparse(tree) + "\n"


def masks(packages: Iterable[str]) -> list[str]:
    """Folders of installed packages that are away: those named ("peft"), and labkit, which is /course."""
    roots = [Path(p) for p in sys.path if p.endswith("-packages")]
    return [str(root / name) for name in ("labkit", *packages) for root in roots if (root / name).is_dir()]


def unusable() -> str:
    """Why students' code cannot be jailed on this computer; empty when it can."""
    if sys.platform != "linux":
        return f"bubblewrap is for Linux, this is {sys.platform}."
    if not shutil.which("bwrap"):
        return "the program `bwrap` is not installed."
    if any(Path(os.path.realpath(p)).is_relative_to("/tmp") for p in (sys.prefix, sys.base_prefix)):
        return f"Python lies in {sys.prefix}, and the jail hides /tmp; set the course up in another folder."
    try:
        seccomp.program()
    except ValueError as error:
        return str(error)
    probe = ["bwrap", *(["--unshare-user"] if os.getuid() else []), "--unshare-pid", "--unshare-net"]
    probe += ["--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--cap-add", "ALL", "true"]
    done = subprocess.run(probe, capture_output=True, text=True)
    return (
        "" if done.returncode == 0 else f"`bwrap` fails: {(done.stderr.strip() or 'no reason given')[:300]}"
    )


def _agent(name: str) -> list[str]:
    return ["--ro-bind", str(HERE / name), f"/agent/{name}"]


def _descendants(pid: int) -> list:
    import psutil

    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _running() -> int:
    """How many threads this user has; older Linux counts those against the jail's limit too."""
    import psutil

    mine = (p for p in psutil.process_iter(["uids"]) if p.info["uids"] and p.info["uids"].real == os.getuid())
    return sum(_threads(process) for process in mine)


def _threads(process) -> int:
    with contextlib.suppress(Exception):  # it ended meanwhile
        return process.num_threads()
    return 0
