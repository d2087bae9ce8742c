"""The page that a workbook opens with: the labs in order, what is solved, and where to go on."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from labkit.files import write_atomically
from labkit.lessons import exercises, labs, progress
from labkit.paths import checkout_root
from labkit.release import editions, promises
from labkit.release.workbook import newer

NAME = "START HERE.md"
SEAL = "<!-- made by labkit start: {} -->"  # a page that it fits is as we wrote it
PAGE = """\
# labkit: fine-tuning with few parameters, by hand

You will take the methods of the lecture apart, build each of them in a few lines, and see them find tumours
in medical volumes, on this computer.

{ahead}

| | lab | minutes | memory | points | solved |
| --- | --- | ---: | ---: | ---: | ---: |
{rows}

This page knows what you had solved when the course was last started; `labkit progress` in a terminal says
how it stands now.

## How it goes

* **Run a cell** by Shift+Enter, from top to bottom. Write down what you predict before you do.
* **Solve an exercise**: replace the line `raise NotImplementedError` and run the check below it.
  `lab.hint("name")` helps, as often as you like; it costs nothing. An unsolved exercise never stops a lab:
  later cells use labkit's own.
* **Save** by Ctrl+S. Your files are never overwritten, whatever is started or updated.
* **Look at it as the grader will**: in a terminal (File, New, Terminal) type `labkit check 00`.
* **Hand in**: `labkit submit 00` makes the file and says what is in it.
* **Start an exercise over**: `lab.reset("dice")` as the first line of its cell, or `labkit reset 00 dice`
  with the lab closed. Your answer stays below as a comment. **A whole lab**: rename its file, and start the
  course again.
* **A new edition** of a lab is laid beside your file, with your answers in it: go on there.
* **Stop**: File, Shut Down. A tab that is closed goes on holding memory; two open labs hold 3 to 4 GB.
* **Something is wrong**: `labkit doctor` looks for the cause and names the cure. A picture that does not move
  belongs to a kernel that was restarted: run its cell again.

## Words

* **ET, WT, TC**: enhancing tumour, whole tumour (oedema included), tumour core (without it); regions of BraTS
* **Dice**: overlap of two masks, twice what they share over the sum of their sizes; 1 is perfect, 0 nothing
* **HD95**: Hausdorff distance; how far apart two outlines lie, in mm, the farthest 5 % left out
* **backbone, head**: the pretrained network that sees, and the small part behind it that names what is seen
* **prompt**: learned numbers that are put before a transformer's input tokens
* **rank**: of how many outer products of two vectors a change of a matrix is made
* **adapter**: a narrow pair of layers, put into a frozen network
"""


@dataclass(frozen=True)
class About:
    """A lab as the page shows it."""

    name: str
    title: str
    minutes: int
    memory: float  # GB
    points: int
    exercises: int
    file: str  # in the workbook; a newer edition is another one than the lab's own


def about(source: Path, workbook: Path) -> About:
    """Title, minutes, points and number of exercises, as the lab's source says them; its newest file."""
    text = source.read_text(encoding="utf-8")
    title = re.search(r"^# # Lab \d+: (.+)$", text, re.MULTILINE)
    promised = promises.promised(source)
    cells = editions.instructor(source).cells
    points = sum(cell.metadata.get("labkit", {}).get("points", 0) for cell in cells)
    name = source.stem
    count = len(exercises(name)) if name in labs() else 0
    minutes, memory = promised or (0, 0.0)
    first = f"{name}.ipynb"
    file = newer(workbook, name, first) or first
    return About(name, title[1] if title else name, minutes, memory, points, count, file)


def make(workbook: Path) -> Path:
    """Write the page anew, as things stand now. A page that somebody edited stays as it is."""
    page, text = workbook / NAME, _text(workbook)
    if page.exists() and not _ours(page):
        return page
    whole = f"{SEAL.format(_hash(text))}\n{text}"
    write_atomically(page, lambda part: part.write_text(whole, encoding="utf-8", newline="\n"))
    return page


def _text(workbook: Path) -> str:
    kept = progress.read(workbook)
    found = [about(source, workbook) for source in sorted((checkout_root() / "notebooks").glob("*.py"))]
    there = [one for one in found if (workbook / f"{one.name}.ipynb").exists()]
    done = {one.name: len(progress.solved(kept, one.name) & _names(one)) for one in there}
    following = next((one for one in there if done[one.name] < one.exercises), None)
    rows = [_row(one, done[one.name], one is following) for one in there]
    if following is None:
        ahead = "All exercises are solved. Open any lab again, or go on with scans of your own."
    elif any(done.values()):
        ahead = f"**Continue with {_link(following)}.**"
    else:
        ahead = (
            f"**Begin with {_link(following)}.** The labs build on each other, so take them in this order."
        )
    return PAGE.format(ahead=ahead, rows="\n".join(rows))


def _names(one: About) -> set[str]:
    return set(exercises(one.name)) if one.name in labs() else set()


def _link(one: About) -> str:
    return f"[Lab {one.name[:2]}: {one.title}]({quote(one.file)})"


def _row(one: About, done: int, is_next: bool) -> str:
    mark = "**→**" if is_next else "✓" if one.exercises and done == one.exercises else ""
    takes = f"{one.minutes} | {one.memory:.1f} GB" if one.minutes else " | "
    return f"| {mark} | {_link(one)} | {takes} | {one.points} | {done} of {one.exercises} |"


def _ours(page: Path) -> bool:
    first, _, rest = page.read_text(encoding="utf-8").partition("\n")
    return first == SEAL.format(_hash(rest))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
