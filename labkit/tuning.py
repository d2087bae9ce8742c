"""The verbs: tune, delta, count, merge, unmerge, bypass, save, load.

A method is a frozen dataclass with one duty, `inject(backbone)`. `tune` freezes first and injects second, so
whatever a method adds is born trainable, and the *delta* of a model is simply its parameters that require a
gradient. Counting, optimising and saving all use it.

A tuple of methods is a method. Whatever order it is written in, its members are injected in the order of
FAMILIES, innermost first: choices among the pretrained parameters, then changes of matrices, then added
layers, then prompts.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import torch
from torch import nn

from labkit.files import write_atomically
from labkit.networks.anatomy import backbone_of, head

FAMILIES = ("choose", "reparameterise", "add", "prompt")


class Method(Protocol):
    family: ClassVar[str]  # one of FAMILIES

    def inject(self, backbone: nn.Module) -> None:
        """Add trainable parameters to a frozen backbone, or unfreeze some of its own."""


@dataclass(frozen=True)
class Count:
    """Numbers of parameters: trained, added by the method, and the whole model before it."""

    tuned: int
    inserted: int
    pretrained: int


def members(method: Method | tuple[Method, ...]) -> tuple[Method, ...]:
    """The methods of a tuple (or the one that is none) in the order in which they are injected."""
    methods = method if isinstance(method, tuple) else (method,)
    if not methods or len({type(one) for one in methods}) < len(methods):
        raise ValueError(
            f"{methods} can't be combined: a tuple names at least one method, and each only once."
        )
    return tuple(sorted(methods, key=lambda one: FAMILIES.index(one.family)))


def tune(model: nn.Module, method: Method | tuple[Method, ...], seed: int = 0) -> nn.Module:
    """Freeze the backbone of `model`, then inject `method`; returns the same model, changed in place.

    The head (see `anatomy.head`) stays trainable under every method. `seed` fixes what the method draws, and
    the random numbers of the caller go on as if nothing had been drawn.
    """
    if hasattr(model, "tuned_by"):
        raise ValueError(
            f"This model is already tuned by {model.tuned_by}; load a fresh backbone for {method}."
        )
    methods = members(method)
    model.pretrained_parameters = numel(model.parameters())
    backbone = backbone_of(model)
    backbone.requires_grad_(False)
    own = list(backbone.parameters())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for one in methods:
            one.inject(backbone)
    model.keeps_pretrained = not any(p.requires_grad for p in own)
    for parameter in head(model):
        parameter.requires_grad_(True)
    model.tuned_by = methods if isinstance(method, tuple) else method
    return model


def numel(parameters) -> int:
    return sum(p.numel() for p in parameters)


def delta(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trained part of a model, by name; a parameter shared between modules stands once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    """All that training changes: the delta, and the running statistics of the norms that belong to it."""
    statistics = {
        f"{path}.{name}": buffer
        for path, module in model.named_modules()
        if any(p.requires_grad for p in module.parameters(recurse=False))
        for name, buffer in module.named_buffers(recurse=False)
        if name not in module._non_persistent_buffers_set
    }
    return delta(model) | statistics


def fill(model: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Copy tensors into the parts of the model's `state` that they are named after."""
    mine = state(model)
    with torch.no_grad():
        for name, tensor in tensors.items():
            mine[name].copy_(tensor)


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
    """Fold the delta into the pretrained matrices: the same function, at the pretrained size and speed.

    W0 is kept aside, so `unmerge` brings it back to the bit.
    """
    found = wrappers(model)
    for name, wrapper in found:
        if not hasattr(wrapper, "merged"):
            raise ValueError(
                f"{name} can't be merged: {type(wrapper).__name__} is not a change of a matrix "
                "(a layer with an activation, or added tokens, can't be folded into one). Keep "
                "the model as it is."
            )
    for name, wrapper in found:
        model.set_submodule(name, wrapper.merged())
    model.merged_from = found  # a list of pairs, so that PyTorch does not take them for parts of the model
    return model


def unmerge(model: nn.Module) -> nn.Module:
    """Undo `merge`: W0 beside its delta again, both to the bit."""
    if not getattr(model, "merged_from", None):
        raise ValueError("This model holds nothing that was merged; call merge(model) first.")
    for name, wrapper in reversed(model.merged_from):
        model.set_submodule(name, wrapper)
    model.merged_from = []
    return model


@contextlib.contextmanager
def bypass(model: nn.Module) -> Iterator[nn.Module]:
    """Inside the context, the pretrained backbone without what the method added (the trained head stays).

    ValueError: the method trains the pretrained parameters themselves, so they are no longer there.
    """
    if not model.keeps_pretrained:
        raise ValueError(
            f"{model.tuned_by} trains the pretrained parameters themselves, so the pretrained network is no "
            "longer inside this one; load a fresh one."
        )
    found = wrappers(model)
    for name, wrapper in found:  # innermost first, while the path through its wrappers still stands
        model.set_submodule(name, wrapper.original)
    try:
        yield model
    finally:
        for name, wrapper in reversed(found):
            model.set_submodule(name, wrapper)


def save(model: nn.Module, path: str | Path, half: bool = False, **about) -> None:
    """Write the delta of a tuned model, and which method and network it belongs to, as safetensors.

    `half`: its numbers in float16, half as large a file. `about` is kept beside them, as JSON can hold it:
    `labkit.training.label_scan` wants labels=[0, 1, 2, 4], the values of its classes, and slices=4, the
    length of its runs.
    """
    from safetensors.torch import save_file

    tensors = {name: p.detach().contiguous() for name, p in state(model).items()}
    if half:
        tensors = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
    about |= {"network": getattr(model, "made", None)}
    described = {"labkit": describe(model.tuned_by), "about": json.dumps(about, sort_keys=True)}
    write_atomically(Path(path), lambda temporary: save_file(tensors, temporary, described))


def describe(method: Method | tuple[Method, ...]) -> str:
    """A method and its settings as JSON; a list of them for a tuple."""
    described = [{"method": type(one).__name__, "config": asdict(one)} for one in members(method)]
    return json.dumps(described if isinstance(method, tuple) else described[0], sort_keys=True)


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
    mine = state(model)
    unlike = sorted(mine.keys() ^ tensors.keys()) or [n for n in mine if mine[n].shape != tensors[n].shape]
    if unlike:
        more = " and more" if len(unlike) > 3 else ""
        raise ValueError(
            f"{path} does not fit this model: {', '.join(unlike[:3])}{more} differ; use the "
            "backbone and decoder it was made with."
        )
    fill(model, tensors)
    return model
