"""Downloads of people and platforms become one notebook per student, whatever lies in them."""

from __future__ import annotations

import csv
import os
import stat
import zipfile

import pytest

from labkit.classroom import archives
from labkit.classroom.downloads import collect, safe
from labkit.grading import intake

NOTEBOOK = b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}'
METADATA = """---
submission_71:
  :submitters:
  - :name: Zo\xeb Bell
    :sid: '007'
    :email: zoe@example.edu
  :created_at: 2026-11-24 20:15:09.498158000 Z
  :score: 1.0
:submission_72:
  :submitters: &1
  - :name: "=cmd()"
    :email: a@example.edu
  - :name: Bo !!python/object/apply:os.system
    :email: b@example.edu
  :created_at: !ruby/object:Time 2026-11-24 21:15:09 Z
""".encode()


def zipped(path, files):
    """A zip of (name or ZipInfo, bytes) pairs, in that order; a dictionary will do."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in dict(files).items() if isinstance(files, dict) else files:
            archive.writestr(name, data)
    return path


def kept(found):
    return {one.student: one.entry.name for one in found if one.kept}


def notes(found):
    return {one.entry.name: one.note for one in found if not one.kept}


def test_canvas_the_newest_hand_in_counts_and_late_ones_are_marked(tmp_path):
    names = ["bellann_LATE_12_100_lab.ipynb", "bellann_12_99_lab.ipynb", "zo\xeb_13_101_lab.ipynb"]
    names += ["zo\xeb_13_101_lab-2.ipynb", "zo\xeb_13_101_lab-10.ipynb"]
    found = collect(zipped(tmp_path / "a.zip", {name: NOTEBOOK for name in names}), tmp_path / "out")
    assert kept(found) == {"bellann_12": names[0], "zoe_13": names[4]}
    assert {one.late for one in found if one.kept and one.student == "bellann_12"} == {"yes"}
    assert notes(found)[names[1]] == f"an older hand-in; '{names[0]}' counts"
    assert [one.student for one in intake.collect(tmp_path / "out")] == ["bellann_12", "zoe_13"]


def test_moodle_each_folder_is_a_student_also_in_a_folder_that_was_unpacked(tmp_path):
    files = {
        "Ann Bell_1234567_assignsubmission_file_/lab.ipynb": NOTEBOOK,
        "Ann Bell_1234567_assignsubmission_file_/notes.pdf": b"%PDF",
        "\u674e_22_assignsubmission_file_/lab.ipynb": NOTEBOOK,
        "\u674e_23_assignsubmission_file_/lab.ipynb": NOTEBOOK,
        "Participant_24_assignsubmission_file_lab.ipynb": NOTEBOOK,
    }
    found = collect(zipped(tmp_path / "a.zip", files), tmp_path / "out")
    assert set(kept(found)) == {"Ann Bell_1234567", "__22", "__23", "Participant_24"}
    assert "not a notebook" in notes(found)["Ann Bell_1234567_assignsubmission_file_/notes.pdf"]
    for name, data in files.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(data)
    assert kept(collect(tmp_path / "folder", tmp_path / "out2")) == kept(found)


def test_when_the_newest_cannot_be_read_the_newest_that_can_counts(tmp_path):
    files = {
        "ann_12_101_lab.ipynb": bytes(3 << 20),
        "ann_12_100_lab.ipynb": NOTEBOOK,
        "ann_12_99_lab.ipynb": b"1",
    }
    found = collect(zipped(tmp_path / "a.zip", files), tmp_path / "out")
    assert kept(found) == {"ann_12": "ann_12_100_lab.ipynb"}
    assert (
        "100 times" in notes(found)["ann_12_101_lab.ipynb"] and "older" in notes(found)["ann_12_99_lab.ipynb"]
    )


def test_gradescope_names_come_from_its_list_which_makes_no_objects(tmp_path):
    files = {
        "assignment_9_export/submission_metadata.yml": METADATA,
        "assignment_9_export/submission_71/lab.ipynb": NOTEBOOK,
        "assignment_9_export/submission_72/lab.ipynb": NOTEBOOK,
        "assignment_9_export/submission_73/lab.ipynb": NOTEBOOK,
    }
    found = collect(zipped(tmp_path / "a.zip", files), tmp_path / "out")
    names = {one.student: (one.name, one.entry.when) for one in found if one.kept}
    assert names["Zoe Bell_71"] == ("Zo\xeb Bell", "2026-11-24 20:15:09.498158000 Z")
    assert any(name.endswith("os.system") for name, _ in names.values()) and len(names) == 2
    assert "does not say whose" in notes(found)["assignment_9_export/submission_73/lab.ipynb"]
    for broken in (b"[1", b"just text", b"a: &a [*a", b"? [" * 3000):
        files["assignment_9_export/submission_metadata.yml"] = broken
        with pytest.raises(ValueError, match="as Gradescope writes it"):
            collect(zipped(tmp_path / "b.zip", files), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_plain_zip_with_or_without_a_folder_around_it(tmp_path):
    files = {"class/ann.ipynb": NOTEBOOK, "class/bob/lab.ipynb": NOTEBOOK, "__MACOSX/class/._ann.ipynb": b"x"}
    files |= {"class/.ipynb_checkpoints/ann-checkpoint.ipynb": NOTEBOOK, "class/.DS_Store": b"x"}
    found = collect(zipped(tmp_path / "a.zip", files), tmp_path / "out")
    assert set(kept(found)) == {"ann", "bob"} and not notes(found)
    found = collect(zipped(tmp_path / "b.zip", {"ann.ipynb": NOTEBOOK}), tmp_path / "out2")
    assert set(kept(found)) == {"ann"}


def test_in_a_folder_the_last_saved_notebook_counts_and_links_do_not(tmp_path):
    folder = tmp_path / "in"
    (folder / "ann").mkdir(parents=True)
    for name, when in (("b.ipynb", 1_000_000_000), ("a.ipynb", 1_700_000_000)):
        (folder / "ann" / name).write_bytes(NOTEBOOK)
        os.utime(folder / "ann" / name, (when, when))
    (folder / "bob.ipynb").symlink_to("/etc/passwd")
    os.mkfifo(folder / "kim.ipynb")
    found = collect(folder, tmp_path / "out")
    assert kept(found) == {"ann": "ann/a.ipynb"}
    assert all("a link or a device" in notes(found)[name] for name in ("bob.ipynb", "kim.ipynb"))


LAB = NOTEBOOK.replace(
    b"[]",
    b'[{"cell_type": "code", "id": "dice", "outputs": [], "execution_count": null, "source": "", '
    b'"metadata": {"labkit": {"exercise": "dice", "role": "answer"}}}]',
)
COLAB = NOTEBOOK.replace(
    b"[]",
    b'[{"cell_type": "code", "outputs": [], "metadata": {}, "source": "lab.check(\\"dice\\", dice)"}]',
)


def moodle(name):
    return f"Ann Bell_12_assignsubmission_file_/{name}.ipynb"


@pytest.mark.parametrize(
    ("files", "counts", "said"),
    [
        ({"a": LAB, "z scratch": NOTEBOOK}, "a", "it has none of a lab's cells; 'Ann Bell_12"),
        ({"a": COLAB, "z scratch": b"no notebook"}, "a", "it has none of a lab's cells; 'Ann Bell_12"),
        ({"a": LAB, "b": COLAB, "c": NOTEBOOK}, "", "it is 3 notebooks, of which 2 have a lab's cells"),
        ({"a": NOTEBOOK, "b": NOTEBOOK}, "", "it is 2 notebooks, of which none has a lab's cells"),
        ({"a": NOTEBOOK}, "a", ""),
    ],
)
def test_of_notebooks_handed_in_together_the_one_with_a_labs_cells_counts(tmp_path, files, counts, said):
    path = zipped(tmp_path / "a.zip", {moodle(name): data for name, data in files.items()})
    found = collect(path, tmp_path / "out")
    assert kept(found) == ({"Ann Bell_12": moodle(counts)} if counts else {})
    assert len(notes(found)) == len(files) - bool(counts)
    assert any(said in note for note in notes(found).values()) or not said
    assert not any("older" in note for note in notes(found).values())


def test_a_lab_handed_in_before_a_scratch_notebook_counts_on_canvas_too(tmp_path):
    names = ["ann_12_100_lab.ipynb", "ann_12_101_scratch.ipynb", "ann_12_99_lab.ipynb"]
    files = dict(zip(names, (LAB, NOTEBOOK, LAB), strict=True))
    found = collect(zipped(tmp_path / "a.zip", files), tmp_path / "out")
    assert kept(found) == {"ann_12": names[0]}
    assert notes(found)[names[2]] == f"an older hand-in; '{names[0]}' counts"
    assert notes(found)[names[1]] == f"it has none of a lab's cells; '{names[0]}' counts"


def test_two_people_whose_names_differ_in_case_are_both_taken(tmp_path):
    found = collect(zipped(tmp_path / "a.zip", {"JOSE.ipynb": NOTEBOOK, "Jose.ipynb": LAB}), tmp_path / "out")
    assert kept(found) == {"JOSE": "JOSE.ipynb", "Jose-2": "Jose.ipynb"}
    assert [one.student for one in intake.collect(tmp_path / "out")] == ["JOSE", "Jose-2"]


def encrypted(path):
    """A zip whose file claims to be encrypted: the flag is set in both of its headers."""
    data = bytearray(zipped(path, {"ann.ipynb": NOTEBOOK, "bob.ipynb": NOTEBOOK}).read_bytes())
    data[data.index(b"PK\3\4") + 6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    return path


def link(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"../ann.ipynb": NOTEBOOK}, "leads out"),
        ({"/ann.ipynb": NOTEBOOK}, "leads out"),
        ({"C:/ann.ipynb": NOTEBOOK}, "leads out"),
        ({"x/../../ann.ipynb": NOTEBOOK}, "leads out"),
        ({"..\\ann.ipynb": NOTEBOOK}, "leads out"),
        ({"../out-of-it/ann.ipynb": NOTEBOOK}, "leads out"),  # begins as the folder `out` does
        ([("ann.ipynb", NOTEBOOK), ("ann.ipynb", b"{}")], "two files of this name"),
        ({"a\\ann.ipynb": NOTEBOOK}, "no file name may hold"),
        ({"a/" * 20 + "ann.ipynb": NOTEBOOK}, "too deep"),
        ({"a" * 500 + ".ipynb": NOTEBOOK}, "too long"),
        ([(link("ann.ipynb"), b"/etc/passwd")], "a link"),
        ({"ann.ipynb": b" " * (3 << 20)}, "100 times"),
        ({"ann.zip": b"PK"}, "not opened"),
        ({"jose\u0301.ipynb": NOTEBOOK, "jos\xe9.ipynb": NOTEBOOK}, "two files of this name"),
        ([(zipfile.ZipInfo("ann.ipynb"), bytes(21 << 20))], "larger than 20 MB"),
    ],
)
def test_what_is_refused_has_a_sentence_and_the_others_are_kept(tmp_path, files, said):
    files = [*(files.items() if isinstance(files, dict) else files), ("bob.ipynb", NOTEBOOK)]
    found = collect(zipped(tmp_path / "a.zip", files), tmp_path / "in" / "out")
    assert kept(found) == {"bob": "bob.ipynb"}
    assert all(said in note for note in notes(found).values()) and notes(found)
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")} == {
        *("a.zip", "in", "in/out", "in/out/bob.ipynb", "in/out/hand-ins.csv")
    }


def test_what_would_stand_in_for_a_module_or_set_up_pytest_is_not_written(tmp_path):
    names = (
        "conftest.py",
        "pytest.ini",
        "sitecustomize.py",
        "numpy.py",
        "labkit/__init__.py",
        "results.json",
    )
    files = {f"ann/{name}": b"raise SystemExit" for name in names} | {
        "ann/lab.ipynb": NOTEBOOK,
        "bob.ipynb": NOTEBOOK,
    }
    found = collect(zipped(tmp_path / "a.zip", files), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"ann.ipynb", "bob.ipynb", "hand-ins.csv"}
    assert len(notes(found)) == len(names) and set(notes(found).values()) == {"it is not a notebook (.ipynb)"}


def test_encrypted_and_damaged_files_are_refused_one_by_one(tmp_path):
    found = collect(encrypted(tmp_path / "a.zip"), tmp_path / "out")
    assert kept(found) == {"bob": "bob.ipynb"} and "password" in notes(found)["ann.ipynb"]
    path = zipped(tmp_path / "b.zip", {"ann.ipynb": os.urandom(5000), "bob.ipynb": NOTEBOOK})
    data = bytearray(path.read_bytes())
    data[1000] ^= 255
    path.write_bytes(data)
    found = collect(path, tmp_path / "out2")
    assert kept(found) == {"bob": "bob.ipynb"} and "damaged" in notes(found)["ann.ipynb"]


def test_a_zip_that_lies_about_its_sizes_is_stopped_while_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "TOTAL", 100_000)
    files = {f"s{number}.ipynb": os.urandom(30_000) for number in range(9)}
    found = collect(zipped(tmp_path / "a.zip", files), tmp_path / "out")
    assert len(kept(found)) == 3 and all("give it in parts" in note for note in notes(found).values())


def test_a_list_of_a_million_files_is_not_even_read(tmp_path, monkeypatch):
    path = zipped(tmp_path / "a.zip", {f"{number}.ipynb": b"" for number in range(200)})
    monkeypatch.setattr(archives, "DIRECTORY", 5000)
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(ValueError, match="more than 20000 files"):
        collect(path, tmp_path / "out")


@pytest.mark.parametrize("data", [b"", b"text", b"PK\5\6" + b"\xff" * 18, b"PK\3\4" * 9])
def test_what_is_no_download_says_so(tmp_path, data):
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(ValueError, match="neither a folder nor a .zip|more than 20000"):
        collect(tmp_path / "a.zip", tmp_path / "out")
    with pytest.raises(ValueError, match="does not exist"):
        collect(tmp_path / "b.zip", tmp_path / "out")
    with pytest.raises(ValueError, match="holds no notebooks"):
        collect(zipped(tmp_path / "c.zip", {"ann.py": b"1"}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something already"):
        collect(zipped(tmp_path / "a.zip", {"ann.ipynb": NOTEBOOK}), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


ODD = [
    "CON",
    "con.txt",
    "lpt1",
    "=1+1",
    "= x",
    "-@=a",
    "a\nb",
    "\x1b[31mred",
    "e\u202exe",
    "x" * 300,
    "",
    " ",
    ".",
]


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("number", ["", "12"])
def test_a_safe_name_is_safe_and_the_grader_takes_it_as_it_is(name, number):
    found = safe(name, number)
    assert 0 < len(found) <= 80 and found.isascii() and found.isprintable()
    assert found.split(".")[0].lower() not in ("con", "lpt1") and found[0] not in "=+-@"
    assert intake._alias(found) == (found, [])


def test_the_list_of_hand_ins_holds_no_formula_and_no_control_sign(tmp_path):
    files = {'=HYPERLINK("x").ipynb': NOTEBOOK, "+a\x1b[31m\u202e.ipynb": NOTEBOOK, "@b.txt": b""}
    collect(zipped(tmp_path / "a.zip", files), tmp_path / "out")
    text = (tmp_path / "out" / "hand-ins.csv").read_text(encoding="utf-8")
    rows = list(csv.reader(text.splitlines()))
    assert not any(cell.startswith(("=", "+", "-", "@", "\t")) for row in rows for cell in row)
    assert len(rows) == 4 and all(line.isprintable() for line in text.splitlines())


def test_students_whose_safe_names_are_twins_stay_two(tmp_path):
    names = ["\u674e.ipynb", "\u738b.ipynb", "_-2.ipynb"]
    found = collect(zipped(tmp_path / "a.zip", {name: NOTEBOOK for name in names}), tmp_path / "out")
    assert sorted(kept(found).values()) == sorted(names)
