"""How a result differs from what is expected, in a student's words; and values, shown small."""

from __future__ import annotations

import dataclasses
import inspect
import numbers
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from labkit.lessons.feedback import Line

FEW = 12  # arrays of up to this many elements are printed, larger ones described
KINDS = (numbers.Number, torch.Tensor, np.ndarray, nn.Module, torch.optim.Optimizer, Mapping, (list, tuple))
WORDS = {bool: "True or False", int: "a whole number", float: "a plain number", str: "a text"}
WORDS |= {type(None): "None", torch.Tensor: "a tensor", np.ndarray: "a NumPy array", tuple: "several values"}


@dataclasses.dataclass(frozen=True)
class Difference:
    """The first thing in which a result is not as expected: its type, names, shape, dtype or values."""

    aspect: str
    where: str  # empty, or which part of the result, as "decoder.weight"
    expected: str
    got: str
    note: str = ""

    def __str__(self) -> str:
        at = f"{self.where}: " if self.where else ""
        return f"{at}expected {self.expected}, got {self.got}. {self.note}".strip()

    @property
    def lines(self) -> list[Line]:
        """The difference as lines of feedback."""
        place = f"result{self.where}" if self.where.startswith("[") else self.where
        told = {"Where": place, "Expected": self.expected, "Got": self.got, "Note": self.note}
        return [Line(label, text) for label, text in told.items() if text]


def difference(got: Any, expected: Any, where: str = "") -> Difference | None:
    """How `got` differs from `expected`, or None when it does not.

    A plain number (also a NumPy scalar) is no tensor; numbers are close within 1e-4 of their size, whole ones
    exact. Modules are compared by parameters, buffers, requires_grad and training mode, optimizers by their
    state, containers and dataclasses part by part; objects that define no equality by their type.
    """
    got, expected = (x.item() if isinstance(x, np.generic) else x for x in (got, expected))
    if not _same_kind(got, expected):
        to_item = isinstance(expected, numbers.Number) and isinstance(got, (torch.Tensor, np.ndarray))
        cure = "`.item()` makes a plain number of it." if to_item and got.ndim == 0 else ""
        return Difference("type", where, kind(expected), kind(got), cure)
    if (parts := _parts(expected)) is not None:
        return _part_by_part(_parts(got), parts, where)
    if not isinstance(expected, (numbers.Number, torch.Tensor, np.ndarray)):
        return None if _equal(got, expected) else Difference("values", where, show(expected), show(got))
    if not isinstance(expected, numbers.Number):
        if got.shape != expected.shape:
            shapes = [f"shape {tuple(x.shape)}: {show(x)}" for x in (expected, got)]
            return Difference("shape", where, *shapes)
        if got.dtype != expected.dtype:
            return Difference("dtype", where, str(expected.dtype), str(got.dtype))
    if told := _apart(got, expected):
        note = told if np.prod(np.shape(expected)) > FEW else ""
        return Difference("values", where, show(expected), show(got), note)
    return None


def alike(got: Any, expected: Any) -> bool:
    """Whether `difference` finds none: it looks no further than the first, and puts nothing into words."""
    got, expected = (x.item() if isinstance(x, np.generic) else x for x in (got, expected))
    if not _same_kind(got, expected):
        return False
    if (parts := _parts(expected)) is not None:
        mine = _parts(got)
        return mine.keys() == parts.keys() and all(alike(mine[name], one) for name, one in parts.items())
    if not isinstance(expected, (numbers.Number, torch.Tensor, np.ndarray)):
        return _equal(got, expected)
    if not isinstance(expected, numbers.Number) and (got.shape, got.dtype) != (
        expected.shape,
        expected.dtype,
    ):
        return False
    return not _apart(got, expected)


def _equal(got: Any, expected: Any) -> bool:
    """Of two objects that are no numbers and have no parts."""
    return type(expected).__eq__ is object.__eq__ or callable(expected) or bool(got == expected)


def _apart(got: Any, expected: Any) -> str:
    """How many numbers are not close, and the greatest difference; empty where all are.

    torch.testing.assert_close says the same, but its first call takes seconds: it imports torch.distributed.
    """
    got, expected = (
        torch.as_tensor(np.ascontiguousarray(x) if isinstance(x, np.ndarray) else x) for x in (got, expected)
    )
    if got.layout != expected.layout:
        return f"Its layout is {got.layout}, not {expected.layout}."
    inexact = expected.is_floating_point() or expected.is_complex()
    common = torch.promote_types(got.dtype, expected.dtype)
    got, expected = (x.detach().to("cpu", common) for x in (got, expected))
    close = torch.isclose(got, expected, *((1e-4, 1e-6) if inexact else (0, 0)), equal_nan=True)
    if close.all():
        return ""
    wrong = ~close
    count, total = int(wrong.sum()), wrong.numel()
    wide = torch.promote_types(common, torch.int64)  # differences of bytes and truths need a sign
    apart = torch.where(wrong, (got.to(wide) - expected.to(wide)).abs(), 0)
    place = np.unravel_index(int(apart.argmax()), apart.shape)
    greatest = f"The greatest difference: {apart[place].item():.6g} at index {tuple(int(i) for i in place)}"
    return f"{count} of {total} numbers differ ({count / total:.1%})\n{greatest}"


def kind(value: Any) -> str:
    """What a value is, in a student's words."""
    return "a function" if inspect.isroutine(value) else WORDS.get(type(value), type(value).__name__)


def show(value: Any) -> str:
    """A value in a line or two: small arrays in full, large ones and networks described."""
    try:
        text = _shown(value)
    except Exception:  # an array without order, a class of the student's that breaks when it is looked at
        text = f"{kind(value)} that cannot be shown"
    return text if len(text) <= 300 else f"{text[:300]}..."


def _shown(value: Any) -> str:
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return _array(value.detach().to_dense() if isinstance(value, torch.Tensor) else value)
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name!r}: {show(item)}' for name, item in value.items())}}}"
    if isinstance(value, (list, tuple)):
        items = ", ".join(map(show, value))
        return f"[{items}]" if isinstance(value, list) else f"({items})"
    if isinstance(value, (float, np.floating)):
        return f"{value:.6g}"
    if isinstance(value, nn.Module) and "\n" in repr(value):
        return f"{type(value).__name__} with {sum(p.numel() for p in value.parameters()):,} parameters"
    if isinstance(value, torch.optim.Optimizer):
        return f"{type(value).__name__} with lr {value.param_groups[0]['lr']}"
    return re.sub(" at 0x[0-9a-fA-F]+", "", repr(value))


def _array(x: torch.Tensor | np.ndarray) -> str:
    if np.prod(x.shape) <= FEW:
        return " ".join(repr(x).split())
    low, high, total = x.min().item(), x.max().item(), x.sum().item()
    word = "tensor" if isinstance(x, torch.Tensor) else "array"
    return f"{word} of shape {tuple(x.shape)}, {x.dtype}, from {low:.4g} to {high:.4g}, sum {total:.4g}"


def _same_kind(got: Any, expected: Any) -> bool:
    family = next((family for family in KINDS if isinstance(expected, family)), type(expected))
    return isinstance(got, family) and isinstance(got, bool) == isinstance(expected, bool)


def _parts(value: Any) -> dict[str, Any] | None:
    """What a container, a dataclass, a module or an optimizer is made of, by name; None for all else."""
    if isinstance(value, nn.Module):
        modes = {f"{name}.training".lstrip("."): m.training for name, m in value.named_modules()}
        learns = {f"{name}.requires_grad": p.requires_grad for name, p in value.named_parameters()}
        return modes | learns | dict(value.named_parameters()) | dict(value.named_buffers())
    if isinstance(value, torch.optim.Optimizer):
        return value.state_dict()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (list, tuple)):
        return {f"[{i}]": item for i, item in enumerate(value)}
    return vars(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else None


def _part_by_part(got: dict, expected: dict, where: str) -> Difference | None:
    missing, extra = ([str(n) for n in a if n not in b] for a, b in ((expected, got), (got, expected)))
    if missing or extra:
        if all(str(n).startswith("[") for n in (*got, *expected)):  # items of a list have no names: say which
            missing, extra = (
                [f"{n} = {show(of[n])}" for n in of if str(n) in some]
                for some, of in ((missing, expected), (extra, got))
            )
        return Difference("names", where, ", ".join(missing) or "no more", ", ".join(extra) or "none of it")
    found = []
    for name, right in expected.items():
        dot = "." if where and not str(name).startswith("[") else ""
        if one := difference(got[name], right, f"{where}{dot}{name}"):
            found.append(one)
    if len(found) < 2 or "more like this" in found[0].note:
        return found[0] if found else None
    return dataclasses.replace(found[0], note=f"{found[0].note} And {len(found) - 1} more like this.".strip())
