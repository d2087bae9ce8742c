"""One page for the instructor: what the class understood, exercise by exercise, and nobody's name."""

from __future__ import annotations

import builtins
import collections
import re

from labkit.classroom import marks, pages

OTHER = "its result is another one"
# What numbers and arrays are shown in (lessons.compare): nobody can say more by them than a wrong result.
WORDS = set(
    "expected got of shape from to sum tensor array dtype torch bool int8 int16 int32 int64 uint8 float16 "
    "bfloat16 float32 float64 complex64 complex128 nan inf None True False a an or plain whole number text "
    "NumPy function several values no more none it".split()
)
FIGURE = re.compile(r"\d+(?:e\d*)?j?")
SHARED = 2  # a wrong answer is shown when so many students gave it: nobody is recognised by it
MOST = 8


def class_page(lines: list[dict], named: dict[tuple[str, str], str]) -> str:
    """The page of a run; `named` has the recognised misconceptions, by student and exercise."""
    scored = marks.graded(lines)
    body = [_statuses(lines)]
    body += [_distribution(scored)] if scored else []
    for name in marks.exercises(lines):
        body.append(_exercise(name, lines, named))
    return pages.page(f"Class: {lines[0]['lab']}", body)


def outcomes(name: str, lines: list[dict], named: dict) -> list[tuple[str, int]]:
    """What became of one exercise, (outcome, students): right, the mistakes by name, and the rest."""
    counts: collections.Counter[str] = collections.Counter()
    mistakes: collections.Counter[str] = collections.Counter()
    for line in lines:
        about = line["exercises"].get(name)
        if about is None:
            counts["no notebook that can be read"] += 1
        elif about["score"] == about["points"]:
            counts["right"] += 1
        elif about["status"] != "graded":
            counts[about["status"]] += 1
        elif sentence := named.get((line["student"], name)):
            mistakes[sentence] += 1
        else:
            counts["wrong in another way"] += 1
    order = ["right", *mistakes, *sorted(set(counts) - {"right"})]
    both = counts | mistakes
    rank = {label: -mistakes[label] for label in mistakes}
    return [
        (label, both[label])
        for label in sorted(order, key=lambda one: (one != "right", rank.get(one, 1), one))
    ]


def wrong_answers(name: str, lines: list[dict], named: dict) -> list[tuple[str, str, int]]:
    """(check, what came back, students) of wrong answers without a name that several students gave.

    Only in words of ours: two who agree could otherwise say here whatever they like.
    """
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    for line in lines:
        about = line["exercises"].get(name, {"marks": []})
        failed = [mark for mark in about["marks"] if not mark["holds"]]
        if failed and (line["student"], name) not in named:
            counts[f"It {failed[0]['name']}", failed[0]["reason"]] += 1
    shared = [
        (check, in_our_words(reason), count) for (check, reason), count in counts.items() if count >= SHARED
    ]
    return sorted(shared, key=lambda one: (-one[2], one[:2]))[:MOST]


def in_our_words(reason: str) -> str:
    """A mark's reason where it is figures and words of ours, or the name of an error of Python's."""
    if reason.isascii() and all(w in WORDS or FIGURE.fullmatch(w) for w in re.findall(r"\w+", reason)):
        return reason
    error = getattr(builtins, reason.partition(":")[0], None)
    raised = isinstance(error, type) and issubclass(error, BaseException)
    return f"it raised {error.__name__}" if raised else OTHER


def _exercise(name: str, lines: list[dict], named: dict) -> str:
    found = outcomes(name, lines, named)
    parts = [
        f"<h2>{pages.text(name)}</h2>",
        pages.tally(found, len(lines), ("Outcome", "Students"), "What became of it; mistakes by name"),
    ]
    if shared := wrong_answers(name, lines, named):
        caption = f"{name}: wrong answers without a name, given by {SHARED} students or more"
        parts.append(pages.table(["The first check it failed", "Because", "Students"], shared, caption, 1))
    return "<section>\n" + "\n".join(parts) + "\n</section>"


def _statuses(lines: list[dict]) -> str:
    found = collections.Counter(line["status"] for line in lines)
    reasons = collections.Counter(line["reason"] for line in lines if line["status"] == "rejected")
    rows = [[status, found[status]] for status in sorted(set(found) - {"rejected"})]
    rows += [[f"rejected: {reason}", count] for reason, count in sorted(reasons.items())]
    return pages.table(["Hand-ins", "Number"], rows, f"{len(lines)} hand-ins", numbers=1)


def _distribution(lines: list[dict]) -> str:
    """How many students have which share of the points, in tenths."""
    tenths = collections.Counter(
        min(9, int(10 * line["score"] / line["points"])) if line["points"] else 0 for line in lines
    )
    counts = [(f"{10 * tenth} to {10 * tenth + 10} %", tenths[tenth]) for tenth in range(10)]
    shares = pages.tally(counts, len(lines), ("Of the points", "Students"), "How many students have how much")
    return f"<section>\n<h2>Points</h2>\n{shares}\n</section>"
