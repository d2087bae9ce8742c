"""Thousands of broken notebooks, zips, tables: a sentence or a result, no traceback, nothing outside."""

from __future__ import annotations

import io
import json
import random
import shutil
import stat
import zipfile

import pytest

from labkit.classroom import submit
from labkit.classroom.downloads import collect
from labkit.classroom.gradescope import groups
from labkit.classroom.table import Table
from labkit.grading import parse, transplant

NOTEBOOKS, ZIPS, TABLES, LISTS = 1_600, 400, 500, 300
ODD = [
    None,
    True,
    -1,
    1e400,
    "",
    "\0",
    "\ud800",
    "\u202e",
    [],
    {},
    [[]],
    {"a": {}},
    "x" * 300,
    10**30,
    ["a", 1],
]
NAMES = [
    "ann",
    "..",
    "/",
    "\\",
    "C:",
    "\n",
    "\u202e",
    "\u674e",
    "CON",
    "=1+1",
    "_12_34_",
    "LATE_",
    ".ipynb",
    "/lab.ipynb",
]
NAMES += [
    "_assignsubmission_file_",
    "submission_7/",
    "__MACOSX/",
    "\0",
    "\x1b[31m",
    "a" * 200,
    ".",
    " ",
    "-1",
    "e\u0301",
]


@pytest.fixture(scope="module")
def edition():
    return submit.edition("00")


def broken_value(chance, value, depth=0):
    """The value with one thing in it replaced, removed or doubled."""
    if depth > 4 or chance.random() < 0.15 or not isinstance(value, (dict, list)) or not value:
        return chance.choice(ODD)
    if isinstance(value, dict):
        key = chance.choice(list(value))
        if chance.random() < 0.2:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: broken_value(chance, value[key], depth + 1)}
    place = chance.randrange(len(value))
    if chance.random() < 0.2:
        return value + [value[place]]
    return [*value[:place], broken_value(chance, value[place], depth + 1), *value[place + 1 :]]


def broken_bytes(chance, data):
    data = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        if not data:
            break
        place = chance.randrange(len(data))
        kind = chance.random()
        if kind < 0.5:
            data[place] = chance.randrange(256)
        elif kind < 0.7:
            del data[place : place + chance.randint(1, 40)]
        elif kind < 0.9:
            data[place:place] = chance.randbytes(chance.randint(1, 20))
        else:
            del data[place + 1 :]
    return bytes(data)


def test_a_broken_notebook_is_read_or_refused_in_one_sentence(edition):
    chance = random.Random(0)
    small = dict(json.loads(json.dumps(edition)))
    small["cells"] = [cell for cell in small["cells"] if cell["metadata"].get("labkit")]
    text = json.dumps(small).encode()
    outcomes = {"read": 0, "refused": 0}
    for number in range(NOTEBOOKS):
        if number % 2:
            data = broken_bytes(chance, text)
        else:
            data = json.dumps(broken_value(chance, small)).encode()
        try:
            cells = parse.parse(data)
        except ValueError as error:
            assert str(error) and "\n" not in str(error)
            outcomes["refused"] += 1
            continue
        assert all(isinstance(cell[key], str) for cell in cells for key in cell)
        given = transplant.answers(cells, edition)
        assert set(given) == {"regions", "dice", "tumour_ml"}
        outcomes["read"] += 1
    assert min(outcomes.values()) > NOTEBOOKS // 10, "both outcomes are really tried"


def random_zip(chance):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", chance.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        for _ in range(chance.randint(1, 6)):
            info = zipfile.ZipInfo("x")
            info.filename = "".join(chance.choices(NAMES, k=chance.randint(1, 4))) + chance.choice(
                ["", ".ipynb"]
            )
            info.external_attr = chance.choice([0, stat.S_IFLNK | 0o777, stat.S_IFREG, stat.S_IFCHR]) << 16
            archive.writestr(
                info, chance.choice([b"", b"{}", b"/etc/passwd", chance.randbytes(300), bytes(5000)])
            )
    return made.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_broken_zip_writes_nothing_but_plain_files_into_its_folder(tmp_path):
    chance = random.Random(1)
    outcomes = {"collected": 0, "refused": 0}
    for number in range(ZIPS):
        data = random_zip(chance)
        (tmp_path / "a.zip").write_bytes(broken_bytes(chance, data) if number % 3 == 0 else data)
        try:
            found = collect(tmp_path / "a.zip", tmp_path / "out")
        except ValueError as error:
            assert str(error)
            outcomes["refused"] += 1
        else:
            names = {f"{one.student}.ipynb" for one in found if one.kept} | {"hand-ins.csv"}
            assert {path.name for path in (tmp_path / "out").iterdir()} == names
            assert all(stat.S_ISREG(path.lstat().st_mode) for path in (tmp_path / "out").iterdir())
            assert all(one.kept or one.note for one in found)
            text = (tmp_path / "out" / "hand-ins.csv").read_text(encoding="utf-8")
            assert all(line.isprintable() for line in text.split("\n"))
            shutil.rmtree(tmp_path / "out")
            outcomes["collected"] += 1
        assert [path.name for path in tmp_path.iterdir()] == ["a.zip"], number
    assert min(outcomes.values()) > ZIPS // 10, outcomes


def test_a_broken_table_comes_out_as_it_went_in():
    chance = random.Random(2)
    signs = [b'"', b",", b";", b"\n", b"\r\n", b"\r", b"a", b"\xff", "\u00e9".encode(), b" ", b'""', b"1.5"]
    for _ in range(TABLES):
        data = b"".join(chance.choices(signs, k=chance.randint(0, 60)))
        table = Table(data)
        assert table.data() == data
        for row in range(len(table.rows)):
            table.cell(row, 3)


def test_a_broken_list_of_gradescope_is_read_or_refused():
    chance = random.Random(3)
    text = b"---\nsubmission_1:\n  :submitters:\n  - :name: A\n    :email: a@b.c\n"
    text += b"  :created_at: 2026-11-24 20:15:09 Z\n"
    for _ in range(LISTS):
        try:
            found = groups(broken_bytes(chance, text))
        except ValueError as error:
            assert "as Gradescope writes it" in str(error)
        else:
            assert all(one.name and len(one.when) <= 40 for one in found.values())
