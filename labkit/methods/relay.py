"""How a layer after one block hears of a layer after an earlier one."""

from __future__ import annotations

import weakref

import torch


class Relay:
    """Hands the feature of each stage to the next, past the frozen blocks between them.

    The layers of a network share one. A feature stays until the backward pass has come through the first
    stage, since gradient checkpointing computes the later ones again; where no gradient is asked for, until
    the last stage has read it. With checkpointing every forward pass needs its backward pass before the next.
    Copies of a model start with nothing.
    """

    def __init__(self, stages: int):
        self.last, self.features = stages - 1, {}

    def put(self, stage: int, feature: torch.Tensor) -> None:
        self.features[stage] = feature
        if feature.requires_grad and stage == 0:
            relay = weakref.ref(self)  # a feature that held its relay would keep both alive

            def forget(_gradient: torch.Tensor) -> None:
                if relay() is not None:
                    relay().features.clear()

            feature.register_hook(forget)
        elif stage == self.last and not feature.requires_grad:
            self.features.clear()

    def __getstate__(self) -> dict:
        return {"last": self.last, "features": {}}
