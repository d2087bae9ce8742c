"""What was handed in: which files, by whom, and their cells, read by a process with limits."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
import sys
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from labkit.grading import submitter
from labkit.grading.submitter import Submitter

PARSER = Path(__file__).with_name("parse.py")
LARGEST = 20 << 20  # bytes of a file that is read at all; the parser is stricter
TOO_LARGE = f"the file is larger than {LARGEST >> 20} MB: clear its outputs and hand it in again"
SECONDS = 30
CHECK = re.compile(r"^lab\.check\(\s*[\"'](\w+)[\"']", re.MULTILINE)
SIGNS = re.compile(r"[^\w .@+-]", re.ASCII)


class Rejected(ValueError):
    """A submission that cannot be graded, with a sentence for the student."""


@dataclass(frozen=True)
class Submission:
    """One notebook of one student; `student` is safe to print, `file` is what it was called."""

    student: str
    path: Path
    file: str
    sha256: str
    size: int
    flags: tuple[str, ...] = ()
    refused: str = ""  # why it cannot be told what was handed in
    submitter: Submitter = Submitter()


def collect(folder: Path) -> list[Submission]:
    """The notebooks in a folder, one per student: NAME.ipynb, or the one in NAME/ that has a lab's cells.

    Of a NAME/ with several such notebooks, or several and none such, none is taken: it is refused, with a
    sentence. Links, other files and what lies deeper are left alone. Whose each is comes from the list that
    `labkit collect` made, where there is one. ValueError when there is no notebook, or that list is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(
            f"{folder} is no folder: give the folder that holds the students' notebooks; `labkit collect` "
            "makes one of a zip or a download."
        )
    found: list[tuple[str, list[Path]]] = []
    for path in sorted(folder.iterdir(), key=lambda p: os.fsencode(p.name)):
        if path.is_symlink():
            continue
        if path.is_dir():
            inside = sorted((p for p in path.iterdir() if _wanted(p)), key=lambda p: os.fsencode(p.name))
            found += [(path.name, inside)] if inside else []
        elif _wanted(path):
            found.append((path.name[: -len(".ipynb")], [path]))
    if not found:
        raise ValueError(
            f"{folder} holds no notebooks (*.ipynb), neither directly nor in a student's folder."
        )
    known = submitter.listed(folder)
    taken: dict[str, int] = {}
    files: dict[str, str] = {}
    result = []
    for name, several in found:
        student, flags = _alias(name)
        path, refused = several[0], ""
        if len(several) > 1:
            labs = [one for one in several if has_a_lab(_head(one))]
            path, refused = (labs or several)[0], "" if len(labs) == 1 else which(len(several), len(labs))
            flags += [] if refused else [f"{len(several)} notebooks; the one with a lab's cells counts"]
        taken[student.casefold()] = taken.get(student.casefold(), 0) + 1
        if taken[student.casefold()] > 1:
            student = f"{student} ({taken[student.casefold()]})"
            flags.append("another submission has the same name")
        digest, size = _digest(path)
        if digest in files:
            flags.append(f"the same file as {files[digest]} handed in")
        files.setdefault(digest, student)
        whose = known.get(name) or submitter.from_folder(os.fsencode(name).decode("utf-8", "replace"))
        result.append(Submission(student, path, repr(path.name), digest, size, tuple(flags), refused, whose))
    return result


def read(submission: Submission) -> list[dict]:
    """The cells as plain dictionaries (id, type, source, exercise, role); Rejected says what is wrong."""
    if submission.refused:
        raise Rejected(submission.refused)
    if submission.size > LARGEST:
        raise Rejected(TOO_LARGE)
    data = _head(submission.path)
    if hashlib.sha256(data).hexdigest() != submission.sha256:
        raise Rejected("the file changed while it was being graded: grade it again")
    return cells(data)


def cells(data: bytes) -> list[dict]:
    """The same for the bytes of a file."""
    if len(data) > LARGEST:
        raise Rejected(TOO_LARGE)
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(PARSER)], input=data, capture_output=True, timeout=SECONDS
        )
        found = json.loads(done.stdout)
    except (ValueError, subprocess.TimeoutExpired):
        raise Rejected("not a valid notebook: it cannot be read within the limits") from None
    if "error" in found:
        raise Rejected(found["error"])
    return found["cells"]


def exercises(cells: list[dict]) -> set[str]:
    """The exercises of any lab that have a cell here: by our metadata, or by the check's own words.

    An editor may drop metadata and ids; `lab.check("dice", dice)` stays.
    """
    found = {cell["exercise"] for cell in cells if cell["role"] in ("answer", "check")}
    for cell in cells:
        if cell["type"] == "code":
            found |= set(CHECK.findall(cell["source"]))
    return found - {""}


def has_a_lab(data: bytes) -> bool:
    """Whether a file is a notebook with the cells of some lab."""
    try:
        return bool(exercises(cells(data)))
    except Rejected:
        return False


def which(notebooks: int, labs: int) -> str:
    """Why of several notebooks none counts."""
    have = "none has" if not labs else f"{labs} have"
    return f"it is {notebooks} notebooks, of which {have} a lab's cells: hand in the one that counts"


def _head(path: Path) -> bytes:
    """A file's bytes, and of one that is too large one byte too many."""
    with open(_open(path), "rb") as file:
        return file.read(LARGEST + 1)


def _wanted(path: Path) -> bool:
    return (
        path.name.endswith(".ipynb") and not path.name.startswith(".") and stat.S_ISREG(path.lstat().st_mode)
    )


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


def _digest(path: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with open(_open(path), "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size


def _alias(name: str) -> tuple[str, list[str]]:
    """A name that is safe in a terminal, a file name and a table; flagged when it is not the original."""
    plain = unicodedata.normalize("NFKD", os.fsencode(name).decode("utf-8", "replace"))
    plain = SIGNS.sub("_", "".join(c for c in plain if not unicodedata.combining(c))).strip(" .")
    plain = plain.lstrip("=+-@")[:80] or "unnamed"
    return plain, ([] if plain == name else [f"handed in as {name!a}"])
