"""What an explorer waits for: networks, made when they are first looked at; and a line that says so."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Iterator

import torch
from torch import nn
from tqdm.auto import tqdm

TOLD_AFTER_SECONDS = 0.8


class Networks(dict[str, tuple[nn.Module, nn.Module]]):
    """Networks by name, each as two for two threads, made by `make` when it is first looked at.

    Making one draws from torch's global random numbers, which are then put back. Meanwhile no other thread
    may draw, so that it is done in the thread of the student's cells: what computes ahead asks first whether
    a name is `in` here. Equal weights have one place in memory, so nobody may change them.
    """

    def __init__(self, make: Callable[[str], nn.Module]) -> None:
        super().__init__()
        self.make = make
        self._weights: dict[torch.Size, list[torch.Tensor]] = {}

    @torch.inference_mode(False)  # looked at within it, too; what is made there can't be copied from later
    def __missing__(self, name: str) -> tuple[nn.Module, nn.Module]:
        model = self.make(name)
        for p in model.parameters():
            p.data = self._only(p.data)
        self[name] = (model, twin(model))
        return self[name]

    def _only(self, weights: torch.Tensor) -> torch.Tensor:
        """The first tensor that was equal to this one."""
        there = self._weights.setdefault(weights.shape, [])
        same = next((one for one in there if torch.equal(one, weights)), None)
        if same is None:
            there.append(same := weights)
        return same


def twin(model: nn.Module, own: Callable[[str], bool] = lambda name: False) -> nn.Module:
    """Another module of the same weights, in the same memory but for the parameters that are its `own`."""
    shared = [p for name, p in model.named_parameters() if not own(name)]
    return copy.deepcopy(model, {id(t): t for t in (*shared, *model.buffers())})


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """After a second, a line that says what is waited for; it goes away when that is there."""
    told: list[tqdm] = []  # tqdm's own `delay` ends with its first step, and here is none
    timer = threading.Timer(
        TOLD_AFTER_SECONDS, lambda: told.append(tqdm(desc=what, bar_format="{desc} ...", leave=False))
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        for line in told:
            line.close()
