"""The student's folder: stubs to work in, made once, refreshed while untouched, never overwritten.

Every notebook written here carries a seal, a hash of its own cells. A file whose seal still fits is as we
wrote it and may be replaced by a newer edition; any other file is the student's and is left alone. The seal
travels inside the file, so no record can be lost, half-written or disputed between two processes. A newer
edition that is laid beside a student's file has the student's answers in it.
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
from labkit.release import carry, editions

HOUR = 3600


def make_workbook(folder: Path) -> list[Path]:
    """Give `folder` the student's edition of every lab and return the files written.

    A missing file is written (deleting or renaming one is how to start it over), an untouched older edition
    is refreshed. A file that the student worked in stays as it is; when the course has a newer edition of it,
    that one is laid beside it as "01_transfer (new edition).ipynb", with the student's answers in it, and one
    printed line says so.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    sources = sorted((checkout_root() / "notebooks").glob("*.py"))
    return [path for source in sources if (path := _place(folder, source))]


def newest(folder: Path, lab: str) -> Path:
    """The file of a lab ("04_lora") that counts: its newest edition in `folder`.

    ValueError: there is none; or beside it lies a copy, or an older edition with an answer that the newest
    has not: then it would be a guess.
    """
    files = _there(Path(folder) / f"{lab}.ipynb")
    if not files:
        raise ValueError(f"{folder} has no {lab}.ipynb: give the notebook's file instead of the number.")
    if copies := sorted(path.name for path in set(Path(folder).glob(f"{lab}*.ipynb")) - set(files)):
        names = ", ".join(repr(name) for name in [*(path.name for path in files), *copies])
        raise ValueError(f"{folder} has {names}: give the file that counts instead of the number.")
    for path in files[:-1]:
        if left := _left(path, files[-1], lab):
            raise ValueError(
                f"{path.name!r} has an answer to {', '.join(left)} and {files[-1].name!r}, which is newer, "
                f"has none: `labkit update {lab[:2]}` brings it over, or give the file that counts."
            )
    return files[-1]


def newer(folder: Path, lab: str, notebook: str) -> str:
    """The name of an edition of a lab in `folder` that is newer than `notebook`; empty if none is."""
    names = [path.name for path in _there(Path(folder) / f"{lab}.ipynb")]
    opened = Path(notebook).name
    return names[-1] if opened in names and names[-1] != opened else ""


def bring_over(folder: Path, lab: str) -> tuple[Path, list[str]]:
    """Fill what is still a stub in the newest edition of a lab by the answers of older ones in `folder`.

    Returns the file and the exercises that were filled. Nothing else in it changes, and older files not at
    all. ValueError: there is no file of that lab.
    """
    files = _there(Path(folder) / f"{lab}.ipynb")
    if not files:
        raise ValueError(f"{folder} has no {lab}.ipynb; `labkit start` makes it.")
    edition, newer, names = _edition(lab), _read(files[-1]), []
    for path in reversed(files[:-1]):
        if newer is not None and (older := _read(path)) is not None:
            names += carry.fill(newer, older, edition)
    if names:
        write_notebook(files[-1], newer)
    return files[-1], names


def reset(path: Path, lab: str, exercise: str) -> None:
    """Bring an exercise's stub back in a saved notebook; the answer stays below it as a comment.

    ValueError: the lab has no such exercise, or the notebook no cell of it.
    """
    stub, notebook = stub_of(lab, exercise), _read(path)
    cell = next((one for one in notebook.cells if one.get("id") == exercise), None) if notebook else None
    if cell is None:
        raise ValueError(f"{path} has no cell for the answer to {exercise}.")
    if cell.source.strip() != stub.strip():
        cell.source = carry.kept(stub, cell.source)
        write_notebook(path, notebook)


def stub_of(lab: str, exercise: str) -> str:
    """What a student's edition has in place of an answer; ValueError names the exercises that there are."""
    stubs = {
        cell.metadata.labkit.exercise: cell.source
        for cell in _edition(lab).cells
        if editions.role(cell) == "answer"
    }
    if exercise not in stubs:
        raise ValueError(f"{lab} has no exercise {exercise!r}; it has {', '.join(stubs)}.")
    return stubs[exercise]


def seal(notebook: NotebookNode) -> NotebookNode:
    """The same notebook, with a hash of its cells in its metadata."""
    as_read = nbformat.reads(nbformat.writes(notebook), as_version=4)
    notebook.metadata.setdefault("labkit", {})["seal"] = _hash(as_read)
    return notebook


def untouched(path: Path) -> bool:
    """Whether `path` holds a notebook exactly as we wrote it: nothing edited, nothing run, nothing added."""
    notebook = _read(path)
    about = notebook.metadata.get("labkit", {}) if notebook else {}
    return notebook is not None and _hash(notebook) in (about.get("seal"), about.get("written"))


def write_notebook(path: Path, notebook: NotebookNode) -> Path:
    """Write `path` so that a reader, or a process killed half-way, never leaves or sees a part of it."""
    text = _text(notebook)
    files.write_atomically(path, lambda part: part.write_text(text, encoding="utf-8", newline="\n"))
    return path


def _place(folder: Path, source: Path) -> Path | None:
    edition = seal(editions.student(source))
    theirs = None  # the latest file that was worked in
    for path in _names(folder / f"{source.stem}.ipynb"):
        if path.exists():
            notebook = _read(path)
            about = notebook.metadata.get("labkit", {}) if notebook else {}
            if about.get("seal") == edition.metadata.labkit.seal:
                return None  # this edition already, worked in or not
            if not untouched(path):
                theirs = notebook or theirs
                continue
            return write_notebook(path, _with_answers(edition, theirs)[0])
        made, names = _with_answers(edition, theirs)
        if path.stem != source.stem:
            also = f", with your answers to {', '.join(names)}" if names else ""
            print(f"{source.stem}.ipynb is yours and stays as it is; the newer edition is {path.name}{also}")
        return _create(path, made)
    raise AssertionError("names never run out")


def _with_answers(edition: NotebookNode, theirs: NotebookNode | None) -> tuple[NotebookNode, list[str]]:
    """An edition with what a student wrote into an older one, and a seal of how it was written."""
    if theirs is None:
        return edition, []
    made, names = carry.carried(theirs, edition)
    made.metadata.labkit["written"] = _hash(nbformat.reads(nbformat.writes(made), as_version=4))
    return made, names


def _there(path: Path) -> list[Path]:
    """The editions of a lab that lie in a workbook, older ones first."""
    return list(itertools.takewhile(Path.exists, _names(path)))


def _left(older: Path, newer: Path, lab: str) -> list[str]:
    """The exercises with an answer in `older` and none in `newer`."""
    old, new = _read(older), _read(newer)
    if old is None or new is None:
        return []
    stubs = [cell for cell in _edition(lab).cells if editions.role(cell) == "answer"]
    has = [one for one in stubs if carry.answer_in(old, one) is not None]
    return [one.metadata.labkit.exercise for one in has if carry.answer_in(new, one) is None]


def _edition(lab: str) -> NotebookNode:
    return editions.student(checkout_root() / "notebooks" / f"{lab}.py")


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


def _read(path: Path) -> NotebookNode | None:
    """A lab's notebook, None where it is none of ours any more."""
    try:
        notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
        return notebook if isinstance(notebook.metadata.labkit.seal, str) and notebook.cells else None
    except Exception:  # whatever a student's editor, disk or merge made of it: it is theirs
        return None


def _hash(notebook: NotebookNode) -> str:
    return hashlib.sha256(json.dumps(notebook.cells, sort_keys=True).encode()).hexdigest()[:16]
