"""The verbs: tune, delta, count, merge, unmerge, bypass, save, load.

A method is a frozen dataclass with one duty, `inject(backbone)`. `tune` freezes first and injects second, so
whatever a method adds is born trainable, and the *delta* of a model is simply its parameters that require a
gradient. Counting, optimising and saving all use it.

A tuple of methods is a method. Whatever order it is written in, its members are injected in the order of
FAMILIES, innermost first: choices among the pretrained parameters, then changes of matrices, then added
layers, then prompts; members of one family in the order of their names.

A model is *whole* unless `merge` or `bypass` has set aside what a method put around its pretrained modules.
Whatever asks for the delta (optimising, saving, loading) refuses one that is not.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import nn

from labkit.files import write_atomically
from labkit.networks.anatomy import backbone_of, copy_again
from labkit.networks.anatomy import head as head_of

FAMILIES = ("choose", "reparameterise", "add", "prompt")


class Method(Protocol):
    """`forgets = True`, where a method says so: it draws the pretrained weights anew.

    `rates(model)`, where it has one: what multiplies the learning rate of some of its parameters.
    """

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
    return tuple(sorted(methods, key=lambda one: (FAMILIES.index(one.family), type(one).__name__)))


def tune(
    model: nn.Module, method: Method | tuple[Method, ...], seed: int = 0, head: str | Sequence[str] = ()
) -> nn.Module:
    """Freeze the backbone of `model`, then inject `method`; returns the same model, changed in place.

    The head stays trainable under every method. labkit's segmenters and timm's backbones say what theirs is;
    of any other network `head` names the modules, as peft's `modules_to_save`. `seed` fixes what the method
    draws, and the random numbers of the caller go on as if nothing had been drawn. A method that can't be
    injected raises, and leaves the model exactly as it was.
    """
    if hasattr(model, "tuned_by"):
        raise ValueError(
            f"This model is already tuned by {model.tuned_by}; load a fresh backbone for {method}."
        )
    methods, restore = members(method), snapshot(model)
    names = (head,) if isinstance(head, str) else tuple(head)
    try:
        if names:
            model.head_names = checked_head(model, names)
        pretrained = numel(model.parameters())
        backbone = backbone_of(model)
        backbone.requires_grad_(False)
        own = list(backbone.parameters())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for one in methods:
                one.inject(backbone)
                if getattr(one, "forgets", False):
                    copy_again(model)
        model.pretrained_parameters = pretrained
        model.keeps_pretrained = not any(p.requires_grad for p in own)
        for parameter in head_of(model):
            parameter.requires_grad_(True)
        if not any(p.requires_grad for p in model.parameters()):
            raise ValueError(
                f"Under {method} nothing of {type(model).__name__} would learn; name its head by "
                f'tune(..., head="NAME"); it has {", ".join(name for name, _ in model.named_children())}.'
            )
        model.tuned_by = methods if isinstance(method, tuple) else method
    except BaseException:
        restore()
        raise
    return model


def checked_head(model: nn.Module, names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of a network's head. ValueError: it has no such module, or knows its head itself."""
    if hasattr(model, "tune_positions"):
        raise ValueError("A segmenter of labkit's knows its head (norm and decoder); leave out `head`.")
    there = dict(model.named_modules())
    for name in names:
        if not name or name not in there:
            children = ", ".join(child for child, _ in model.named_children())
            raise ValueError(f"{type(model).__name__} has no module {name!r} for a head; it has {children}.")
    return names


def own_container(it: Any) -> Any:
    """A copy of a dictionary or a set, which modules change in place; anything else as it is."""
    if type(it) is OrderedDict:
        return it.copy()  # copy.copy takes many times as long, and every module has ten
    return copy.copy(it) if isinstance(it, (dict, set)) else it


def snapshot(model: nn.Module) -> Callable[[], None]:
    """A function that undoes whatever happens to the modules, parameters and attributes of a model."""
    modules = [(m, {name: own_container(it) for name, it in vars(m).items()}) for m in model.modules()]
    tensors = [(t, t.detach().clone(), t.requires_grad) for t in (*model.parameters(), *model.buffers())]

    def restore() -> None:
        for module, attributes in modules:
            vars(module).clear()
            vars(module).update(attributes)
        with torch.no_grad():
            for tensor, values, learns in tensors:
                tensor.requires_grad_(learns).copy_(values)

    return restore


def numel(parameters) -> int:
    return sum(p.numel() for p in parameters)


def plain_name(name: str) -> str:
    """The name of a parameter without what `torch.compile` puts before the names of what it compiles."""
    return name.replace("_orig_mod.", "")


def delta(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trained part of a model, by name; a parameter shared between modules stands once.

    ValueError: the model is merged or bypassed, so that the trained part is not in it.
    """
    if getattr(model, "merged_from", None):
        raise ValueError(
            "This model is merged: what its method trained is folded into the pretrained matrices, and can't "
            "be trained, saved or loaded there. Call unmerge(model) first."
        )
    if getattr(model, "bypassed", False):
        raise ValueError(
            "Inside bypass(model) what its method trained is set aside, and can't be counted, trained, saved "
            "or loaded; leave the `with` block first."
        )
    return {plain_name(name): p for name, p in model.named_parameters() if p.requires_grad}


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    """All that training changes: the delta, and the running statistics of the norms that belong to it."""
    statistics = {
        plain_name(f"{path}.{name}"): buffer
        for path, module in model.named_modules()
        if any(p.requires_grad for p in module.parameters(recurse=False))
        for name, buffer in module.named_buffers(recurse=False)
        if name not in module._non_persistent_buffers_set
    }
    return delta(model) | statistics


def digest(tensors: Iterable[torch.Tensor]) -> str:
    """SHA-256 of the shapes and the bytes of tensors, in their order."""
    found = hashlib.sha256()
    for t in tensors:
        found.update(str(tuple(t.shape)).encode())
        found.update(t.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def frozen_digest(model: nn.Module) -> str | None:
    """The digest of the parameters that tuning froze, whatever was put around them; None if none is frozen.

    Of their values in bfloat16, so that a backbone is itself in float32, float64 and bfloat16.
    """
    learns = {id(p) for p in delta(model).values()}
    frozen = {
        plain_name(name).replace(".original", ""): p
        for name, p in model.named_parameters()
        if id(p) not in learns
    }
    return digest(frozen[name].bfloat16() for name in sorted(frozen)) if frozen else None


def check_finite(tensors: dict[str, torch.Tensor], whose: str, cure: str) -> None:
    """ValueError: some tensor holds a NaN or an infinite number; names it."""
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{whose}: {name} holds numbers that are NaN or infinite; {cure}.")


def fill(model: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Copy tensors into the parts of the model's `state` that they are named after."""
    mine = state(model)
    with torch.no_grad():
        for name, tensor in tensors.items():
            mine[name].copy_(tensor)


def count(model: nn.Module) -> Count:
    """Parameters of a tuned model; of a merged one, those that it has when it is unmerged."""
    if getattr(model, "merged_from", None):
        return model.counted
    return Count(
        numel(delta(model).values()),
        numel(model.parameters()) - model.pretrained_parameters,
        model.pretrained_parameters,
    )


def wrappers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """What methods put around the pretrained modules, innermost first."""
    modules = reversed(list(model.named_modules()))  # `original` of PyTorch's parametrizations is no module
    return [(name, m) for name, m in modules if isinstance(getattr(m, "original", None), nn.Module)]


@dataclass(frozen=True)
class Aside:
    """A wrapper that is out of the model for a while, and where what stands for it was then."""

    name: str
    wrapper: nn.Module
    place: tuple[torch.device, torch.dtype]


def place(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device and type of a module's numbers."""
    first = next(module.parameters(), torch.empty(0))
    return first.device, first.dtype


def set_aside(
    model: nn.Module, found: list[tuple[str, nn.Module]], stand_in: Callable[[nn.Module], nn.Module]
) -> list[Aside]:
    """Put `stand_in(wrapper)` in the place of each of `wrappers(model)`.

    Innermost first, while the path through its wrappers still stands; what an outer one holds is new by then.
    """
    aside = []
    for name, wrapper in found:
        plain = stand_in(wrapper)
        model.set_submodule(name, plain)
        aside.append(Aside(name, wrapper, place(plain)))
    return aside


def bring_back(model: nn.Module, aside: list[Aside]) -> None:
    """The wrappers again, in the mode, on the device and in the type that the model has come to meanwhile."""
    for one in reversed(aside):
        stand_in = model.get_submodule(one.name)
        if place(stand_in) != one.place:
            one.wrapper.to(*place(stand_in))
        if one.wrapper.training != stand_in.training:
            one.wrapper.train(stand_in.training)
        model.set_submodule(one.name, one.wrapper)


def merge(model: nn.Module) -> nn.Module:
    """Fold the delta into the pretrained matrices: the same function, at the pretrained size and speed.

    W0 is kept aside, so `unmerge` brings it back to the bit. A model that is merged already stays as it is.
    ValueError, before anything has changed: the method can't be folded, or a matrix would not be finite.
    """
    if getattr(model, "merged_from", None):
        return model
    if getattr(model, "bypassed", False):
        raise ValueError("Inside bypass(model) there is nothing to merge; leave the `with` block first.")
    found = wrappers(model)
    for name, wrapper in found:
        if not hasattr(wrapper, "merged"):
            methods = " or ".join(type(one).__name__ for one in members(model.tuned_by))
            raise ValueError(
                f"{name} can't be merged: what {methods} did there is not a change of a matrix "
                "(a layer with an activation, or added tokens, can't be folded into one). Keep "
                "the model as it is."
            )
    merged = {wrapper: wrapper.merged().train(wrapper.training) for _, wrapper in found}
    for name, wrapper in found:
        check_finite(
            dict(merged[wrapper].named_parameters()),
            f"{name} can't be merged",
            "the training diverged, or the sum is too large for its type of numbers. The model is as it was",
        )
    if found:
        model.counted = count(model)
    # in a list, so that PyTorch does not take the wrappers for parts of the model
    model.merged_from = set_aside(model, found, merged.__getitem__)
    return model


def unmerge(model: nn.Module) -> nn.Module:
    """Undo `merge`: W0 beside its delta again, both to the bit.

    Where the merged model has been taken to another device or type of numbers, they follow it there.
    """
    if not getattr(model, "merged_from", None):
        raise ValueError("This model holds nothing that was merged; call merge(model) first.")
    bring_back(model, model.merged_from)
    model.merged_from = []
    return model


@contextlib.contextmanager
def bypass(model: nn.Module) -> Iterator[nn.Module]:
    """Inside the context, the pretrained backbone without what the method added (the trained head stays).

    ValueError: the method trains the pretrained parameters themselves, so they are no longer there; or the
    model is merged.
    """
    if not model.keeps_pretrained:
        raise ValueError(
            f"{model.tuned_by} trains the pretrained parameters themselves, so the pretrained network is no "
            "longer inside this one; load a fresh one."
        )
    if getattr(model, "merged_from", None):
        raise ValueError(
            "This model is merged, so its matrices are no longer the pretrained ones; call unmerge(model) "
            "before bypass(model)."
        )
    if getattr(model, "bypassed", False):  # by a block around this one, which ends it
        yield model
        return
    aside = set_aside(model, wrappers(model), lambda wrapper: wrapper.original)
    model.bypassed = True
    try:
        yield model
    finally:
        bring_back(model, aside)
        model.bypassed = False


def save(model: nn.Module, path: str | Path, half: bool = False, **about) -> None:
    """Write the delta of a tuned model, and which method, backbone and network it belongs to, as safetensors.
    Equal networks are equal bytes.

    `half`: its numbers in float16, half as large a file. `about` is kept beside them, as JSON can hold it:
    `labkit.training.label_scan` wants labels=[0, 1, 2, 4], the values of its classes, and slices=4, the
    length of its runs. ValueError, and no file: the model is merged or bypassed, or a number is not finite or
    too large for float16.
    """
    from safetensors.torch import save_file

    tensors = {name: p.detach().contiguous() for name, p in state(model).items()}
    check_finite(tensors, f"{path} is not written", "the training diverged: train again at a lower rate")
    if half:
        tensors = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
        check_finite(
            tensors, f"{path} is not written", "it is too large for float16: save it with half=False"
        )
    about |= {"network": getattr(model, "made", None)}
    described = {"labkit": describe(model.tuned_by), "about": json.dumps(about, sort_keys=True)}
    if frozen := frozen_digest(model):
        described["backbone"] = frozen

    def write(temporary: Path) -> None:
        save_file(tensors, temporary, described)
        sort_metadata(temporary)

    write_atomically(Path(path), write)


def sort_metadata(path: Path) -> None:
    """Sort what a safetensors file says beside its tensors, in place; the library writes it in random order.

    A file is the length of its header (8 bytes, little-endian), the header as JSON, padded with spaces, and
    the numbers; https://huggingface.co/docs/safetensors#format.
    """
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        written = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        file.seek(8)
        file.write(written.ljust(length))


def describe(method: Method | tuple[Method, ...]) -> str:
    """A method and its settings as JSON; a list of them for a tuple."""
    described = [{"method": type(one).__name__, "config": asdict(one)} for one in members(method)]
    return json.dumps(described if isinstance(method, tuple) else described[0], sort_keys=True)


def settings(described: str | None) -> list | str | None:
    """What `describe` wrote, so that equal methods are equal however they were written: 8 and 8.0, the order
    of targets and of the members of a tuple, a tuple of one. What it did not write is returned as it is."""
    try:
        found = json.loads(described)
        methods = found if isinstance(found, list) else [found]
        return sorted(
            (
                one["method"],
                sorted((key, sorted(v) if isinstance(v, list) else v) for key, v in one["config"].items()),
            )
            for one in methods
        )
    except (TypeError, ValueError, KeyError, AttributeError):
        return described


def load(model: nn.Module, path: str | Path) -> nn.Module:
    """Fill the delta of `model`, tuned by the same method, from a file that `save` wrote.

    ValueError, before anything of the model has changed: the file is of another method, of other shapes, of a
    backbone with other weights, or holds numbers that are not finite; says which. A file that was written
    before files named their backbone is taken for one of this model's.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            said = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path} is no readable safetensors file ({error}); save it again.") from error
    if settings(said.get("labkit")) != settings(describe(model.tuned_by)):
        raise ValueError(
            f"{path} holds a delta of {said.get('labkit')}, but this model is tuned by "
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
    if said.get("backbone", frozen := frozen_digest(model)) != frozen:  # older files do not say
        network = json.loads(said.get("about", "{}")).get("network")
        raise ValueError(
            f"{path} was trained on a backbone with other weights than this model's, and means nothing on "
            f"these; build the network it was made with: {network or 'its file does not say which'}."
        )
    check_finite(tensors, str(path), "its training diverged; make it again")
    fill(model, tensors)
    return model
