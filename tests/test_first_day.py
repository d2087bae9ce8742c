"""A student's days in a real JupyterLab: what is solved outlives kernel and server, a reset keeps answers."""

from __future__ import annotations

import os

import nbformat
import pytest
from jupyter_page import CHROMIUM, MINUTE, chromium, jupyter, notebook_of, open_notebook, wait_until_idle

pytestmark = pytest.mark.browser

BEGIN = 'from labkit.lessons import start\nlab = start("00")'
RIGHT = """def regions(labels):
    return {"ET": labels == 4, "TC": (labels == 1) | (labels == 4), "WT": labels > 0}"""
WRONG = "def dice(prediction, truth):\n    return 0.123  # my first try"


@pytest.fixture(scope="module")
def workbook(tmp_path_factory):
    return tmp_path_factory.mktemp("first-day") / "workbook"


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None and os.environ.get("LABKIT_REQUIRE_BROWSER") != "1":
        pytest.skip("no Chromium or Chrome found; `labkit doctor` says how to get one")
    with chromium() as found:
        yield found


def text_of(page, said: str):
    page.get_by_text(said).first.wait_for(timeout=4 * MINUTE)


def test_progress_and_answers_outlive_the_kernel_the_server_and_a_reset(browser, workbook):
    with jupyter(workbook) as address:
        check = 'lab.check("regions", regions)'
        notebook_of(workbook / "first.ipynb", BEGIN, RIGHT, check, "lab.progress()")
        with open_notebook(browser, address, "first.ipynb") as page:
            text_of(page, "00_welcome: 1 of 3 solved")
    with jupyter(workbook) as address:  # the next day, in a kernel of its own
        assert "1 of 3" in (workbook / "START HERE.md").read_text()
        answer = dict(dice=f'lab.reset("dice")\n{WRONG}', after='lab.reset("dice")')
        notebook_of(workbook / "second.ipynb", BEGIN, "lab.progress()", **answer)
        with open_notebook(browser, address, "second.ipynb") as page:
            text_of(page, "00_welcome: 1 of 3 solved")
            text_of(page, "dice: begin again")
            text_of(page, "nothing was changed")
            wait_until_idle(page)
            page.keyboard.press("Control+s")
            page.wait_for_timeout(2000)
        dice = next(cell for cell in nbformat.read(workbook / "second.ipynb", 4).cells if cell.id == "dice")
        assert 'raise NotImplementedError("dice")' in dice.source and "lab.reset" not in dice.source
        assert "#     return 0.123  # my first try" in dice.source
