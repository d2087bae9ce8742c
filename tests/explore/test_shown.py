"""Running an explorer's cell again: the one that was there makes room, whoever still holds it."""

import gc
import importlib
import subprocess
import sys
import weakref

import ipywidgets as widgets
import numpy as np
import pytest
import torch
from jupyter_client.manager import start_new_kernel

from labkit.explore import page
from labkit.explore.explorer import LOOK, Explorer
from labkit.explore.shown import OPEN
from labkit.explore.viewer import viewer


class Mean(Explorer):
    """One network: the mean of the channels."""

    def __init__(self, cases):
        self.networks = [torch.nn.Conv2d(4, 4, 1) for _ in range(2)]
        self.which = widgets.IntSlider(max=3, description="Which", **LOOK)
        self._open(cases, (self.which,))

    def choice(self):
        return self.which.value

    def nearby(self):
        return [0, 1, 2, 3]

    def network(self, choice, own):
        return self.networks[own]

    def words(self, choice):
        return f"Network {choice}."

    def shown(self):
        return {"first": 0}


def test_another_of_its_kind_frees_what_the_first_held_and_ends_its_work(case, monkeypatch):
    monkeypatch.delenv("LABKIT_HEADLESS", raising=False)
    first = Mean([case])
    network, volume = weakref.ref(first.networks[0]), weakref.ref(first.volumes[0])
    thread, slider = first.ahead._thread, first.slice
    second = Mean([case])
    gc.collect()
    assert network() is None and volume() is None, "though `first` still holds it, as IPython's Out would"
    assert not thread.is_alive()
    assert first.comm is None and slider.comm is None and OPEN[Mean] is second
    second.which.value = 1
    assert "Network 1" in second.describe()
    second.ahead.stop()


@pytest.mark.parametrize("name, at", [("rank", "_build"), ("adapters", "_meet"), ("prompts", "_place_slice")])
def test_one_that_was_interrupted_while_it_opened_is_not_in_the_way(ct, monkeypatch, name, at):
    made = getattr(importlib.import_module(f"labkit.explore.{name}"), page.EXPLORERS[name])

    def interrupted(self, *_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(made, at, interrupted)
        with pytest.raises(KeyboardInterrupt):
            made([ct])
    assert made([ct]).describe()


def test_viewers_of_other_patients_stay_and_the_same_one_is_replaced(case):
    from dataclasses import replace

    one, other, found = viewer(case), viewer(replace(case, name="other")), viewer(case, case.label)
    again = viewer(case)
    assert other.comm and found.comm and again.comm and one.comm is None
    assert not hasattr(one, "case")


def test_viewers_of_two_scans_or_two_predictions_of_one_patient_stay_both(case):
    """Lab 00 shows a patient who lay still and, under the same name, one who moved."""
    from dataclasses import replace

    one, moved = viewer(case), viewer(replace(case, image=case.image + 1))
    found, other = viewer(case, case.label), viewer(case, np.zeros_like(case.label))
    assert all(each.comm for each in (one, moved, found, other))
    again = viewer(replace(case, image=case.image.copy()), case.label.copy())  # the cell is run again
    assert again.comm and found.comm is None and other.comm


ABORTS = """
import numpy as np, torch
from labkit.explore.ahead import Ahead
x = torch.randn(600, 600)
slow = lambda key: [x @ x for _ in range(200)]
ahead = Ahead(slow, slow)
ahead.rest(range(100))
import time; time.sleep(0.8)
"""


def test_leaving_python_while_it_computes_ahead_aborts_nothing():
    left = subprocess.run([sys.executable, "-c", ABORTS], capture_output=True, text=True, timeout=120)
    assert left.returncode == 0 and not left.stderr


MADE = {
    "rank": "from labkit.explore.rank import RankExplorer as Made",
    "prompts": "from labkit.explore.prompts import PromptExplorer as Made",
    "adapters": "from labkit.explore.adapters import AdapterExplorer as Made",
    "med_tuning": "from labkit.explore.med_tuning import MedTuningExplorer as Made",
    "prune": "from labkit.explore.prune import PruneExplorer as Made",
    "bits": "from labkit.explore.bits import BitsExplorer as Made",
    "budget": "from labkit.explore.budget import ParameterBudget as Made",
    "comparison": "from labkit.explore.comparison import MethodComparison\n"
    "Made = lambda: MethodComparison(of_kind={'two': ('prompts-deep-10', 'probe')})",
    "viewer": "from labkit.explore.viewer import viewer\nfrom labkit.phantoms.brain import brain_patient\n"
    "Made = lambda: viewer(brain_patient(50))",
}
REST = """from labkit.explore.shown import OPEN
for one in OPEN.values():
    if hasattr(one, "ahead"):
        one.ahead.finish()"""
RSS = "import gc; gc.collect(); print(int(open('/proc/self/statm').read().split()[1]) * 4096 / 1e6)"


@pytest.mark.slow
@pytest.mark.parametrize("explorer", MADE.values(), ids=MADE)
def test_a_cell_that_is_run_again_costs_less_than_20_mb(explorer):
    """In a real kernel, whose Out holds every explorer that was shown."""
    manager, client = start_new_kernel(kernel_name="python3")

    def run(code):
        said = []
        client.execute_interactive(
            code,
            timeout=300,
            output_hook=lambda m: said.append(m["content"]) if m["msg_type"] in ("stream", "error") else None,
        )
        assert not any("ename" in one for one in said), said
        return "".join(one.get("text", "") for one in said if one.get("name") == "stdout")

    try:
        run(explorer)
        sizes = []
        for _ in range(5):
            run("Made()")
            run(REST)  # what it computes ahead is part of what it costs
            sizes.append(float(run(RSS)))
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    print(f"MB after each run: {[round(size) for size in sizes]}")
    assert sizes[-1] - sizes[0] < 4 * 20, "four runs after the first one"
