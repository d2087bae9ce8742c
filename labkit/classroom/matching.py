"""Which rows of a platform's own file a mark belongs to: by number, login or name, or it is refused.

A number counts only where platform and kind are those of the file, and only beside a name that fits: the
number of a group, a file or another platform may be somebody else's here.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from labkit.grading import submitter
from labkit.grading.submitter import Member, Submitter

NUMBER = re.compile(r"(.+)_(\d+)")
ANOTHER = "grade what counts into another folder of marks"
ANONYMOUS = (
    f"it was handed in without a name: end anonymous grading, collect the download again, and {ANOTHER}"
)


@dataclass(frozen=True)
class Row:
    """A student in a gradebook or worksheet; `names` as they may be written, the first to be printed."""

    place: int
    number: str
    names: tuple[str, ...]
    logins: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.names[0]


class Unmatched(ValueError):
    """A hand-in whose row is not known beyond doubt, with the reason."""


def rows_of(lines: list[dict], rows: list[Row], platform: str, file: str) -> dict[str, list[Row]]:
    """student -> their row in a `file` of `platform`, or those of all the team's members.

    ValueError, with a line for everybody who is not there, there twice, or there beside another hand-in.
    """
    found: dict[str, list[Row]] = {}
    taken: dict[int, str] = {}
    wrong = []
    for line in lines:
        student = line["student"]
        try:
            theirs = _rows(line, rows, platform)
            for row in theirs:
                if row.place in taken:
                    raise Unmatched(f"a second hand-in of {row.name}, beside {taken[row.place]}: {ANOTHER}")
        except Unmatched as error:
            wrong.append(f"- {called(line)}: {error}")
            continue
        found[student] = theirs
        taken |= {row.place: student for row in theirs}
    if wrong:
        raise ValueError(
            f"{len(wrong)} of {len(lines)} students are not in this {file}, or not beyond doubt; nothing was "
            "written.\n" + "\n".join(wrong)
        )
    return found


def called(line: dict) -> str:
    """A hand-in's safe name, and what it was handed in as where that says more."""
    whose = str(submitter.of(line))
    return line["student"] if whose in ("", line["student"]) else f"{line['student']}, handed in as {whose}"


def _rows(line: dict, rows: list[Row], platform: str) -> list[Row]:
    who = submitter.of(line)
    if who.kind == "file":
        raise Unmatched(ANONYMOUS)
    if who.members:
        found = [_member(one, rows) for one in who.members]
        if len({row.place for row in found}) < len(found):
            raise Unmatched(f"of its {len(found)} members two are one student here")
        return found
    if not who.platform:
        return [_unrecorded(line["student"], rows)]
    if who.platform == platform and who.kind in ("user", "user or group"):
        return _numbered(who, rows)
    return [_member(Member(who.name), rows, [who.number] if who.kind == "login" else ())]


def _numbered(who: Submitter, rows: list[Row]) -> list[Row]:
    """By a number of this platform's; where that of a group cannot be told apart, also all of the group."""
    there = [row for row in rows if row.number == who.number]
    theirs = [row for row in there if fits(who.name, row)]
    called, grouped = _key(who.name), "group" in who.kind
    team = [row for row in rows if grouped and called and called in map(_key, row.groups)]
    if team and theirs:
        raise Unmatched(f"a group is called {who.name!r}, and so is {theirs[0].name}: enter this one by hand")
    if team:
        return [_one([row for row in rows if row.number == one.number]) for one in team]
    if there and not theirs:
        raise Unmatched(
            f"number {who.number} is {there[0].name!r} here, another name: a team's hand-in, or of another "
            "assignment? Enter this one by hand"
        )
    return [_one(theirs)]


def _unrecorded(student: str, rows: list[Row]) -> Row:
    """In ledgers of older editions a hand-in is a safe name, which ends in a number of whatever kind."""
    split = NUMBER.fullmatch(student)
    if split and not _with_login([student], rows):
        there = [row for row in rows if row.number == split[2] and fits(split[1], row)]
        if there:
            return _one(there)
    there = _with_login([student], rows)
    return _one(there) if there else _named(student, rows)


def _member(one: Member, rows: list[Row], login: Sequence[str] = ()) -> Row:
    """By what is theirs alone, else by a name that nobody else has. A student number needs the name too.

    `login` is one that was typed as a file's name: there is no other name to compare.
    """
    there = _with_login(login, rows)
    for text in one.logins:
        there += [row for row in _with_login([text], rows) if not text.isdigit() or fits(one.name, row)]
    if there:
        return _one(there)
    row = _named(one.name, rows)
    if not _is(one.name, row, exactly=True):
        raise Unmatched(f"{one.name!r} is almost {row.name!r}, and may be another: enter this one by hand")
    return row


def _named(name: str, rows: list[Row]) -> Row:
    return _one([row for row in rows if _is(name, row)], name)


def _is(name: str, row: Row, exactly: bool = False) -> bool:
    """Whether it is the row's name, perhaps before a number; accents count only where `exactly`."""
    split = NUMBER.fullmatch(name)
    names = {key for one in (name, split[1] if split else "") for key in _keys(one, exactly)}
    return any(names & _keys(there, exactly) for there in row.names)


def _with_login(logins: Sequence[str], rows: list[Row]) -> list[Row]:
    wanted = {login.casefold() for login in logins}
    return [row for row in rows if wanted & {login.casefold() for login in row.logins}]


def _one(found: list[Row], name: str = "") -> Row:
    if not found:
        raise Unmatched(f"not in it{f': {name!r}' if name else ''}")
    if len({row.place for row in found}) > 1:
        places = ", ".join(f"{row.name!r} in row {row.place + 1}" for row in found)
        raise Unmatched(f"there more than once: {places}")
    return found[0]


def fits(name: str, row: Row) -> bool:
    """Whether a name as it was handed in can be this row's: the same, a part of it, or after "Group-"."""
    parts = name.split("-")
    whole = {key for n in range(len(parts)) for key in _keys("-".join(parts[n:]))}
    words = set(_words(name))
    return any(whole & _keys(there) or (words and words <= set(_words(there))) for there in row.names)


def _words(name: str, exactly: bool = False) -> list[str]:
    """Letters and digits alone: platforms drop signs, orders and capitals as they like, and some accents.

    Vowel signs of other scripts are no accents: they stay.
    """
    plain = unicodedata.normalize("NFKC" if exactly else "NFKD", name.casefold())
    plain = "".join(sign for sign in plain if exactly or not unicodedata.combining(sign))
    kept = (sign if sign.isalnum() or unicodedata.category(sign)[0] == "M" else " " for sign in plain)
    return "".join(kept).split()


def _key(name: str) -> str:
    return "".join(_words(name))


def _keys(name: str, exactly: bool = False) -> set[str]:
    """The name in one word, from whichever of its words it begins: "Bell, Ann" is "Ann Bell"."""
    words = _words(name, exactly)
    return {"".join(words[n:] + words[:n]) for n in range(len(words))}
