"""An explorer as one HTML file, alive without a kernel, a network or a library: pictures made ahead, two
native sliders, and the sentence that says what is seen."""

from __future__ import annotations

import base64
import html
import importlib
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets as widgets
from PIL import Image
from tqdm.auto import tqdm

from labkit.files import write_atomically

if TYPE_CHECKING:
    from labkit.explore.explorer import Explorer

SLICES, APART = 5, 3  # slices of the page, and how many slices lie between two of them
LARGEST = 8 << 20  # bytes of a page
QUALITY = 88  # of WebP: edges of labels stay sharp


EXPLORERS = {
    "rank": "RankExplorer",
    "prompts": "PromptExplorer",
    "adapters": "AdapterExplorer",
    "med_tuning": "MedTuningExplorer",
    "prune": "PruneExplorer",
    "bits": "BitsExplorer",
}


def opened(name: str) -> Explorer:
    """An explorer by the name of its file, on its own patients."""
    return getattr(importlib.import_module(f"labkit.explore.{name}"), EXPLORERS[name])()


def write(explorer: Explorer, path: Path) -> Path:
    """Write the patient in sight under every value of the explorer's main control, on slices around this one.

    The explorer is left as it was. ValueError: a name that is no .html, or a page above 8 MB.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{path} is no name for a page; end it in .html.")
    control, slider = explorer.main, explorer.slice
    before, middle = control.value, slider.value
    around = (middle + APART * (k - SLICES // 2) for k in range(SLICES))
    shown = [index for index in around if slider.min <= index <= slider.max]
    values = _values(control)
    frames = []
    explorer.ahead.stop()
    explorer.ahead_at_rest = False
    try:
        for _, value in tqdm(values, desc="pictures", unit="value", leave=False):
            control.value = value
            frames.append([_frame(explorer, index) for index in shown])
    finally:
        explorer.ahead_at_rest = True
        control.value, slider.value = before, middle
    text = _page(explorer, [name for name, _ in values], shown, frames, values.index(_named(values, before)))
    if len(text) > LARGEST:
        raise ValueError(f"The page would have {len(text) >> 20} MB, above {LARGEST >> 20}; show fewer.")
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))
    return path


def _values(control: widgets.Widget) -> list[tuple[str, object]]:
    """All that a control can be set to, in words and as it is."""
    if isinstance(control, widgets.IntSlider):
        return [(str(i), i) for i in range(control.min, control.max + 1, control.step)]
    options = control.options.items() if isinstance(control.options, dict) else control.options
    return [one if isinstance(one, tuple) else (str(one), one) for one in options]


def _named(values: list, wanted: object) -> tuple:
    return next(one for one in values if one[1] == wanted)


def _frame(explorer: Explorer, index: int) -> tuple[str, str]:
    """A slice as a WebP in base64, and in words."""
    explorer.slice.value = index
    drawn = io.BytesIO()
    Image.open(io.BytesIO(explorer.image.value)).save(drawn, "WEBP", quality=QUALITY, method=4)
    return base64.b64encode(drawn.getvalue()).decode(), explorer.describe()


def _page(explorer: Explorer, names: list[str], shown: list[int], frames: list, first: int) -> str:
    title, here = explorer.title, shown.index(explorer.slice.value)
    data = {"names": names, "slices": shown, "frames": frames}
    fill = {
        "TITLE": html.escape(title),
        "CONTROL": html.escape(explorer.main.description),
        "LAST": str(len(names) - 1),
        "FIRST": str(first),
        "LAST_SLICE": str(len(shown) - 1),
        "MIDDLE": str(here),
        "PATIENT": html.escape(explorer.cases[explorer.patient.value].name),
        "LEGEND": explorer.legend.value,
        "IMAGE": frames[first][here][0],
        "WORDS": html.escape(frames[first][here][1]),
        "DATA": json.dumps(data, separators=(",", ":")).replace("</", "<\\/"),
    }
    page = PAGE
    for name, value in fill.items():
        page = page.replace(f"%{name}%", value)
    return page


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>%TITLE%</title>
<style>
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.3rem; }
.control { display: grid; grid-template-columns: 9rem 1fr minmax(4rem, auto); gap: .75rem;
  align-items: center; margin: .5rem 0; }
input[type=range] { width: 100%; min-height: 2rem; }
.picture { overflow-x: auto; }
img { display: block; width: 100%; min-width: 34rem; height: auto; border-radius: 4px; }
output { font-variant-numeric: tabular-nums; }
.small { opacity: .8; font-size: .9rem; }
.narrow { display: none; }
@media (max-width: 36rem) { .narrow { display: block; } }
@media (max-width: 40rem) {
  .control { grid-template-columns: 1fr auto; }
  .control input { grid-column: 1 / -1; grid-row: 2; }
}
</style>
<h1>%TITLE%</h1>
<div class="control"><label for="value">%CONTROL%</label>
<input id="value" type="range" min="0" max="%LAST%" value="%FIRST%">
<output for="value" id="value-said"></output></div>
<div class="control"><label for="slice">Slice</label>
<input id="slice" type="range" min="0" max="%LAST_SLICE%" value="%MIDDLE%">
<output for="slice" id="slice-said"></output></div>
<div class="picture"><img id="image" src="data:image/webp;base64,%IMAGE%" alt=""></div>
<p class="small narrow">The picture is wider than this screen: move it sideways to see all of it.</p>
<p id="words" role="status">%WORDS%</p>
<div>%LEGEND%</div>
<p class="small">%PATIENT%. Arrow keys move a slider; Home and End jump. By labkit, needs no network.</p>
<script>
const data = %DATA%;
const at = id => document.getElementById(id);
function show() {
  const value = +at("value").value, slice = +at("slice").value, [picture, words] = data.frames[value][slice];
  at("image").src = "data:image/webp;base64," + picture;
  at("image").alt = words;
  if (at("words").textContent !== words) at("words").textContent = words;
  at("value-said").textContent = data.names[value];
  at("slice-said").textContent = data.slices[slice];
  at("value").setAttribute("aria-valuetext", data.names[value]);
  at("slice").setAttribute("aria-valuetext", "slice " + data.slices[slice]);
}
for (const id of ["value", "slice"]) at(id).addEventListener("input", show);
show();
</script>
</html>
"""
