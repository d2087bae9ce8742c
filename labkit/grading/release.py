"""A release: what students get, what instructors keep, and the grading bundle, apart from both.

OUT/student/01_transfer.ipynb      OUT/instructor/01_transfer.ipynb
OUT/release.json                   cell ids, hashes of their text, of the package and of the lock; no secret
OUT/grading/bundle.json            hidden challenges, points, what is hidden from an answer, the key
"""

from __future__ import annotations

import hashlib
import inspect
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat

from labkit import __version__, files, paths
from labkit.release import editions
from labkit.release.workbook import seal, write_notebook

FORBIDDEN = ("peft", "loralib", "adapters")  # packages that solve what is to be built by hand


@dataclass(frozen=True)
class Release:
    """A lab of a release, as the grader reads it."""

    id: str
    lab: str
    student: str  # the student's edition, as text
    exercises: dict  # name -> points, hides, forbids, hidden
    key: str
    package: str


def release(out: Path, names: Sequence[str] = ()) -> Path:
    """Write a release of some labs ("02") or of all into `out` and return its release.json.

    ValueError, with nothing written, when an edition shows a solution, a stub has a line that its solution
    does not have, or an exercise has no reference. A key that `out` has already is kept.
    """
    from labkit.release import build

    out = Path(out)
    sources = build.sources(names)
    wrong = [sentence for source in sources for sentence in (*editions.leaks(source), *stub_lines(source))]
    if wrong:
        raise ValueError("\n".join(wrong))
    students = {source.stem: seal(editions.student(source)) for source in sources}
    labs = {source.stem: _exercises(source) for source in sources}
    public = {
        "labkit": __version__,
        "package": package_hash(),
        "lock": _sha(paths.PACKAGE.parent / "requirements.lock"),
        "labs": {
            lab: {
                "cells": {cell.id: _hash(cell.source) for cell in notebook.cells},
                "points": {name: about["points"] for name, about in labs[lab].items()},
            }
            for lab, notebook in students.items()
        },
    }
    public["release"] = _hash(_json(public))[:16]
    bundle = out / "grading" / "bundle.json"
    known = (
        json.loads(bundle.read_text(encoding="utf-8"))["key"] if bundle.exists() else secrets.token_hex(32)
    )
    for source in sources:
        write_notebook(out / "student" / f"{source.stem}.ipynb", students[source.stem])
        write_notebook(out / "instructor" / f"{source.stem}.ipynb", editions.instructor(source))
    _write(bundle, {"release": public["release"], "key": known, "labs": labs})
    _write(out / "release.json", public)
    return out / "release.json"


def load(folder: Path, lab: str | None = None) -> Release:
    """A lab of the release in `folder`; ValueError when it is none, has several labs, or parts do not fit."""
    folder = Path(folder)
    try:
        public = json.loads((folder / "release.json").read_text(encoding="utf-8"))
        bundle = json.loads((folder / "grading" / "bundle.json").read_text(encoding="utf-8"))
        labs = {
            name: about for name, about in bundle["labs"].items() if lab in (None, name, name.split("_")[0])
        }
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"{folder} holds no release ({error}): make one with `labkit release {folder}`."
        ) from error
    if len(labs) != 1:
        names = ", ".join(bundle["labs"])
        raise ValueError(f"{folder} has the labs {names}: say which one is to be graded.")
    if public["release"] != bundle["release"]:
        raise ValueError(
            f"release.json and grading/bundle.json in {folder} are of two releases: make it again."
        )
    if public["package"] != package_hash():
        raise ValueError(
            f"{folder} was released from another labkit than this one: grade with the labkit of the release, "
            f"or release again with `labkit release {folder}`."
        )
    name, exercises = labs.popitem()
    student = (folder / "student" / f"{name}.ipynb").read_text(encoding="utf-8")
    found = {cell.id: _hash(cell.source) for cell in nbformat.reads(student, as_version=4).cells}
    if found != public["labs"][name]["cells"]:
        raise ValueError(
            f"{folder}/student/{name}.ipynb is not the notebook of its release.json: release again."
        )
    return Release(public["release"], name, student, exercises, bundle["key"], public["package"])


def stub_lines(source: Path) -> list[str]:
    """Lines of a stub that its solution does not have: scaffolding that would lead a student astray."""
    full = {cell.id: cell.source for cell in editions.instructor(source).cells}
    return [
        f"{source.name}: the stub of {cell.id} has a line that its solution has not: {line.strip()}"
        for cell in editions.student(source).cells
        if editions.role(cell) == "answer"
        for line in cell.source.splitlines()
        if line not in full[cell.id].splitlines() and "raise NotImplementedError(" not in line
    ]


def package_hash() -> str:
    """One hash over labkit's own Python files."""
    digest = hashlib.sha256()
    for path in sorted(paths.PACKAGE.rglob("*.py")):
        digest.update(f"{path.relative_to(paths.PACKAGE).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _exercises(source: Path) -> dict:
    """What the grader needs to know of each exercise, from the cells' metadata and the reference itself."""
    from labkit.grading.bench import with_hidden
    from labkit.lessons import exercises

    known, cells = exercises(source.stem), editions.instructor(source).cells
    found = {}
    for cell in cells:
        if editions.role(cell) != "answer" or cell.cell_type != "code":
            continue
        mark = cell.metadata.labkit
        if mark.exercise not in known:
            raise ValueError(f"{source.name}: there is no reference for {mark.exercise} in labkit.lessons.")
        found[mark.exercise] = {
            "points": float(mark.get("points", 1)),
            "hides": sorted({*_home(known[mark.exercise].reference), *mark.get("hides", ())}),
            "forbids": sorted({*FORBIDDEN, *mark.get("forbids", ())}),
            "hidden": "\n".join(
                c.source
                for c in cells
                if editions.role(c) == "hidden" and c.metadata.labkit.get("exercise") == mark.exercise
            ),
        }
        _carried(mark.exercise, with_hidden(known[mark.exercise], found[mark.exercise]["hidden"]))
    if not found:
        raise ValueError(f"{source.name} has no exercises: mark them with labkit={{...}} in their cells.")
    return found


def _carried(name: str, exercise) -> None:
    """ValueError when an input of the exercise cannot be brought to the student's function in its jail."""
    from labkit.grading.codec import BadValue, Encoder

    for challenge in exercise.challenges:
        try:
            Encoder().node(challenge.inputs())
        except BadValue as error:
            raise ValueError(
                f"{name} cannot be graded on {challenge.description!r}: its inputs hold {error}; give it "
                "numbers, arrays, tensors, modules, optimizers or functions."
            ) from error


def _home(reference) -> list[str]:
    """The module of labkit that a reference comes from; labkit.lessons is always away."""
    module = inspect.unwrap(reference).__module__
    return [module] if module.startswith("labkit.") and not module.startswith("labkit.lessons") else []


def _write(path: Path, content: dict) -> None:
    files.write_atomically(path, lambda part: part.write_text(_json(content), encoding="utf-8", newline="\n"))


def _json(content: dict) -> str:
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""
