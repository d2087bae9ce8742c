"""A button that trains a delta anew, in a process of its own, with a progress bar and a way to stop it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import ipywidgets as widgets

from labkit.explore import deltas
from labkit.paths import cache_dir

# A process of its own: the notebook stays usable meanwhile, its random numbers stay, and stopping is sure.
TRAIN = """import json, sys
from pathlib import Path
from labkit.explore import deltas
tell = lambda row: print(json.dumps(row), flush=True)
deltas.make(sys.argv[1], Path(sys.argv[2]), on_step=tell)"""


class Retrain(widgets.HBox):
    """Trains the delta that `name()` names; `done(name, path)` is called when its file is there."""

    def __init__(self, name: Callable[[], str], done: Callable[[str, Path], None]) -> None:
        self.name, self.done = name, done
        self.process: subprocess.Popen | None = None
        self.button = widgets.Button(description="Train it anew", tooltip="A minute or two")
        self.cancel = widgets.Button(description="Stop", disabled=True)
        self.bar = widgets.IntProgress(description="training", layout={"visibility": "hidden"})
        self.words = widgets.HTML("<span role='status'></span>")
        self.button.on_click(lambda _: self.start())
        self.cancel.on_click(lambda _: self.stop())
        super().__init__([self.button, self.cancel, self.bar, self.words])

    def start(self) -> None:
        """Train the delta in a thread of its own; the button waits until it is done."""
        name = self.name()
        path = cache_dir() / "deltas" / f"{name}.safetensors"
        self.bar.max, self.bar.value = deltas.named(name).recipe.steps, 0
        self.bar.layout.visibility, self.button.disabled, self.cancel.disabled = "visible", True, False
        self._say(f"{name}: making the patients ...")
        command = [sys.executable, "-c", TRAIN, name, str(path)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        threading.Thread(target=self._follow, args=(name, path), daemon=True).start()

    def stop(self) -> None:
        """End the training; what was there before stays."""
        if self.process:
            self.process.terminate()

    def _follow(self, name: str, path: Path) -> None:
        for line in self.process.stdout:
            row = json.loads(line)
            self.bar.value = row["step"]
            self._say(f"step {row['step']} of {self.bar.max}, loss {row['loss']:.2f}")
        finished = self.process.wait() == 0
        self.bar.layout.visibility, self.button.disabled, self.cancel.disabled = "hidden", False, True
        self._say(f"{name}: trained." if finished else f"{name}: stopped, nothing was changed.")
        if finished:
            self.done(name, path)

    def _say(self, text: str) -> None:
        self.words.value = f"<span role='status'>{text}</span>"
