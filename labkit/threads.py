"""How PyTorch's threads wait for each other, which its OpenMP reads from the environment as it is loaded."""

from __future__ import annotations

import os

SPINS = "1000"  # rounds of a loop, then sleep


def wait_briefly() -> None:
    """Let a thread that waits for another one soon give its core away; kernels and workers inherit it.

    GCC's library, PyTorch's on Linux, has a waiting thread run in a loop for 300,000 rounds. Where another
    program keeps a core busy, as a browser does, it may so wait for a thread that has no core to run on: on
    two cores a training step then takes three times as long, now and then seconds. With 1,000 rounds it takes
    twice as long, and a tenth longer where nothing else runs (`benchmarks/busy_core.py`).
    Whoever set GOMP_SPINCOUNT or OMP_WAIT_POLICY knows better.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS
