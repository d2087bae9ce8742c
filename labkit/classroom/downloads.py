"""What instructors have, a folder, a zip, a download of Canvas, Moodle or Gradescope: a notebook each."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import os
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from labkit.classroom import archives
from labkit.classroom.archives import Entry
from labkit.classroom.gradescope import METADATA, Group, groups
from labkit.grading import submitter
from labkit.grading.intake import Rejected, _alias, has_a_lab, which
from labkit.grading.submitter import LIST, Submitter, guarded, printable

# canvas-lms, lib/content_zipper.rb: with anonymous grading there is no user's number, only the file's
CANVAS = re.compile(
    r"(?P<late>LATE_)?(?P<anonymous>anon_[A-Za-z0-9]+)_(?P<file>\d+)_.+"
    r"|(?P<name>.+?)_(?P<named_late>LATE_)?(?P<user>\d+)_(?P<named_file>\d+)_.+",
    re.DOTALL,
)
# mod/assign/classes/downloader.php: the number is a participant's or, where teams hand in, a group's
MOODLE = re.compile(r"(?P<name>.+)_(?P<user>\d+)_assignsubmission_[a-z]+_?.*", re.DOTALL)
GRADESCOPE = re.compile(r"submission_\d+")
AGAIN = re.compile(r"-(\d+)$")  # Canvas: lab.ipynb, lab-1.ipynb, lab-2.ipynb when handed in again
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}


@dataclass(frozen=True)
class HandIn:
    """One file of one student: `student` is safe to print, and no number in it says whose it is."""

    student: str
    submitter: Submitter
    entry: Entry
    order: tuple = ()  # a later one is larger
    batch: tuple = ()  # the same for files of a student that were handed in together
    late: str = ""  # "yes", "no", or nobody knows
    kept: bool = False
    note: str = ""
    sha256: str = ""

    @property
    def name(self) -> str:
        return self.submitter.name


def collect(download: Path, out: Path) -> list[HandIn]:
    """Write each student's newest notebook with a lab's cells into a new folder `out`, and a list of all.

    `out` gets NAME.ipynb per student and hand-ins.csv; the list that is returned has a line for each file
    that was handed in, `kept` or with a note why not. ValueError when `download` cannot be read, holds no
    notebook, or `out` holds something already; then nothing is written.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} holds something already: give a folder that does not exist yet.")
    with archives.opened(download) as entries:
        found = _newest(hand_ins(entries))
        if not any(_notebook(one.entry) for one in found):
            raise ValueError(f"{download} holds no notebooks (*.ipynb).")
        out.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
        try:
            found = _write(found, part)
            (part / LIST).write_text(_list(found), encoding="utf-8", newline="")
            os.chmod(part, 0o755)  # mkdtemp's folder is for its owner alone
            if out.exists():
                out.rmdir()  # it is empty; only POSIX would replace it
            os.replace(part, out)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return found


def hand_ins(entries: list[Entry]) -> list[HandIn]:
    """Whose each file is, when, how late: by the names that Canvas, Moodle and Gradescope give to files."""
    entries = [entry for entry in entries if not _by_itself(entry.name)]
    names = [entry.name.rsplit("/", 1)[-1] for entry in entries if _notebook(entry)]
    if listed := [entry for entry in entries if entry.name.rsplit("/", 1)[-1] == METADATA]:
        known = groups(listed[0].read())
        return [_gradescope(entry, known) for entry in entries if entry not in listed]
    if any(_moodle(entry.name) for entry in entries):
        return [_from_moodle(entry) for entry in entries]
    if names and all(map(CANVAS.fullmatch, names)):
        return [_canvas(entry) for entry in entries]
    roots = {entry.name.split("/")[0] for entry in entries}
    around = len(roots) == 1 and all("/" in entry.name for entry in entries)
    several = len(names) > 1 or any(entry.name.count("/") > 1 for entry in entries)
    return [_plain(entry, around and several) for entry in entries]


def safe(name: str, number: str = "") -> str:
    """A name for files and tables, the same when it is made safe again; it ends in _number, if any."""
    plain = name.encode("utf-8", "replace").decode()
    for _ in range(3):
        plain = _alias(plain)[0]
    number = number[:20]
    plain = plain[: 80 - len(number) - 1].strip(" .") or "unnamed"
    if plain.split(".")[0].strip().lower() in RESERVED:
        plain = f"_{plain}"[:79]
    return f"{plain}_{number}" if number else plain


def _by_itself(name: str) -> bool:
    """What computers add to a download and nobody handed in."""
    parts = name.replace("\\", "/").split("/")
    return (
        name.endswith("/")
        or "__MACOSX" in parts
        or any(part[:1] == "." and part.strip(".") for part in parts)
    )


def _notebook(entry: Entry) -> bool:
    return entry.name.lower().endswith(".ipynb")


def _moodle(name: str) -> re.Match | None:
    return next(filter(None, map(MOODLE.fullmatch, name.split("/"))), None)


def _canvas(entry: Entry) -> HandIn:
    match = CANVAS.fullmatch(entry.name.rsplit("/", 1)[-1])
    if match is None:
        return _nobodys(entry)
    file = match["file"] or match["named_file"]
    batch = (int(file[:30]), _again(entry))
    late = "yes" if match["late"] or match["named_late"] else "no"
    name = unicodedata.normalize("NFC", match["anonymous"] or match["name"])
    kind, number = ("user", match["user"]) if match["user"] else ("file", file)
    whose = Submitter("canvas", kind, number, name)
    student = safe(name, match["user"] or "")
    return HandIn(student, whose, entry, (*batch, entry.name), batch, late)


def _from_moodle(entry: Entry) -> HandIn:
    match = _moodle(entry.name)
    if match is None:
        return _nobodys(entry)
    name = unicodedata.normalize("NFC", match["name"])
    whose = Submitter("moodle", "user or group", match["user"], name)
    return HandIn(safe(name, match["user"]), whose, entry, (entry.when, _again(entry), entry.name))


def _again(entry: Entry) -> int:
    again = AGAIN.search(Path(entry.name).stem)
    return int(again[1][:9]) if again else 0


def _nobodys(entry: Entry, note: str = "its name does not say whose it is") -> HandIn:
    return HandIn("", Submitter(), entry, note=note)


def _gradescope(entry: Entry, known: dict[str, Group]) -> HandIn:
    folder = next((part for part in entry.name.split("/")[:-1] if GRADESCOPE.fullmatch(part)), "")
    group = known.get(folder)
    if group is None:
        return _nobodys(entry, f"{METADATA} does not say whose it is")
    number = folder.removeprefix("submission_")
    order = (group.when, int(number[:30]), entry.when, entry.name)
    entry = replace(entry, when=group.when or entry.when)
    whose = Submitter("gradescope", "submission", number, group.name, group.members)
    return HandIn(safe(group.name, number), whose, entry, order, batch=(number,))


def _plain(entry: Entry, inside: bool) -> HandIn:
    parts = entry.name.split("/")[inside:]
    name = parts[0] if len(parts) > 1 else re.sub(r"\.ipynb$", "", parts[0], flags=re.IGNORECASE)
    name = unicodedata.normalize("NFC", name)
    whose = submitter.from_folder(name)
    return HandIn(safe(name), whose, entry, (entry.when, entry.name), batch=(entry.when,))


def _newest(found: list[HandIn]) -> list[HandIn]:
    """By student, newest file first; students whose safe names are twins are told apart by a number."""
    known: dict[tuple[str, str], str] = {}
    taken: set[str] = set()
    by_student: dict[str, list[HandIn]] = {}
    for one in sorted(found, key=lambda one: (one.student, one.name)):
        who = (one.student, one.name)
        if who not in known:
            known[who] = student = next(
                name for name in _numbered(one.student) if name.casefold() not in taken
            )
            taken.add(student.casefold())
        note = one.note or ("its name was made safe" if one.name and safe(one.name) != one.name else "")
        by_student.setdefault(known[who], []).append(replace(one, student=known[who], note=note))
    return [
        one
        for student in sorted(by_student)
        for one in sorted(by_student[student], key=lambda one: (len(one.order), one.order), reverse=True)
    ]


def _numbered(student: str) -> Iterator[str]:
    yield student
    stem, _, number = student.rpartition("_") if re.search(r"_\d+$", student) else (student, "", "")
    for twin in itertools.count(2):
        yield f"{stem[:70]}-{twin}" + (f"_{number}" if number else "")


def _write(found: list[HandIn], folder: Path) -> list[HandIn]:
    """Write the notebook of each student that counts, and say of every other file why it does not."""
    result = []
    for student, files in itertools.groupby(found, key=lambda one: one.student):
        if not student:
            result += files
            continue
        said, data = _counting(list(files))
        for one in said:
            if one.kept:
                with open(folder / f"{student}.ipynb", "xb") as file:
                    file.write(data)
        result += said
    return result


def _counting(files: list[HandIn]) -> tuple[list[HandIn], bytes]:
    """A student's files, newest first, one of them `kept` and all others with a note; the bytes of that one.

    It is the newest notebook with a lab's cells; without any such, the newest that can be read. Where two
    such were handed in together, nobody can know which is meant, and none is kept.
    """
    notes: dict[int, str] = {}
    read: dict[bool, tuple[int, bytes]] = {}  # the newest with a lab's cells (True), and without
    rivals: dict[bool, list[int]] = {True: [], False: []}  # those that were handed in with it
    candidates = [n for n, one in enumerate(files) if _notebook(one.entry) and not one.entry.refused]
    for n, one in enumerate(files):
        if n not in candidates:
            notes[n] = one.entry.refused or "it is not a notebook (.ipynb)"
        elif True in read and one.batch != files[read[True][0]].batch:
            continue  # older than what counts
        else:
            try:
                data = one.entry.read()
            except Rejected as error:
                notes[n] = str(error)
                continue
            lab = len(candidates) > 1 and has_a_lab(data)
            read.setdefault(lab, (n, data))
            if one.batch == files[read[lab][0]].batch:
                rivals[lab].append(n)
    if not read:
        return [replace(one, note=notes[n]) for n, one in enumerate(files)], b""
    lab = True in read
    chosen, data = read[lab]
    together = sum(files[n].batch == files[chosen].batch for n in candidates)
    if unclear := len(rivals[lab]) > 1:
        notes |= dict.fromkeys(rivals[lab], which(together, len(rivals[True])))
    counts = "none counts" if unclear else f"{ascii(files[chosen].entry.name)} counts"
    for n, one in enumerate(files):
        older = n > chosen and one.batch != files[chosen].batch
        what = "an older hand-in" if older else "it has none of a lab's cells"
        notes.setdefault(n, f"{what}; {counts}")
    if not unclear:
        notes.pop(chosen)
    said = [
        replace(one, note=notes[n])
        if n in notes
        else replace(one, kept=True, sha256=hashlib.sha256(data).hexdigest())
        for n, one in enumerate(files)
    ]
    return said, data


def _list(found: list[HandIn]) -> str:
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    head = ["student", "name", *submitter.COLUMNS, "file", "handed in", "late", "counts", "note", "sha256"]
    rows.writerow(head)
    for one in found:
        cells = [one.student, one.name, *submitter.as_cells(one.submitter)]
        cells += [ascii(one.entry.name)[1:-1], one.entry.when, one.late]
        cells += ["yes" if one.kept else "no", one.note, one.sha256]
        rows.writerow([guarded(printable(cell)) for cell in cells])
    return table.getvalue()
