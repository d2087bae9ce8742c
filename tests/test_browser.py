"""The lab as a student meets it: JupyterLab in a real Chromium, its sliders moved by keyboard."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import numpy as np
import pytest
from jupyter_page import (
    CHROMIUM,
    MINUTE,
    WATCH,
    chromium,
    jupyter,
    notebook_of,
    open_notebook,
    pixels_of,
    press_and_wait,
    scroll_to,
    wait_until_idle,
)

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None and os.environ.get("LABKIT_REQUIRE_BROWSER") != "1":
        pytest.skip("no Chromium or Chrome found; `labkit doctor` says how to get one")
    assert CHROMIUM, "LABKIT_REQUIRE_BROWSER=1, but `labkit doctor` finds no Chromium"
    with chromium() as found:
        yield found


def test_the_viewers_slider_repaints_the_slice_by_keyboard(browser, workbook, capsys, tmp_path):
    with open_notebook(browser, workbook, "00_welcome.ipynb") as page:
        image, words = (
            page.locator("img.widget-image").first,
            page.locator(".widget-html [role=status]").first,
        )
        scroll_to(page, image)
        wait_until_idle(page)  # while later cells run, they take the kernel, and JupyterLab moves the focus
        scroll_to(page, image)
        start, pixels = number_of(words), pixels_of(image)
        image.evaluate(WATCH)
        page.get_by_role("slider").first.focus()

        latencies_ms = [
            press_and_wait(page, words, "ArrowRight", f"slice {start + i} of") for i in range(1, 13)
        ]
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


@dataclass(frozen=True)
class Driven:
    """An explorer, the key pressed on its first control of a role, and what the words say then."""

    made: str
    key: str
    expected: str
    role: str = "slider"
    picture: int = 0  # which of its pictures
    truth: bool = True  # the truth stands between segmentation and errors
    before: str = ""  # what the notebook runs first


# A network for each price, without training: the more brain it sees, the more it computes.
PRICES = (0.1, 0.4, 1.0)  # a middle slice is read whole, cropped, skipped
BY_AREA = f"""import torch
from labkit.efficient.meddanet import MedDANet

class ByArea(torch.nn.Module):
    def __init__(self, price):
        super().__init__()
        self.price = price

    def forward(self, x):
        area = (x[:, 0] != 0).float().mean((1, 2))
        return torch.stack([0 * area, area - self.price, 2 * (area - self.price) - 0.1], 1)

decisions = {{price: ByArea(price) for price in {PRICES}}}
"""
BY_PRICE = "dynamic.DynamicExplorer(MedDANet(), decisions)"

EXPLORERS = {
    "rank": Driven("rank.RankExplorer()", "ArrowRight", "Rank 2 of"),
    "prompts": Driven("prompts.PromptExplorer()", "ArrowRight", "50 prompts in every block"),
    "adapters": Driven("adapters.AdapterExplorer()", "ArrowLeft", "In block 2 "),
    "med_tuning": Driven("med_tuning.MedTuningExplorer()", "ArrowLeft", "is shown 2 neighbouring slices"),
    "comparison": Driven(
        "comparison.MethodComparison(of_kind={'two': ('prompts-deep-10', 'probe')})",  # all take long
        *("End", "A, probe", "listbox", 1, False),
    ),
    "prune": Driven("prune.PruneExplorer()", "End", "Without 90 %"),
    "bits": Driven("bits.BitsExplorer()", "End", "1 bit (two levels"),
    "dynamic": Driven(BY_PRICE, "End", "This one is skipped", before=BY_AREA),
    "strip": Driven(BY_PRICE, "End", "of 80 slices 80 skipped", picture=1, truth=False, before=BY_AREA),
    "budget": Driven("budget.ParameterBudget()", "ArrowRight", "Rank r = 16", truth=False),
}


SLOW = {
    "prompts",
    "comparison",
    "adapters",
    "med_tuning",
    "budget",
    "prune",
    "dynamic",
    "strip",
    "bits",
}  # the others share nearly all of their machinery
EACH = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in EXPLORERS]


@pytest.mark.parametrize("name", EACH)
def test_an_explorer_repaints_by_keyboard_what_it_should(browser, workbook, name, tmp_path):
    """The segmentation or the map beside it changes; image and truth, between them, stay as they were."""
    one = EXPLORERS[name]
    with open_notebook(browser, workbook, f"{name}.ipynb") as page:
        image = page.locator("img.widget-image").nth(one.picture)
        words = page.locator(".widget-html [role=status]").first
        scroll_to(page, image)
        wait_until_idle(page)
        before = array_of(image)
        image.evaluate(WATCH)
        page.get_by_role(one.role).first.focus()
        press_and_wait(page, words, one.key, one.expected)
        after = array_of(image)
        changed = (before != after).any(-1)
        assert changed.any(), "the picture is another"
        if one.truth:
            assert not changed[:, 310:600].any(), "the truth stays; the segmentation is 300 pixels wide"
        sizes = "i => [i.clientWidth, i.clientHeight, i.naturalWidth / i.naturalHeight]"
        wide, high, whole = image.evaluate(sizes)
        assert wide / high == pytest.approx(whole, rel=0.02), "all of the picture is in sight, undistorted"
        screenshot = os.environ.get("LABKIT_SCREENSHOTS") or tmp_path
        page.screenshot(path=os.path.join(screenshot, f"{name}.png"))


SMALL = """import numpy as np
from labkit.explore.viewer import viewer
from labkit.scans.case import Case
label = np.zeros((3, 96, 96), np.uint8)
label[1, 30:50, 30:50] = 1
viewer(Case("small", np.random.rand(1, 3, 96, 96).astype("f4"), label, (2.0,) * 3, ("T1",), {1: "it"}))"""
TAKEN = """(image, deltaY) => !image.dispatchEvent(
    new WheelEvent("wheel", {deltaY, cancelable: true, bubbles: true}))"""


def test_the_picture_has_words_a_wheel_and_a_click_and_the_sliders_have_names(browser, workbook):
    with open_notebook(browser, workbook, "small.ipynb") as page:
        image = page.locator("img.widget-image").first
        words = page.locator(".widget-html [role=status]").first
        scroll_to(page, image)
        wait_until_idle(page)
        for name in ("Slice", "Contrast %, from", "Contrast %, to", "Opacity %"):
            assert page.get_by_role("slider", name=name, exact=True).count() == 1, name
        assert page.get_by_role("img", name=words.text_content(), exact=True).count() == 1
        page.mouse.move(2, 2)
        assert image.evaluate(TAKEN, 120) is False, "no pointer was moved here: the page scrolls"
        box = image.bounding_box()
        page.mouse.move(box["x"] + 20, box["y"] + 20)
        page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.4 * box["height"])
        page.mouse.wheel(0, 120)
        words.get_by_text("slice 2 of 0 to 2").wait_for(timeout=MINUTE)
        assert image.evaluate(TAKEN, 120) is False, "at the end the page scrolls on"
        page.mouse.wheel(0, -120)
        words.get_by_text("slice 1 of 0 to 2").wait_for(timeout=MINUTE)
        assert "slice 1 of" in image.get_attribute("alt")
        assert page.get_by_role("slider", name="Slice", exact=True).get_attribute("aria-valuenow") == "1.0"
        before = pixels_of(image)
        image.evaluate(WATCH)
        page.mouse.click(box["x"] + 0.4 * box["width"], box["y"] + 0.4 * box["height"])
        words.get_by_text("At the cross: T1").wait_for(timeout=MINUTE)
        assert words.get_by_text(", it.").count() == 1, "0.4 of 96 lies in the label"
        page.wait_for_function("window.repainted.length > 0", timeout=MINUTE)
        assert pixels_of(image) != before


@pytest.fixture(scope="module")
def workbook(tmp_path_factory):
    """The address of a server: the labs, and a notebook for each explorer."""
    folder = tmp_path_factory.mktemp("browser") / "workbook"
    folder.mkdir()
    for name, one in EXPLORERS.items():
        room = one.made.split(".")[0]
        notebook_of(folder / f"{name}.ipynb", f"from labkit.explore import {room}\n{one.before}{one.made}")
    notebook_of(folder / "small.ipynb", SMALL)
    with jupyter(folder) as address:
        yield address


def array_of(image) -> np.ndarray:
    """What an image shows, (h, w, 3) uint8."""
    import base64
    import io

    from PIL import Image

    data = pixels_of(image).split(",")[1]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
