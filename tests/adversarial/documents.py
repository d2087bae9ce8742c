"""Hostile or broken files as a whole: what `write` makes of an honest notebook, and what is expected of it.

`expect` is (status of the submission, points for `dice`, part of the reason or of a flag).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HONEST = (Path(__file__).parent / "cases" / "52_honest.cell").read_text()


@dataclass(frozen=True)
class Document:
    name: str
    expect: tuple[str, float, str]
    write: Callable[[dict], bytes]  # from the student's edition with an honest `dice`


def changed(change: Callable[[dict], object]) -> Callable[[dict], bytes]:
    """A notebook with a change made in place."""

    def write(notebook: dict) -> bytes:
        notebook = copy.deepcopy(notebook)
        change(notebook)
        return json.dumps(notebook).encode()

    return write


def cell(notebook: dict, id_: str = "dice") -> dict:
    return next(one for one in notebook["cells"] if one["id"] == id_)


def place(notebook: dict) -> int:
    return notebook["cells"].index(cell(notebook))


def code(source: str, **more) -> dict:
    return {
        "cell_type": "code",
        "source": source,
        "metadata": {},
        "outputs": [],
        "execution_count": None,
        **more,
    }


def forge_outputs(notebook: dict) -> None:
    cell(notebook)["source"] = "def dice(prediction, truth):\n    return 0.1"
    cell(notebook, "dice-check")["outputs"] = [
        {"output_type": "stream", "name": "stdout", "text": "PASS: dice"}
    ]
    cell(notebook, "dice-check")["execution_count"] = 7


def edit_check(notebook: dict) -> None:
    cell(notebook)["source"] = "def dice(prediction, truth):\n    return 0.1"
    cell(notebook, "dice-check")["source"] = "print('PASS')"


def reorder(notebook: dict) -> None:
    notebook["cells"].reverse()


def twice(notebook: dict) -> None:
    first = copy.deepcopy(cell(notebook))
    first["source"] = "def dice(prediction, truth):\n    return 0.1"
    notebook["cells"].insert(place(notebook), first)


def without_ids(notebook: dict) -> None:
    notebook["nbformat_minor"] = 4
    for one in notebook["cells"]:
        del one["id"]


def without_ids_and_metadata(notebook: dict) -> None:
    without_ids(notebook)
    for one in notebook["cells"]:
        one["metadata"] = {}


def with_helper(notebook: dict) -> None:
    cell(notebook)["source"] = "def dice(prediction, truth):\n    return _helper(prediction, truth)"
    notebook["cells"].insert(place(notebook), code(HONEST.replace("def dice", "def _helper"), id="mine"))


def homoglyph(notebook: dict) -> None:
    cell(notebook)["metadata"] = {"tags": ["nbval-skiр"], "labkit": {"exercise": "diсe", "role": "answer"}}
    cell(notebook)["id"] = "diсe"  # with a Cyrillic letter


def zero_width(notebook: dict) -> None:
    cell(notebook)["metadata"] = {"labkit": {"exercise": "dice\u200b", "role": "answer"}}
    cell(notebook)["id"] = "di\u200bce"


def version_3(notebook: dict) -> bytes:
    cells = [
        {"cell_type": "code", "input": one["source"], "metadata": {}, "outputs": [], "language": "python"}
        for one in notebook["cells"]
        if one["cell_type"] == "code"
    ]
    return json.dumps({"nbformat": 3, "nbformat_minor": 0, "worksheets": [{"cells": cells}]}).encode()


def many_cells(notebook: dict) -> None:
    notebook["cells"] += [code("pass", id=f"c{number}") for number in range(20_000)]


def merge_marks(notebook: dict) -> bytes:
    text = json.dumps(notebook, indent=1)
    half = text.index("\n", len(text) // 2)
    return f"{text[:half]}\n<<<<<<< HEAD\n=======\n>>>>>>> theirs{text[half:]}".encode()


def text_of(notebook: dict) -> bytes:
    return json.dumps(notebook).encode()


def rejected(name: str, reason: str, write: Callable[[dict], bytes]) -> Document:
    return Document(name, ("rejected", 0, reason), write)


DOCUMENTS = [
    Document("25_forged_outputs", ("graded", 0, "expected"), changed(forge_outputs)),
    Document("26_edited_check", ("graded", 0, "the check cell was edited"), changed(edit_check)),
    Document(
        "26_deleted_check", ("graded", 3, ""), changed(lambda n: n["cells"].remove(cell(n, "dice-check")))
    ),
    Document("26_reordered", ("graded", 3, ""), changed(reorder)),
    Document(
        "26_answer_made_text",
        ("graded", 0, "answer cell not found"),
        changed(lambda n: cell(n).update(cell_type="markdown")),
    ),
    Document("27_deleted_answer", ("graded", 0, "not found"), changed(lambda n: n["cells"].remove(cell(n)))),
    Document("28_two_answers", ("graded", 3, "2 answer cells"), changed(twice)),
    Document("29_no_ids", ("graded", 3, "found by its metadata"), changed(without_ids)),
    Document("29_bare", ("graded", 3, "found by the name it defines"), changed(without_ids_and_metadata)),
    Document("29_helper_cell", ("graded", 3, ""), changed(with_helper)),
    Document(
        "30_skip_tags",
        ("graded", 3, ""),
        changed(lambda n: cell(n)["metadata"].update(tags=["nbval-skip", "raises-exception"])),
    ),
    Document("31_homoglyph", ("graded", 3, "found by the name it defines"), changed(homoglyph)),
    Document("31_zero_width", ("graded", 3, "found by the name it defines"), changed(zero_width)),
    rejected("32_truncated", "is not JSON", lambda n: text_of(n)[:5000]),
    rejected("32_list", "holds no cells", lambda n: b"[]"),
    rejected("32_empty", "is empty", lambda n: b"\n"),
    rejected("32_utf16", "not UTF-8", lambda n: json.dumps(n).encode("utf-16")),
    rejected("32_merge", "unfinished merge", merge_marks),
    Document("32_bom", ("graded", 3, ""), lambda n: b"\xef\xbb\xbf" + text_of(n)),
    Document("32_nul", ("graded", 0, "SyntaxError"), changed(lambda n: cell(n).update(source="\0" + HONEST))),
    Document(
        "32_lone_surrogate",
        ("graded", 3, ""),
        changed(lambda n: cell(n).update(source=HONEST + "\n# \ud800")),
    ),
    rejected("33_deep", "too deep", lambda n: b"[" * 10_000 + b"]" * 10_000),
    rejected("33_deep_metadata", "too deep", lambda n: b'{"a":' * 500 + b"1" + b"}" * 500),
    rejected("33_many_cells", "more than 2000 cells", changed(many_cells)),
    rejected("33_huge", "larger than", lambda n: b" " * (200 << 20)),
    rejected("33_large", "larger than 5 MB", lambda n: text_of(n) + b" " * (6 << 20)),
    rejected("34_version_99", "format 3 or 4", changed(lambda n: n.update(nbformat=99))),
    rejected("34_version_text", "format 3 or 4", changed(lambda n: n.update(nbformat="4"))),
    rejected("34_source_number", "has no text", changed(lambda n: cell(n).update(source=1))),
    rejected("34_no_source", "has no text", changed(lambda n: cell(n).pop("source"))),
    rejected("34_cell_number", "is no cell", changed(lambda n: n["cells"].append(5))),
    Document("34_version_3", ("graded", 3, "found by the name"), version_3),
    Document(
        "35_other_kernel",
        ("graded", 3, ""),
        changed(lambda n: n["metadata"].update(kernelspec={"name": "ir", "display_name": "R"})),
    ),
    Document("52_untouched", ("graded", 0, "still the stub"), changed(lambda n: cell(n).update(source=STUB))),
    Document("52_emptied", ("graded", 0, "still the stub"), changed(lambda n: cell(n).update(source="  \n"))),
]
STUB = (
    "def dice(prediction, truth):\n"
    '    """Dice score of two boolean masks: 0 to 1, and 1 when both are empty."""\n'
    '    raise NotImplementedError("dice")'
)
