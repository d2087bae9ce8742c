"""Gradescope: who handed in what, from its export's list; and results.json, which its autograder shows.

results.json as documented under "Autograder specifications" on gradescope-autograders.readthedocs.io.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from labkit import files
from labkit.grading.submitter import Member, printable

METADATA = "submission_metadata.yml"


@dataclass(frozen=True)
class Group:
    """Who handed in one submission, one student or several together, and when."""

    members: tuple[Member, ...]
    when: str

    @property
    def name(self) -> str:
        return " and ".join(filter(None, (one.name for one in self.members))) or "unnamed"


def groups(data: bytes) -> dict[str, Group]:
    """submission_N -> who and when, from submission_metadata.yml; ValueError when it is no such list.

    The file is YAML as Ruby writes it, with keys such as `:name:`. It is read as plain texts: no tag makes an
    object of any kind.
    """
    import yaml

    try:
        found = yaml.load(data, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader))
        return {
            str(key).removeprefix(":"): Group(_members(about), str(_get(about, "created_at") or "")[:40])
            for key, about in found.items()
            if isinstance(about, dict)
        }
    except (yaml.YAMLError, AttributeError, ValueError, TypeError, RecursionError):
        raise ValueError(
            f"{METADATA} is not as Gradescope writes it: export the submissions again."
        ) from None


def _members(about: dict) -> tuple[Member, ...]:
    people = _get(about, "submitters")
    people = people if isinstance(people, list) else []
    return tuple(member(one) if isinstance(one, dict) else Member("") for one in people)


def member(about: dict) -> Member:
    """One of a submission's students, from their name, e-mail and `sid`, the school's own number."""
    name, email, sid = (_word(_get(about, key)) for key in ("name", "email", "sid"))
    return Member(name or email, tuple(filter(None, (email, sid))))


def _word(value: object) -> str:
    return printable(value.strip()) if isinstance(value, str) else ""


def _get(about: dict, key: str):
    return about.get(f":{key}", about.get(key))


def results(line: dict, shown: dict[str, set[str]], named: dict[tuple[str, str], str]) -> dict:
    """What Gradescope shows of one line of the ledger; ValueError for a doubt, which is no result.

    `shown`: exercise -> the checks that students may see; of others nothing is said. `named`: the recognised
    misconceptions, by student and exercise.
    """
    from labkit.grading.evidence import clean

    if line["score"] is None:
        raise ValueError(f"{line['student']} has no score yet: grade again before you export.")
    who = line["student"]
    tests = [
        {
            "name": name,
            "name_format": "text",
            "score": about["score"],
            "max_score": about["points"],
            "status": "passed" if about["score"] == about["points"] else "failed",
            "output": clean("; ".join(_said(about, shown.get(name, set()), named.get((who, name)))), 2000),
            "output_format": "text",
            "visibility": "visible",
        }
        for name, about in line["exercises"].items()
    ]
    return {
        "score": line["score"],
        "output": clean(line["reason"] or line["status"]),
        "output_format": "text",
        "visibility": "after_published",
        "stdout_visibility": "hidden",
        "tests": tests,
    }


def write(lines: list[dict], folder: Path, shown: dict[str, set[str]]) -> list[Path]:
    """folder/STUDENT/results.json for every line that has a score."""
    written = []
    for line in lines:
        if line["score"] is not None:
            path = folder / line["student"] / "results.json"
            text = json.dumps(results(line, shown, {}), indent=1, ensure_ascii=True) + "\n"
            files.write_atomically(path, lambda part, text=text: part.write_text(text, encoding="utf-8"))
            written.append(path)
    return written


def _said(about: dict, shown: set[str], mistake: str | None) -> list[str]:
    """What became of an exercise, its mistake by name, and the checks that did not hold."""
    said = [about["status"], *filter(None, [about["reason"]])]
    said += [f"looks like: {mistake}"] if mistake else []
    return said + [
        f"not so: it {mark['name']}: {mark['reason']}"
        for mark in about["marks"]
        if not mark["holds"] and mark["name"] in shown
    ]
