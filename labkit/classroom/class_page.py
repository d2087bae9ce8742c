"""One page for the instructor: what the class understood, exercise by exercise, and nobody's name."""

from __future__ import annotations

import collections

from labkit.classroom import marks, pages

SHARED = 2  # a wrong answer is shown when so many students gave it: nobody is recognised by it
MOST = 8


def class_page(lines: list[dict], named: dict[tuple[str, str], str]) -> str:
    """The page of a run; `named` has the recognised misconceptions, by student and exercise."""
    scored = marks.graded(lines)
    body = [_statuses(lines)]
    body += [_distribution(scored)] if scored else []
    for name in sorted({name for line in lines for name in line["exercises"]}):
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
    """(check, what came back, students) of wrong answers without a name that several students gave."""
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    for line in lines:
        about = line["exercises"].get(name, {"marks": []})
        failed = [mark for mark in about["marks"] if not mark["holds"]]
        if failed and (line["student"], name) not in named:
            counts[f"It {failed[0]['name']}", failed[0]["reason"]] += 1
    shared = [(check, reason, count) for (check, reason), count in counts.items() if count >= SHARED]
    return sorted(shared, key=lambda one: (-one[2], one[:2]))[:MOST]


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
