"""What a lab promises is what was counted and measured when it was built."""

from __future__ import annotations

import re

import nbformat
import pytest

from labkit.release import build, promises
from labkit.release.build import source_of

LABS = [source.stem for source in build.sources()]
THIRD = 1 / 3
ROW = "# | Counted | 0 minutes with all exercises; 0.0 GB of memory |\n"


@pytest.mark.parametrize("lab", LABS)
def test_promised_minutes_are_those_of_the_words_lines_and_exercises(lab):
    """The row in the source is near what it counts: it was written after the last big change."""
    source = source_of(lab)
    there, (minutes, memory) = promises.counted(source), promises.promised(source)
    assert there.exercises == len(re.findall(r"^# ### Exercise \d", source.read_text(), re.MULTILINE)) > 0
    without_computing = there.minutes(0)
    assert without_computing * (1 - 2 * promises.ALIKE) <= minutes <= 1.2 * without_computing + 5
    assert 0.3 < memory < 4


@pytest.mark.parametrize("lab", LABS)
def test_the_words_of_a_lab_promise_no_less(lab):
    """Minutes of the prose, which says also how to do with less, within a third of the row."""
    text = source_of(lab).read_text()
    minutes, _ = promises.promised(source_of(lab))
    said = re.search(r"^# \| Time \| (.*) \|$", text, re.MULTILINE)[1]
    parts = [int(n) for n in re.findall(r"(\d+) (?:minutes\b|more\b|for sections)", said)]
    assert any(abs(one - minutes) <= THIRD * minutes for one in (parts[0], sum(parts))), (said, minutes)
    assert not re.search(r"less than \d+ GB", text), "the row says it"


def test_a_build_writes_the_row_once_and_again_gives_the_same_bytes(checkout, tiny):
    tiny.write_text(tiny.read_text().replace("# # Two times two\n", f"# # Two times two\n#\n{ROW}"))
    assert promises.promised(tiny) == (0, 0.0)
    [built] = build.build(["01"])
    minutes, memory = promises.promised(tiny)
    assert minutes % 5 == 0 and 0.05 < memory < 2
    first, source = built.read_bytes(), tiny.read_text()
    notebook = nbformat.reads(first.decode(), as_version=4)
    assert f"# {notebook.cells[0].source.splitlines()[-1]}\n" in source and "14 words" in source
    assert "PASS" in str(notebook.cells[2].outputs)
    build.build(["01"])
    assert built.read_bytes() == first and tiny.read_text() == source


def test_the_most_memory_that_a_process_held_is_kept_when_it_lets_go():
    import subprocess
    import sys

    code = "x = bytearray(300_000_000); del x; print('let go', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        cost = promises.Cost()
        cost.look(process.pid)
        process.communicate("\n")
    assert 300e6 < cost.memory < 400e6 and cost.seconds > 0
