"""The lab as a student meets it: JupyterLab in a real Chromium, its slider moved by keyboard."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest

from labkit import doctor

pytestmark = pytest.mark.browser
CHROMIUM = doctor.chromium()
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--no-first-run"]  # fmt: skip
TOKEN = "a-token-of-the-test"
MINUTE = 60_000  # ms

# When a new picture was decoded and about to be drawn, and when the key before it was pressed, in ms.
WATCH = """image => {
    window.repainted = [];
    const drawn = () => window.repainted.push(performance.now());
    image.addEventListener('load', () => requestAnimationFrame(drawn));
    const pressed = () => { window.pressed = performance.now(); };
    document.addEventListener('keydown', pressed, true);
}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """JupyterLab as `labkit start` starts it, in a new workbook; yields its address."""
    workbook = tmp_path_factory.mktemp("workbook")
    port = free_port()
    command = [sys.executable, "-m", "labkit", "start", "--no-browser"]
    command += [f"--port={port}", f"--workbook={workbook}"]
    log = workbook.parent / "jupyter.log"
    environment = {**os.environ, "JUPYTER_TOKEN": TOKEN, "LABKIT_HEADLESS": ""}
    with log.open("w") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/api?token={TOKEN}", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None and os.environ.get("LABKIT_REQUIRE_BROWSER") != "1":
        pytest.skip("no Chromium or Chrome found; `labkit doctor` says how to get one")
    assert CHROMIUM, "LABKIT_REQUIRE_BROWSER=1, but `labkit doctor` finds no Chromium"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


def test_the_viewers_slider_repaints_the_slice_by_keyboard(browser, server, capsys, tmp_path):
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.goto(f"{server}/lab/tree/00_welcome.ipynb?token={TOKEN}")
    run_all_cells(page)
    image, words = page.locator("img.widget-image"), page.locator(".widget-html [role=status]")
    scroll_to(page, image)
    wait_until_idle(page)  # while later cells run, they take the kernel, and JupyterLab moves the focus
    scroll_to(page, image)
    start, pixels = number_of(words), pixels_of(image)
    image.evaluate(WATCH)
    page.get_by_role("slider").first.focus()

    latencies_ms = [press_and_wait(page, words, "ArrowRight", start + i) for i in range(1, 13)]
    assert number_of(words) == start + 12 and pixels_of(image) != pixels
    latencies_ms += [press_and_wait(page, words, "ArrowLeft", start + 12 - i) for i in range(1, 13)]
    assert number_of(words) == start and pixels_of(image) == pixels

    screenshot = os.environ.get("LABKIT_SCREENSHOTS") or tmp_path
    page.screenshot(path=os.path.join(screenshot, "viewer.png"))
    p50, p95 = np.percentile(latencies_ms, [50, 95])
    with capsys.disabled():
        print(f"\nslider to repaint: p50 {p50:.0f} ms, p95 {p95:.0f} ms over {len(latencies_ms)} moves")


def run_all_cells(page) -> None:
    page.locator(".jp-Notebook").wait_for(timeout=2 * MINUTE)
    page.locator(".jp-NotebookPanel-toolbar").get_by_text("Python 3").wait_for(timeout=MINUTE)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def scroll_to(page, image) -> None:
    """Down the notebook, for JupyterLab keeps only what is near the window; at most two minutes."""
    page.locator(".jp-Notebook").hover()
    end = time.monotonic() + 120
    while not image.count():
        assert time.monotonic() < end, "the lab ran but no viewer appeared"
        page.mouse.wheel(0, 400)
        page.wait_for_timeout(300)
    image.scroll_into_view_if_needed()


def wait_until_idle(page) -> None:
    """Until the kernel has had nothing to do for two seconds; at most two minutes."""
    end, quiet = time.monotonic() + 120, 0
    while quiet < 8:
        assert time.monotonic() < end, "the kernel did not come to rest"
        quiet = quiet + 1 if page.get_by_text("| Idle").count() else 0
        page.wait_for_timeout(250)


def press_and_wait(page, words, key: str, expected: int) -> float:
    """Move the focused slider by one and return the ms from the key to the painted picture."""
    seen = page.evaluate("window.repainted.length")
    page.keyboard.press(key)
    page.wait_for_function("seen => window.repainted.length > seen", arg=seen, timeout=MINUTE)
    words.get_by_text(f"slice {expected} of").wait_for(timeout=MINUTE)
    return page.evaluate("window.repainted.at(-1) - window.pressed")


def number_of(words) -> int:
    return int(re.search(r"slice (\d+) of", words.text_content())[1])


def pixels_of(image) -> str:
    """What is displayed, as a data URL: a new address alone could hold the same picture."""
    return image.evaluate("""image => {
        const canvas = document.createElement('canvas');
        [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
        canvas.getContext('2d').drawImage(image, 0, 0);
        return canvas.toDataURL();
    }""")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(address: str, process: subprocess.Popen, log) -> None:
    """Until the server answers; fails with its log when it ends instead, or takes two minutes."""
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()}")
