"""A notebook that is saved and handed on: it shows the still picture where a widget was, and what to run."""

import importlib
import json
import os
import re
import subprocess
import sys

import nbformat
import pytest

from labkit.explore import saved
from labkit.explore.page import EXPLORERS
from labkit.explore.rank import RankExplorer
from labkit.explore.shown import AGAIN
from labkit.explore.viewer import viewer
from tests.jupyter_page import (
    CHROMIUM,
    MINUTE,
    TOKEN,
    chromium,
    jupyter,
    notebook_of,
    open_notebook,
    wait_until_idle,
)

STATE = "application/vnd.jupyter.widget-state+json"


def notebook(data, metadata):
    """A notebook as JupyterLab writes it, with the state of its widgets."""
    output = nbformat.v4.new_output("execute_result", data, metadata=metadata, execution_count=1)
    cell = nbformat.v4.new_code_cell("viewer(case)", outputs=[output], execution_count=1)
    states = {data[saved.VIEW]["model_id"]: {"model_name": "VBoxModel", "state": {}}}
    made = nbformat.v4.new_notebook(cells=[cell])
    made.metadata["widgets"] = {STATE: {"state": states, "version_major": 2, "version_minor": 0}}
    return made


def exported(notebook, folder):
    """What `jupyter nbconvert --to html` makes of it, outputs alone."""
    path = folder / "lab.ipynb"
    nbformat.write(notebook, path)
    command = [sys.executable, "-m", "jupyter", "nbconvert", "--to", "html", str(path)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return path.with_suffix(".html").read_text().split('class="jp-Cell-outputWrapper"')[1]


def test_nbconvert_shows_the_still_with_its_words_and_what_to_run(case, tmp_path, monkeypatch):
    monkeypatch.delenv("LABKIT_HEADLESS", raising=False)
    made = notebook(*viewer(case)._repr_mimebundle_())
    assert "<img" not in exported(made, tmp_path), "else the hook would not be needed"
    saved.keep_stills(model={"type": "notebook", "content": made}, path="lab.ipynb")
    page = exported(made, tmp_path)
    assert page.count("<img") == 1 and 'alt="Axial slice 1' in page and AGAIN in page
    assert "widget-view+json" not in page and "No description" not in page


def test_what_has_no_picture_and_what_is_no_notebook_stays():
    bar = {saved.VIEW: {"model_id": "1"}, "text/plain": "bar"}
    content = {"cells": [{"outputs": [{"data": bar}, {"text": "x"}]}, {"cell_type": "markdown"}]}
    before = json.dumps(content)
    saved.keep_stills(model={"type": "notebook", "content": content})
    assert json.dumps(content) == before
    saved.keep_stills(model={"type": "file", "content": "text"}, path="a.txt")
    saved.keep_stills(model={"type": "notebook", "content": None})


SMALL = """import numpy as np
from labkit.explore.viewer import viewer
from labkit.scans.case import Case
label = np.zeros((3, 96, 96), np.uint8)
label[1, 30:50, 30:50] = 1
viewer(Case("small", np.random.rand(1, 3, 96, 96).astype("f4"), label, (2.0,) * 3, ("T1",), {1: "it"}))"""


@pytest.mark.browser
@pytest.mark.slow  # what a saved notebook shows is tested above without a browser
def test_in_jupyterlab_a_lost_kernel_is_said_and_a_saved_notebook_opens_with_the_still(tmp_path):
    if CHROMIUM is None and os.environ.get("LABKIT_REQUIRE_BROWSER") != "1":
        pytest.skip("there is no Chromium")
    path = tmp_path / "workbook" / "small.ipynb"
    path.parent.mkdir()
    notebook_of(path, SMALL)
    with jupyter(path.parent) as address, chromium() as browser:
        with open_notebook(browser, address, path.name) as tab:
            tab.locator("img.widget-image").first.wait_for(timeout=2 * MINUTE)
            wait_until_idle(tab)
            lost = tab.locator(".labkit-lost")
            assert lost.count() == 1 and not lost.is_visible()
            tab.keyboard.press("Control+s")
            tab.wait_for_timeout(3000)
            (output,) = nbformat.read(path, as_version=4).cells[0].outputs
            assert output.data.keys() == {"text/html", "image/png", "text/plain"}
            tab.get_by_role("menuitem", name="Kernel", exact=True).click()
            tab.get_by_role("menuitem", name=re.compile("^Restart Kernel(…|[.]{3})")).first.click()
            tab.locator(".jp-Dialog .jp-mod-accept").click()
            lost.wait_for(timeout=MINUTE)
            assert AGAIN in lost.inner_text()
            wait_until_idle(tab)  # the server ends no kernel that is just being restarted
        again = browser.new_page()
        again.goto(f"{address}/lab/workspaces/again/tree/{path.name}?token={TOKEN}")
        still = again.locator(".jp-OutputArea-output img")
        still.wait_for(timeout=2 * MINUTE)
        assert "Axial slice 1" in still.get_attribute("alt")
        assert again.get_by_text(AGAIN).is_visible()


def test_the_still_of_an_explorer_names_the_command_that_makes_a_page_of_it(ct, monkeypatch):
    for headless in ("0", "1"):
        monkeypatch.setenv("LABKIT_HEADLESS", headless)
        said = RankExplorer([ct])._repr_mimebundle_()[0]["text/html"]
        assert "labkit explorer rank --out rank.html" in said and AGAIN in said
    for name, made in EXPLORERS.items():
        assert getattr(importlib.import_module(f"labkit.explore.{name}"), made).page_name == name
