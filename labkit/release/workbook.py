"""The student's folder: stubs to work in, made once, refreshed while untouched, never overwritten.

Every notebook written here carries a seal, a hash of its own cells. A file whose seal still fits is as we
wrote it and may be replaced by a newer edition; any other file is the student's and is left alone. The seal
travels inside the file, so no record can be lost, half-written or disputed between two processes.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from labkit import files
from labkit.paths import checkout_root
from labkit.release import editions

HOUR = 3600


def make_workbook(folder: Path) -> list[Path]:
    """Give `folder` the student's edition of every lab and return the files written.

    A missing file is written (deleting or renaming one is how to start it over), an untouched older edition
    is refreshed. A file that the student worked in stays as it is; when the course has a newer edition of it,
    that one is laid beside it as "01_transfer (new edition).ipynb" and one printed line says so.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    sources = sorted((checkout_root() / "notebooks").glob("*.py"))
    return [path for source in sources if (path := _place(folder, source))]


def seal(notebook: NotebookNode) -> NotebookNode:
    """The same notebook, with a hash of its cells in its metadata."""
    as_read = nbformat.reads(nbformat.writes(notebook), as_version=4)
    notebook.metadata.setdefault("labkit", {})["seal"] = _hash(as_read)
    return notebook


def untouched(path: Path) -> bool:
    """Whether `path` holds a notebook exactly as we wrote it: nothing edited, nothing run, nothing added."""
    found, expected = _seals(path)
    return found is not None and found == expected


def write_notebook(path: Path, notebook: NotebookNode) -> Path:
    """Write `path` so that a reader, or a process killed half-way, never leaves or sees a part of it."""
    text = _text(notebook)
    files.write_atomically(path, lambda part: part.write_text(text, encoding="utf-8", newline="\n"))
    return path


def _place(folder: Path, source: Path) -> Path | None:
    edition = seal(editions.student(source))
    current = edition.metadata.labkit.seal
    for path in _names(folder / f"{source.stem}.ipynb"):
        if not path.exists():
            if path.stem != source.stem:
                print(f"{source.stem}.ipynb is yours and stays as it is; the newer edition is {path.name}")
            return _create(path, edition)
        recorded, actual = _seals(path)
        if recorded == current:
            return None  # this edition already, worked in or not
        if recorded is not None and recorded == actual:
            return write_notebook(path, edition)
    raise AssertionError("names never run out")


def _names(path: Path) -> Iterator[Path]:
    """01_transfer.ipynb, 01_transfer (new edition).ipynb, 01_transfer (new edition 2).ipynb, ..."""
    yield path
    yield path.with_name(f"{path.stem} (new edition).ipynb")
    for number in itertools.count(2):
        yield path.with_name(f"{path.stem} (new edition {number}).ipynb")


def _create(path: Path, notebook: NotebookNode) -> Path | None:
    """Write a file that must not exist yet; a file that appears meanwhile wins."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(_text(notebook), encoding="utf-8", newline="\n")
        os.link(part, path)  # unlike a rename, a link never replaces what is there
    except FileExistsError:
        return None
    except OSError:  # a disk without links
        if path.exists():
            return None
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _sweep(folder: Path) -> None:
    """Remove what a killed process left of its unfinished writes."""
    for part in folder.glob(".*.ipynb.*.part"):
        with contextlib.suppress(FileNotFoundError):
            if (
                time.time() - part.stat().st_mtime > HOUR
            ):  # younger ones may belong to a process that still runs
                part.unlink()


def _text(notebook: NotebookNode) -> str:
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def _seals(path: Path) -> tuple[str | None, str]:
    """The seal a notebook carries, None if it is not of ours, and the one its cells ask for."""
    try:
        notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
        return notebook.metadata.labkit.seal, _hash(notebook)
    except Exception:  # whatever a student's editor, disk or merge made of it: it is theirs
        return None, ""


def _hash(notebook: NotebookNode) -> str:
    return hashlib.sha256(json.dumps(notebook.cells, sort_keys=True).encode()).hexdigest()[:16]
