"""From a key press to the repainted segmentation: an explorer in JupyterLab in a real Chromium.

    python benchmarks/slider.py              60 moves of the first slider of RankExplorer, beside a floor
    python benchmarks/slider.py --moves 20
    python benchmarks/slider.py --explorer prune      (or bits, dynamic, med_tuning)

The floor is the same loop with nothing to compute: a slider whose callback hands over one of two ready
pictures of the explorer's size. A fast drag follows: from one end to the other without waiting, after which
picture and words must be those of the place where it ends.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from jupyter_page import (  # noqa: E402
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
from test_browser import EXPLORERS, PRICES  # noqa: E402

# Places that look different on the slice in sight: where no pixel changes, no repainting can be waited for.
SHARES, BITS = (50, 60, 70, 80, 90), (4, 3, 2, 1)
MADE = {
    "rank": EXPLORERS["rank"].made,
    "prune": f"prune.PruneExplorer(shares={SHARES})",
    "bits": f"bits.BitsExplorer(bits={BITS})",
    "dynamic": EXPLORERS["dynamic"].made,
    "med_tuning": EXPLORERS["med_tuning"].made,
}

# How the words of an explorer begin at each place of its first slider, from left to right.
WORDS = {
    "rank": [f"Rank {rank} of" for rank in range(17)],
    "prune": [f"Without {share} %" for share in SHARES],
    "bits": [f"{b} bit{'s' * (b > 1)} (" for b in BITS],
    "dynamic": [f"Price {price:g}: " for price in PRICES],
    "med_tuning": ["sees this slice alone", "is shown 2 neighbouring", "is shown 4 neighbouring"],
}
OPENED = {"rank": 1, "prune": 0, "bits": 0, "dynamic": 0, "med_tuning": 2}  # the place where it starts
FLOOR = """
import ipywidgets as widgets

words, ready = {words}, [explorer.image.value]
explorer.slice.value += 1
ready.append(explorer.image.value)
explorer.ahead.stop()
slider = widgets.IntSlider(value={opened}, max=len(words) - 1, description="Place")
image, said = widgets.Image(format="png", value=ready[1]), widgets.HTML()

def moved(_=None):
    image.value = ready[slider.value % 2]
    said.value = f"<div role='status'>{{words[slider.value]}}</div>"

moved()
slider.observe(moved, "value")
widgets.VBox([slider, image, said])"""


def sources(name: str) -> dict[str, str]:
    """Code of a notebook for the floor and of one for the explorer."""
    made = f"from labkit.explore import {name}\n{EXPLORERS[name].before}explorer = {MADE[name]}\n"
    return {"floor": made + FLOOR.format(words=WORDS[name], opened=OPENED[name]), name: made + "explorer"}


def moves(page, count: int, expected: list[str], place: int) -> tuple[list[float], int]:
    """Milliseconds of each move, to and fro between the ends, and how many changed no pixel."""
    image, words = page.locator("img.widget-image").first, page.locator(".widget-html [role=status]").first
    scroll_to(page, image)
    wait_until_idle(page)
    image.evaluate(WATCH)
    page.get_by_role("slider").first.focus()
    key, times, same = "ArrowRight" if place < len(expected) - 1 else "ArrowLeft", [], 0
    seen = pixels_of(image)
    for _ in range(count):
        place += 1 if key == "ArrowRight" else -1
        times.append(press_and_wait(page, words, key, expected[place]))
        now = pixels_of(image)
        same, seen = same + (now == seen), now
        key = {len(expected) - 1: "ArrowLeft", 0: "ArrowRight"}.get(place, key)
    return times, same


def drag(page, expected: list[str]) -> bool:
    """Whether, after a fast drag to the left end, picture and words are those of a slow walk to it."""
    image, words = page.locator("img.widget-image").first, page.locator(".widget-html [role=status]").first
    page.keyboard.press("Home")
    words.get_by_text(expected[0]).first.wait_for()
    wait_until_idle(page)
    slow = pixels_of(image)
    page.keyboard.press("End")
    words.get_by_text(expected[-1]).first.wait_for()
    for _ in expected[1:]:
        page.keyboard.press("ArrowLeft")
    words.get_by_text(expected[0]).first.wait_for()
    page.wait_for_timeout(500)
    return pixels_of(image) == slow


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--moves", type=int, default=60)
    parser.add_argument("--explorer", choices=list(WORDS), default="rank")
    asked = parser.parse_args()
    expected, opened, found = WORDS[asked.explorer], OPENED[asked.explorer], {}
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        workbook = Path(folder) / "workbook"
        workbook.mkdir()
        for name, source in sources(asked.explorer).items():
            notebook_of(workbook / f"{name}.ipynb", source)
        with jupyter(workbook) as address:
            for name in ("floor", asked.explorer):
                with open_notebook(browser, address, f"{name}.ipynb") as page:
                    found[name], same = moves(page, asked.moves, expected, opened)
                    if name != "floor":
                        whole = drag(page, expected)
    print("| loop | median, ms | p95, ms |\n| --- | ---: | ---: |")
    for name, times in found.items():
        print(f"| {name} | {np.median(times):.0f} | {np.percentile(times, 95):.0f} |")
    ratio = np.percentile(found[asked.explorer], 95) / np.percentile(found["floor"], 95)
    print(f"\np95 over the floor's: {ratio:.2f}. {same} of {asked.moves} moves changed no pixel.")
    print(f"The end of a fast drag shows its own picture: {whole}.")


if __name__ == "__main__":
    main()
