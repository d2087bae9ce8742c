"""The files of a download, a folder or a zip, read one at a time and within limits; nothing is unpacked."""

from __future__ import annotations

import collections
import os
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

from labkit.grading.intake import LARGEST, Rejected, _open

ENTRIES, DIRECTORY = 20_000, 16 << 20  # files of a download; bytes of a zip's list of them
TOTAL, RATIO, SMALL = (
    4 << 30,
    100,
    1 << 20,
)  # bytes read in all; unpacked to packed, of files that are not small
DEPTH, NAME = 8, 400
PACKED = (".zip", ".7z", ".rar", ".tar", ".gz", ".tgz", ".bz2", ".xz")
BROKEN = (  # what zipfile raises for files that are no zip, or only almost
    *(zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError),
    *(ValueError, OSError, EOFError, OverflowError, IndexError),
)


@dataclass(frozen=True)
class Entry:
    """One file of a download; `refused` is empty, or says to whoever handed it in why it is not read."""

    name: str  # with / between its parts
    when: str = ""  # as the download has it, "2026-11-24 20:15:00"
    refused: str = ""
    start: Callable[[], IO[bytes]] | None = field(default=None, compare=False)
    budget: list[int] = field(default_factory=lambda: [TOTAL], compare=False)  # bytes left, of all together

    def read(self) -> bytes:
        """The file's bytes; Rejected when it may not be read, is broken, or grows beyond the limits."""
        if self.refused:
            raise Rejected(self.refused)
        data = bytearray()
        try:
            with self.start() as file:
                while block := file.read(1 << 16):
                    data += block
                    self.budget[0] -= len(block)
                    if len(data) > LARGEST:
                        raise Rejected(f"it is larger than {LARGEST >> 20} MB: clear its outputs")
                    if self.budget[0] < 0:
                        raise Rejected(
                            f"the download unpacks to more than {TOTAL >> 30} GB: give it in parts"
                        )
        except Rejected:
            raise
        except BROKEN:
            raise Rejected("the archive is damaged here: hand it in again") from None
        return bytes(data)


@contextmanager
def opened(path: Path) -> Iterator[list[Entry]]:
    """The files of a folder or a zip, in the order of their names; ValueError when it is neither."""
    path = Path(path)
    if path.is_dir():
        yield _judged(list(_walk(path, path)))
        return
    if not path.is_file():
        raise ValueError(f"{path} does not exist: give the folder or the .zip that was downloaded.")
    _short_list(path)
    try:
        archive = zipfile.ZipFile(path)
    except BROKEN:
        raise ValueError(
            f"{path} is neither a folder nor a .zip that can be read: download it again."
        ) from None
    with archive:
        budget = [TOTAL]
        yield _judged([_member(archive, info, budget) for info in archive.infolist()])


def _judged(entries: list[Entry]) -> list[Entry]:
    """The entries by name, those refused whose names cannot be told apart or lead elsewhere."""
    if len(entries) > ENTRIES:
        raise ValueError(f"the download holds more than {ENTRIES} files: give one assignment at a time.")
    names = collections.Counter(_twin(entry.name) for entry in entries)
    found = []
    for entry in sorted(entries, key=lambda entry: (entry.name.encode("utf-8", "replace"), entry.when)):
        reason = entry.refused or _odd(entry.name)
        if not reason and names[_twin(entry.name)] > 1:
            reason = "the archive holds two files of this name: hand in one of them"
        if not reason and entry.name.lower().endswith(PACKED):
            reason = "an archive inside the download is not opened: hand in the notebook (.ipynb) itself"
        found.append(Entry(entry.name, entry.when, reason, entry.start, entry.budget))
    return found


def _twin(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _odd(name: str) -> str:
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or re.match(r"[A-Za-z]:", name):
        return "its path leads out of the archive: hand in the notebook (.ipynb) itself"
    if "\\" in name or "\0" in name:
        return "its name holds a sign that no file name may hold: rename it"
    if len(parts) > DEPTH or len(name) > NAME:
        return "its path is too long or too deep: hand in the notebook (.ipynb) itself"
    return ""


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: list[int]) -> Entry:
    name, reason = info.orig_filename, ""
    kind = stat.S_IFMT(info.external_attr >> 16)
    if info.flag_bits & 0x1:
        reason = "it is encrypted: hand it in without a password"
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        reason = "it is a link or a device, not a file: hand in the notebook itself"
    elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        reason = "it is packed in a way that is not read here: make an ordinary zip"
    elif info.file_size > max(SMALL, RATIO * info.compress_size):
        reason = f"it unpacks to more than {RATIO} times its size: hand in the notebook itself"
    when = ""
    with suppress(ValueError):
        when = str(datetime(*info.date_time))
    return Entry(name, when, reason, lambda: archive.open(info), budget)


def _walk(root: Path, folder: Path) -> Iterator[Entry]:
    with os.scandir(folder) as files:
        for file in files:
            path = Path(file.path)
            name = os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "replace")
            if file.is_symlink() or not (file.is_dir() or file.is_file()):
                yield Entry(name, refused="it is a link or a device, not a file: hand in the notebook itself")
            elif file.is_file():
                when = datetime.fromtimestamp(file.stat().st_mtime, timezone.utc)
                yield Entry(name, f"{when:%Y-%m-%d %H:%M:%S}", start=lambda p=path: open(_open(p), "rb"))
            elif len(path.relative_to(root).parts) < DEPTH:
                yield from _walk(root, path)


def _short_list(path: Path) -> None:
    """ValueError when a zip's own list of its files is too long even to be read.

    The list's size stands in the last record, or in the ZIP64 record before it (PKWARE's APPNOTE, 4.3.14-16).
    """
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        start = file.seek(max(0, end - 65_557 - 20))
        tail = file.read()
        at = tail.rfind(b"PK\5\6")
        size = int.from_bytes(tail[at + 12 : at + 16], "little") if at >= 0 else 0
        if at >= 20 and tail[at - 20 : at - 16] == b"PK\6\7":
            file.seek(min(int.from_bytes(tail[at - 12 : at - 4], "little"), start + at))
            size = int.from_bytes(file.read(56)[40:48], "little")
    if size > DIRECTORY:
        raise ValueError(f"{path} lists more than {ENTRIES} files: give one assignment at a time.")
