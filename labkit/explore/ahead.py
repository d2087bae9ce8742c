"""Computing ahead: what a slider may ask for next is made while it rests."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable, Hashable, Iterable
from typing import Any

REST_SECONDS = 0.3  # how long nothing was asked for before work begins


EVERY: weakref.WeakSet[Ahead] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """A thread that computes while the interpreter goes would take it down with an abort."""
    for one in list(EVERY):
        one.stop()


class Ahead:
    """A function of hashable keys that remembers its values and can be computed ahead in a thread.

    `compute` is what is called for a key that is asked for, `compute_ahead` the same with a network of its
    own, so that the two never share one. `then(key)` is told of each value made ahead.
    """

    def __init__(
        self,
        compute: Callable[[Any], Any],
        compute_ahead: Callable[[Any], Any],
        then: Callable[[Any], None] = lambda key: None,
    ):
        self.compute, self.compute_ahead, self.then = compute, compute_ahead, then
        self.values: dict[Hashable, Any] = {}
        self._asked = threading.Event()  # set whenever somebody is waiting or has just asked
        self._turn = 0
        self._thread: threading.Thread | None = None
        EVERY.add(self)

    def __call__(self, key: Hashable) -> Any:
        """The value of a key, computed now if it is not there."""
        self._asked.set()
        if key not in self.values:
            self.values[key] = self.compute(key)
        return self.values[key]

    def rest(self, keys: Iterable[Hashable]) -> None:
        """Compute these keys in order once nothing was asked for a while; a later call replaces this one."""
        self._turn += 1
        self._thread = threading.Thread(target=self._work, args=(self._turn, list(keys)), daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait until what was asked for ahead is there."""
        if self._thread:
            self._thread.join()

    def stop(self) -> None:
        """End the work that is under way."""
        self._turn += 1
        self._asked.set()  # it need not wait for its rest
        self.finish()

    def _work(self, turn: int, keys: list) -> None:
        self._asked.set()
        for key in keys:
            while turn == self._turn and self._asked.is_set():  # begin, or begin again, after a rest
                self._asked.clear()
                self._asked.wait(REST_SECONDS)
            if turn != self._turn:
                return
            if key not in self.values:
                self.values[key] = self.compute_ahead(key)
            self.then(key)
