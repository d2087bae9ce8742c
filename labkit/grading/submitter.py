"""Whose a hand-in is, as its platform named it: kept from the download through the ledger to the export.

A number says nothing by itself: platforms count users, groups, files and submissions, each from one. It is
therefore kept with its platform and with what it counts, and the name beside it as it was written.
"""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from dataclasses import asdict, dataclass
from pathlib import Path

LIST = "hand-ins.csv"
COLUMNS = ("platform", "kind", "number", "members")  # beside "student" and "name"
FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Member:
    """One of those who handed in together; `logins` are what is theirs alone: e-mail, student number."""

    name: str
    logins: tuple[str, ...] = ()


@dataclass(frozen=True)
class Submitter:
    """Who handed something in; what is not known is empty, and all of it in ledgers of older editions.

    `kind` is what `number` counts there: "user", "user or group" (names in Moodle's downloads do not say
    which), "file", "submission", or "login", the name that a file in a plain folder has.
    """

    platform: str = ""  # "canvas", "moodle", "gradescope", "folder"
    kind: str = ""
    number: str = ""
    name: str = ""
    members: tuple[Member, ...] = ()  # where the platform lists them

    def __str__(self) -> str:
        """For sentences: the name, and the number with what it is."""
        if self.kind in ("", "login"):
            return self.name
        return f"{self.name} ({self.platform.capitalize()}, {self.kind} {self.number})"


def from_folder(name: str) -> Submitter:
    """Of a file or folder that was called `name`; signs that hide or move a cursor become "?"."""
    name = printable(unicodedata.normalize("NFC", name))
    return Submitter("folder", "login", name, name)


def of(line: dict) -> Submitter:
    """Of a line of the ledger."""
    about = dict(line.get("submitter") or {})
    members = tuple(Member(one["name"], tuple(one["logins"])) for one in about.pop("members", ()))
    return Submitter(**about, members=members)


def latest(lines: list[dict]) -> dict[str, dict]:
    """Of lines of a ledger the one that counts of each student or team, by the name it stands under.

    That is the last one; on Gradescope, where each hand-in has a number of its own, that of the newest one.
    """
    found: dict[tuple, dict] = {}
    for line in lines:
        who = person(line)
        if who not in found or _order(line) >= _order(found[who]):
            found[who] = line
    return {line["student"]: line for line in found.values()}


def person(line: dict) -> tuple[str, ...]:
    """What lines of one student or team have in common, however often they handed in."""
    whose = of(line)
    if whose.kind == "submission" and whose.members and all(one.logins for one in whose.members):
        return (whose.platform, *sorted(one.logins[0].casefold() for one in whose.members))
    return (line["student"],)


def _order(line: dict) -> int:
    whose = of(line)
    return int(whose.number) if whose.kind == "submission" and whose.number.isdecimal() else 0


def as_cells(one: Submitter) -> list[str]:
    """The cells of COLUMNS."""
    members = json.dumps([asdict(member) for member in one.members], ensure_ascii=False)
    return [one.platform, one.kind, one.number, members if one.members else ""]


def listed(folder: Path) -> dict[str, Submitter]:
    """student -> whose their notebook is, from the list that `labkit collect` left in `folder`.

    Empty without a list, or with one of somebody else's. ValueError when it is ours and cannot be read.
    """
    path = Path(folder) / LIST
    if path.is_symlink() or not path.is_file():
        return {}
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))
        if not rows or not {"student", "name", "counts", *COLUMNS} <= set(rows[0]):
            return {}
        found: dict[str, Submitter] = {}
        for row in rows:
            if row["counts"] != "yes":
                continue
            if row["student"] in found:
                raise ValueError("a student twice")
            members = [{**one, "logins": tuple(one["logins"])} for one in json.loads(row["members"] or "[]")]
            found[row["student"]] = Submitter(
                *(unguarded(row[name]) for name in ("platform", "kind", "number", "name")),
                tuple(Member(**one) for one in members),
            )
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise ValueError(
            f"{path} is not as `labkit collect` wrote it ({error}): without it nobody knows whose marks "
            "these are. Collect the download again into a new folder."
        ) from error
    return found


def guarded(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.lstrip("'").startswith(FORMULA) else cell


def unguarded(cell: str) -> str:
    return cell[1:] if cell[:1] == "'" and cell.lstrip("'").startswith(FORMULA) else cell


def printable(text: str) -> str:
    """A text without signs that move a cursor, hide, or turn the direction of writing."""
    text = text.encode("utf-8", "replace").decode()
    return "".join(sign if sign.isprintable() else "?" for sign in text)
