"""Running an explorer's cell again: the one that was there makes room, whoever still holds it."""

import gc
import importlib
import subprocess
import sys
import weakref

import ipywidgets as widgets
import pytest
import torch
from jupyter_client.manager import start_new_kernel

from labkit.explore import page
from labkit.explore.explorer import LOOK, Explorer
from labkit.explore.shown import OPEN
from labkit.explore.viewer import viewer


class Mean(Explorer):
    """One network: the mean of the channels."""

    organ = "brain"

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


def test_viewers_of_other_patients_stay_and_a_line_that_is_run_again_replaces_its_own(case):
    from dataclasses import replace

    def shown(name, brighter):
        return viewer(replace(case, name=name, image=case.image + brighter))

    one, other = shown("one", 0), shown("other", 0)
    again = shown("one", 1)  # other data: the line was run again after some change
    assert other.comm and again.comm and one.comm is None
    assert not hasattr(one, "case")


CELLS = {  # cell id, code, how many viewers are open then
    "two cells of one patient": [("a", "viewer(one)", 1), ("b", "viewer(one)", 2)],
    "a cell again": [("a", "viewer(one)", 1), ("a", "viewer(one)", 1)],
    "a cell again, edited, with another scan": [("a", "viewer(one)", 1), ("a", "1\nviewer(moved)", 1)],
    "a loop over predictions": [("a", "for found in two: viewer(one, found)", 2)] * 2,
    "two viewers of a cell": [("a", "viewer(one); viewer(one, two[0])", 2)] * 3,
    "no ids: the text of a cell counts": [
        ("", "viewer(one)", 1),
        ("", "viewer(one)", 1),
        ("", "1\nviewer(one)", 2),
    ],
}
BEGIN = """
import numpy as np
from labkit.explore.shown import OPEN
from labkit.explore.viewer import viewer
from labkit.scans.case import Case
label = np.zeros((4, 96, 96), np.uint8)
images = np.random.rand(2, 1, 4, 96, 96).astype("f4")
one, moved = (Case("p", image, label, (2.0,) * 3, ("T1",), {1: "it"}) for image in images)
two = [np.zeros_like(label), np.ones_like(label)]
"""


@pytest.fixture(scope="module")
def kernel():
    manager, client = start_new_kernel(kernel_name="python3")
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.mark.parametrize("cells", CELLS.values(), ids=CELLS)
def test_a_cell_that_is_run_again_replaces_its_viewers_and_no_others(kernel, cells):
    def run(code, cell=""):
        content = dict(code=code, silent=False, store_history=True, user_expressions={"open": "len(OPEN)"})
        message = kernel.session.msg(
            "execute_request", content | {"allow_stdin": False, "stop_on_error": True}
        )
        message["metadata"] = {"cellId": cell} if cell else {}
        kernel.shell_channel.send(message)
        while (reply := kernel.get_shell_msg(timeout=60))["parent_header"].get("msg_id") != message["header"][
            "msg_id"
        ]:
            pass
        assert reply["content"]["status"] == "ok", reply["content"]
        return int(reply["content"]["user_expressions"]["open"]["data"]["text/plain"])

    run(BEGIN + "OPEN.clear()")
    assert [run(code, cell) for cell, code, _ in cells] == [count for *_, count in cells]


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
# What C's allocator keeps for the next run is given back first: some 60 MB that come and go and nobody holds.
RSS = """import ctypes, gc
gc.collect()
ctypes.CDLL(None).malloc_trim(0)
print(int(open('/proc/self/statm').read().split()[1]) * 4096 / 1e6)"""


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
