"""MethodComparison: the trained deltas of one kind on one patient, beside each other."""

from __future__ import annotations

from functools import cache

from torch import nn

from labkit import deltas
from labkit.tuning import count, tune
from labkit.updates import Ranked

KINDS = {"single slices, linear head": "", "runs of slices, light decoder": "volumes-"}


def kinds() -> dict[str, tuple[str, ...]]:
    """The deltas that lie in data/deltas, by kind; deltas of one kind had equal patients, batches and steps."""
    there = [name for name in deltas.DELTAS if deltas.place(name).is_file()]
    longest_first = sorted(KINDS.values(), key=len, reverse=True)
    of = {name: next(start for start in longest_first if name.startswith(start)) for name in there}
    found = {kind: tuple(n for n in there if of[n] == start) for kind, start in KINDS.items()}
    return {kind: names for kind, names in found.items() if names}


def trained(name: str) -> nn.Module:
    """The network of a delta, also of one that is kept as factors: then with the whole update."""
    if name.startswith("rank-"):
        update = deltas.update(name)
        return Ranked(deltas.start(), update).at(update.rank).eval()
    return deltas.network(name)


@cache
def learned(name: str) -> int:
    """How many numbers the training of a delta changed, the head's included."""
    if name.startswith("rank-"):  # a network at its rank learns nothing any more
        return count(tune(deltas.start(), deltas.named(name).method)).tuned
    return count(deltas.network(name)).tuned
