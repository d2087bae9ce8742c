"""JupyterLab in a real Chromium: what the browser tests and `benchmarks/slider.py` share."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat

from labkit import doctor

CHROMIUM = doctor.chromium()
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
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


@contextlib.contextmanager
def jupyter(workbook: Path) -> Iterator[str]:
    """JupyterLab as `labkit start` starts it, in `workbook`; gives its address."""
    port = free_port()
    command = [sys.executable, "-m", "labkit", "start", "--no-browser"]
    command += [f"--port={port}", f"--workbook={workbook}"]
    log = workbook.parent / "jupyter.log"
    environment = {**os.environ, "JUPYTER_TOKEN": TOKEN, "LABKIT_HEADLESS": ""}
    # The tabs that were open on this computer the last time are not restored beside the test's.
    environment["JUPYTERLAB_WORKSPACES_DIR"] = str(workbook.parent / "workspaces")
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


@contextlib.contextmanager
def chromium() -> Iterator:
    """A Chromium that asks nothing of the network."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


def notebook_of(path: Path, *sources: str, **named: str) -> None:
    """A notebook of such cells, the last ones with ids of their own; it names its kernel, for JupyterLab asks
    in a dialog otherwise."""
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells += [nbformat.v4.new_code_cell(source, id=id) for id, source in named.items()]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)


@contextlib.contextmanager
def open_notebook(browser, address: str, name: str) -> Iterator:
    """A page with the notebook alone, its cells running; page and kernel end with the block."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    try:
        page.goto(f"{address}/lab/workspaces/{Path(name).stem}/tree/{name}?token={TOKEN}", timeout=2 * MINUTE)
        run_all_cells(page)
        yield page
    finally:
        page.close()
        end_kernels(address)


def end_kernels(address: str) -> None:
    """A server keeps the kernel of a page that was closed, with all that it holds, as long as it runs."""
    sessions = f"{address}/api/sessions"
    for session in json.loads(ask("GET", sessions)):
        ask("DELETE", f"{sessions}/{session['id']}")


def ask(method: str, address: str) -> bytes:
    """What the server answers."""
    request = urllib.request.Request(address, method=method, headers={"Authorization": f"token {TOKEN}"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as answer:
        return answer.read()


def run_all_cells(page) -> None:
    """The menu's command, again where JupyterLab had not yet made the notebook ready to obey it."""
    from playwright.sync_api import TimeoutError

    page.locator(".jp-Notebook").wait_for(timeout=2 * MINUTE)
    page.locator(".jp-NotebookPanel-toolbar").get_by_text("Python 3").wait_for(timeout=MINUTE)
    started = page.locator(".jp-InputPrompt").filter(has_text=re.compile(r"\[[*\d]+\]"))
    end = time.monotonic() + 60
    while not started.count():
        assert time.monotonic() < end, "no cell began to run"
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        with contextlib.suppress(TimeoutError):
            started.first.wait_for(timeout=5000)


def scroll_to(page, image) -> None:
    """Down the notebook, for JupyterLab keeps only what is near the window; at most four minutes."""
    page.locator(".jp-Notebook").hover()
    end = time.monotonic() + 240
    while not image.count():
        assert time.monotonic() < end, "the lab ran but no viewer appeared"
        page.mouse.wheel(0, 400)
        page.wait_for_timeout(300)
    image.scroll_into_view_if_needed()


def wait_until_idle(page) -> None:
    """Until the kernel has had nothing to do for two seconds; at most four minutes."""
    end, quiet = time.monotonic() + 240, 0
    while quiet < 8:
        assert time.monotonic() < end, "the kernel did not come to rest"
        quiet = quiet + 1 if page.get_by_text("| Idle").count() else 0
        page.wait_for_timeout(250)


def press_and_wait(page, words, key: str, expected: str) -> float:
    """Move the focused slider by one, until the words say so; the ms from the key to the painted picture."""
    seen = page.evaluate("window.repainted.length")
    page.keyboard.press(key)
    page.wait_for_function("seen => window.repainted.length > seen", arg=seen, timeout=MINUTE)
    words.get_by_text(expected).first.wait_for(timeout=MINUTE)
    return page.evaluate("window.repainted.at(-1) - window.pressed")


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
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()}")
