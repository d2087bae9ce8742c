"""The lab as a student meets it: JupyterLab in a real Chromium, its sliders moved by keyboard."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
from jupyter_page import (
    CHROMIUM,
    WATCH,
    chromium,
    jupyter,
    open_notebook,
    pixels_of,
    press_and_wait,
    scroll_to,
    wait_until_idle,
)

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with jupyter(tmp_path_factory.mktemp("workbook")) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None and os.environ.get("LABKIT_REQUIRE_BROWSER") != "1":
        pytest.skip("no Chromium or Chrome found; `labkit doctor` says how to get one")
    assert CHROMIUM, "LABKIT_REQUIRE_BROWSER=1, but `labkit doctor` finds no Chromium"
    with chromium() as found:
        yield found


def test_the_viewers_slider_repaints_the_slice_by_keyboard(browser, server, capsys, tmp_path):
    page = open_notebook(browser, server, "00_welcome.ipynb")
    image, words = page.locator("img.widget-image").first, page.locator(".widget-html [role=status]").first
    scroll_to(page, image)
    wait_until_idle(page)  # while later cells run, they take the kernel, and JupyterLab moves the focus
    scroll_to(page, image)
    start, pixels = number_of(words), pixels_of(image)
    image.evaluate(WATCH)
    page.get_by_role("slider").first.focus()

    latencies_ms = [press_and_wait(page, words, "ArrowRight", f"slice {start + i} of") for i in range(1, 13)]
    assert number_of(words) == start + 12 and pixels_of(image) != pixels
    latencies_ms += [
        press_and_wait(page, words, "ArrowLeft", f"slice {start + 12 - i} of") for i in range(1, 13)
    ]
    assert number_of(words) == start and pixels_of(image) == pixels

    screenshot = os.environ.get("LABKIT_SCREENSHOTS") or tmp_path
    page.screenshot(path=os.path.join(screenshot, "viewer.png"))
    p50, p95 = np.percentile(latencies_ms, [50, 95])
    with capsys.disabled():
        print(f"\nslider to repaint: p50 {p50:.0f} ms, p95 {p95:.0f} ms over {len(latencies_ms)} moves")


def number_of(words) -> int:
    return int(re.search(r"slice (\d+) of", words.text_content())[1])
