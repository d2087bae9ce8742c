"""From a key press to the repainted segmentation: RankExplorer in JupyterLab in a real Chromium.

    python benchmarks/slider.py              60 moves of the rank slider, beside a floor
    python benchmarks/slider.py --moves 20

The floor is the same loop with nothing to compute: a slider whose callback hands over one of two ready
pictures of the explorer's size. A fast drag follows: 16 keys without waiting, after which picture and words
must be those of the last rank.
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

EXPLORER = """from labkit.explore.rank import RankExplorer
explorer = RankExplorer()
explorer"""
FLOOR = """import io
import ipywidgets as widgets
from labkit import pictures
from labkit.explore.rank import RankExplorer

explorer = RankExplorer()
ready = []
for rank in (1, 8):
    explorer.rank.value = rank
    ready.append(explorer.image.value)
explorer.ahead.stop()
slider = widgets.IntSlider(value=1, max=16, description="Rank")
image, said = widgets.Image(format="png", value=ready[1]), widgets.HTML("<div role='status'>Rank 1 of</div>")

def moved(_):
    image.value = ready[slider.value % 2]
    said.value = f"<div role='status'>Rank {slider.value} of</div>"

slider.observe(moved, "value")
widgets.VBox([slider, image, said])"""


def moves(page, count: int) -> tuple[list[float], int]:
    """Milliseconds of each move, to and fro between rank 1 and 16, and how many changed no pixel."""
    image, words = page.locator("img.widget-image").first, page.locator(".widget-html [role=status]").first
    scroll_to(page, image)
    wait_until_idle(page)
    image.evaluate(WATCH)
    page.get_by_role("slider").first.focus()
    rank, key, times, same = 1, "ArrowRight", [], 0
    seen = pixels_of(image)
    for _ in range(count):
        rank += 1 if key == "ArrowRight" else -1
        times.append(press_and_wait(page, words, key, f"Rank {rank} of"))
        now = pixels_of(image)
        same, seen = same + (now == seen), now
        key = {16: "ArrowLeft", 1: "ArrowRight"}.get(rank, key)
    return times, same


def drag(page) -> bool:
    """Whether, after a fast drag to the left end, picture and words are those of a slow walk to it."""
    image, words = page.locator("img.widget-image").first, page.locator(".widget-html [role=status]").first
    page.keyboard.press("Home")
    words.get_by_text("Rank 0 of").first.wait_for()
    wait_until_idle(page)
    expected = pixels_of(image)
    page.keyboard.press("End")
    words.get_by_text("Rank 16 of").first.wait_for()
    for _ in range(16):
        page.keyboard.press("ArrowLeft")
    words.get_by_text("Rank 0 of").first.wait_for()
    page.wait_for_timeout(500)
    return pixels_of(image) == expected


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--moves", type=int, default=60)
    count = parser.parse_args().moves
    found = {}
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        workbook = Path(folder) / "workbook"
        workbook.mkdir()
        notebook_of(FLOOR, workbook / "floor.ipynb")
        notebook_of(EXPLORER, workbook / "explorer.ipynb")
        with jupyter(workbook) as address:
            for name in ("floor", "explorer"):
                page = open_notebook(browser, address, f"{name}.ipynb")
                found[name], same = moves(page, count)
                if name == "explorer":
                    whole = drag(page)
                page.close()
    print("| loop | median, ms | p95, ms |\n| --- | ---: | ---: |")
    for name, times in found.items():
        print(f"| {name} | {np.median(times):.0f} | {np.percentile(times, 95):.0f} |")
    ratio = np.percentile(found["explorer"], 95) / np.percentile(found["floor"], 95)
    print(f"\np95 over the floor's: {ratio:.2f}. {same} of {count} moves changed no pixel.")
    print(f"The end of a fast drag shows its own picture: {whole}.")


if __name__ == "__main__":
    main()
