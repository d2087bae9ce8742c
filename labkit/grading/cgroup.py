"""A limit of memory that Linux itself holds, where this user may make a control group.

What processes of a group hold is charged page by page, in whatever form (private, shared, files in memory,
page tables), and never passes the limit: when it would, one of them is killed, and the group remembers it.
Root may make groups, in most containers nobody; then `watch.py` counts.
Source: Linux, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path

NAMES = {  # version -> files: the limit, the limit of memory and swap, what was ended for want of memory
    "2": ("memory.max", "memory.swap.max", "memory.events"),
    "1": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.oom_control"),
}
HELD = ("anon", "rss", "shmem")  # in memory.stat; version 1 says rss where version 2 says anon
NUMBERS = itertools.count()  # no two groups of one process of ours share a name


class Group:
    """A control group; `add` processes to it, ask `overfull`, and `close` it when they are gone."""

    def __init__(self, folder: Path, version: str, memory: int):
        self.folder = folder / f"labkit-{os.getpid()}-{next(NUMBERS)}"
        self.limit, self.swap, self.events = NAMES[version]
        self.folder.mkdir()
        try:
            (self.folder / self.limit).write_text(str(memory))
            with contextlib.suppress(OSError):  # a Linux that doesn't count swap has no such file
                (self.folder / self.swap).write_text("0" if version == "2" else str(memory))
        except OSError:
            self.close()
            raise

    def add(self, numbers: list[int]) -> None:
        """Processes by their numbers here; what they held before stays with their old group."""
        for number in numbers:
            with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                (self.folder / "cgroup.procs").write_text(str(number))

    def held(self) -> int:
        """Bytes of memory, files in memory among them, without what is only kept because it was read."""
        rows = dict(line.split()[:2] for line in (self.folder / "memory.stat").read_text().splitlines())
        return sum(int(rows.get(name, 0)) for name in HELD)

    def overfull(self) -> bool:
        """Whether one of its processes was killed because the limit was reached."""
        rows = (line.split() for line in (self.folder / self.events).read_text().splitlines())
        return any(int(count) for name, count in rows if name == "oom_kill")

    def close(self) -> None:
        with contextlib.suppress(OSError):  # something of it still ends: an empty group costs nothing
            self.folder.rmdir()


def group(memory: int) -> Group | None:
    """A new group with a limit in bytes, None where this user or this Linux can't have one."""
    for folder, version in _folders():
        with contextlib.suppress(OSError):
            return Group(folder, version, memory)
    return None


def possible() -> bool:
    """Whether this user can make a group here."""
    made = group(1 << 30)
    if made:
        made.close()
    return bool(made)


def _folders():
    """Where groups might be made: our own group and those above it, with Linux's version of them."""
    for line in _lines("/proc/self/cgroup"):
        _, controllers, own = line.split(":", 2)
        version = "1" if "memory" in controllers.split(",") else "2" if not controllers else ""
        root = _mounted(version)
        if not root:
            continue
        inside = root / own.lstrip("/")
        for folder in (inside, *inside.parents):
            if not folder.is_relative_to(root):
                break
            if version == "1" or "memory" in "".join(_lines(folder / "cgroup.subtree_control")).split():
                yield folder, version


def _mounted(version: str) -> Path | None:
    for line in _lines("/proc/self/mounts"):
        _, where, kind, options, *_ = line.split()
        if (version == "1" and kind == "cgroup" and "memory" in options.split(",")) or (
            version == "2" and kind == "cgroup2"
        ):
            return Path(where)
    return None


def _lines(path: str | Path) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
