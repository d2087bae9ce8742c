"""The verbs: tune, delta, count, merge, bypass, save, load.

A method is a frozen dataclass with one duty, `inject(backbone)`. `tune` freezes first and injects second, so
whatever a method adds is born trainable, and the *delta* of a model is simply its parameters that require a
gradient. Counting, optimising and saving all use it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from labkit.anatomy import backbone_of, head
from labkit.files import replace


class Method(Protocol):
    def inject(self, backbone: nn.Module) -> None:
        """Add trainable parameters to a frozen backbone, or unfreeze some of its own."""


@dataclass(frozen=True)
class Count:
    """Numbers of parameters: trained, added by the method, and the whole model before it."""

    tuned: int
    inserted: int
    pretrained: int


def tune(model: nn.Module, method: Method) -> nn.Module:
    """Freeze the backbone of `model`, then inject `method`; returns the same model, changed in place.

    The head (see `anatomy.head`) stays trainable under every method.
    """
    if hasattr(model, "tuned_by"):
        raise ValueError(
            f"This model is already tuned by {model.tuned_by}; load a fresh backbone for {method}."
        )
    model.pretrained_parameters = numel(model.parameters())
    backbone = backbone_of(model)
    backbone.requires_grad_(False)
    method.inject(backbone)
    for parameter in head(model):
        parameter.requires_grad_(True)
    model.tuned_by = method
    return model


def numel(parameters) -> int:
    return sum(p.numel() for p in parameters)


def delta(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trained part of a model, by name; a parameter shared between modules stands once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def count(model: nn.Module) -> Count:
    """Parameters of a tuned model."""
    return Count(
        numel(delta(model).values()),
        numel(model.parameters()) - model.pretrained_parameters,
        model.pretrained_parameters,
    )


def wrappers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """What methods put around the pretrained modules, innermost first."""
    return [(name, m) for name, m in reversed(list(model.named_modules())) if hasattr(m, "original")]


def merge(model: nn.Module) -> nn.Module:
    """Fold the delta into the pretrained matrices: the same function, at the pretrained size and speed."""
    for name, wrapper in wrappers(model):
        if not hasattr(wrapper, "merged"):
            raise ValueError(
                f"{name} can't be merged: {type(wrapper).__name__} is not a change of a matrix "
                "(a layer with an activation, or added tokens, can't be folded into one). Keep "
                "the model as it is."
            )
    for name, wrapper in wrappers(model):
        model.set_submodule(name, wrapper.merged())
    return model


@contextlib.contextmanager
def bypass(model: nn.Module) -> Iterator[nn.Module]:
    """Inside the context, the pretrained backbone without what the method added (the trained head stays)."""
    found = wrappers(model)
    for name, wrapper in reversed(found):  # outermost first, so that a path leads to the module it names
        model.set_submodule(name, wrapper.original)
    try:
        yield model
    finally:
        for name, wrapper in found:
            model.set_submodule(name, wrapper)


def save(model: nn.Module, path: str | Path) -> None:
    """Write the delta of a tuned model, and which method it belongs to, as safetensors."""
    from safetensors.torch import save_file

    tensors = {name: p.detach().contiguous() for name, p in delta(model).items()}
    replace(Path(path), lambda temporary: save_file(tensors, temporary, {"labkit": describe(model.tuned_by)}))


def describe(method: Method) -> str:
    return json.dumps({"method": type(method).__name__, "config": asdict(method)}, sort_keys=True)


def load(model: nn.Module, path: str | Path) -> nn.Module:
    """Fill the delta of `model`, tuned by the same method, from a file that `save` wrote.

    Raises ValueError naming what differs, before anything of the model has changed.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            written_by = (file.metadata() or {}).get("labkit")
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path} is no readable safetensors file ({error}); save it again.") from error
    if written_by != describe(model.tuned_by):
        raise ValueError(
            f"{path} holds a delta of {written_by}, but this model is tuned by "
            f"{describe(model.tuned_by)}; tune a fresh model the way the file was made."
        )
    mine = delta(model)
    unlike = sorted(mine.keys() ^ tensors.keys()) or [n for n in mine if mine[n].shape != tensors[n].shape]
    if unlike:
        more = " and more" if len(unlike) > 3 else ""
        raise ValueError(
            f"{path} does not fit this model: {', '.join(unlike[:3])}{more} differ; use the "
            "backbone and decoder it was made with."
        )
    with torch.no_grad():
        for name, parameter in mine.items():
            parameter.copy_(tensors[name])
    return model
