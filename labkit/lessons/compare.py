"""How a result differs from what is expected, in a student's words; and values, shown small."""

from __future__ import annotations

import dataclasses
import inspect
import numbers
import re
import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

FEW = 12  # arrays of up to this many elements are printed, larger ones described
KINDS = (numbers.Number, torch.Tensor, np.ndarray, nn.Module, torch.optim.Optimizer, Mapping, (list, tuple))
WORDS = {bool: "True or False", int: "a whole number", float: "a plain number", str: "a text", list: "a list"}
WORDS |= {tuple: "a tuple", dict: "a dictionary", torch.Tensor: "a tensor", np.ndarray: "a NumPy array"}


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
        return f"{at}expected {self.expected}, got {self.got}." + (f" {self.note}" if self.note else "")


def difference(
    got: Any, expected: Any, rtol: float = 1e-4, atol: float = 1e-6, where: str = ""
) -> Difference | None:
    """How `got` differs from `expected`, or None when it does not.

    A plain number wants a plain number (Python's or a NumPy scalar), a tensor a tensor. Whole numbers are exact.
    Modules are compared by their parameters, buffers, requires_grad and training mode, optimizers by their
    state, containers and dataclasses part by part; objects that define no equality by their type.
    """
    got, expected = _plain(got), _plain(expected)
    if not _same_kind(got, expected):
        single = isinstance(got, (torch.Tensor, np.ndarray)) and got.ndim == 0
        cure = "`.item()` makes a plain number of it." if single else ""
        return Difference("type", where, kind(expected), kind(got), cure)
    if (parts := _parts(expected)) is not None:
        return _part_by_part(_parts(got), parts, rtol, atol, where)
    if not isinstance(expected, (numbers.Number, torch.Tensor, np.ndarray)):
        same = type(expected).__eq__ is object.__eq__ or callable(expected) or bool(got == expected)
        return None if same else Difference("values", where, show(expected), show(got))
    if not isinstance(expected, numbers.Number):
        if got.shape != expected.shape:
            return Difference("shape", where, _shaped(expected), _shaped(got))
        if got.dtype != expected.dtype:
            return Difference("dtype", where, str(expected.dtype), str(got.dtype))
    if not _is_inexact(expected):
        rtol = atol = 0
    try:
        torch.testing.assert_close(got, expected, rtol=rtol, atol=atol, equal_nan=True, check_dtype=False)
    except AssertionError as error:
        few = isinstance(expected, numbers.Number) or np.prod(expected.shape) <= FEW
        count_and_greatest = str(error).split("\n\n")[-1].splitlines()[:2]
        return Difference(
            "values", where, show(expected), show(got), "" if few else "\n".join(count_and_greatest)
        )
    return None


def kind(value: Any) -> str:
    """What a value is, in a student's words."""
    if value is None:
        return "None"
    if inspect.isroutine(value):
        return "a function"
    name = type(value).__name__
    return WORDS.get(type(value), f"{'an' if name[0] in 'AEIOU' else 'a'} {name}")


def show(value: Any) -> str:
    """A value in a line or two: small arrays in full, large ones and networks described."""
    return SMALL.repr(value)


class _Small(reprlib.Repr):
    def repr_float(self, x, level):
        return f"{x:.6g}"

    def repr_instance(self, x, level):
        if isinstance(x, np.generic):
            return self.repr1(x.item(), level)
        if isinstance(x, torch.Tensor):
            x = x.detach().cpu().to_dense()
            return _array((x.float() if x.dtype == torch.bfloat16 else x).numpy(), "tensor", str(x.dtype)[6:])
        if isinstance(x, np.ndarray):
            return _array(x, "array", str(x.dtype))
        if inspect.isroutine(x):
            return f"function {getattr(x, '__name__', '')}".strip()
        if isinstance(x, nn.Module) and "\n" in repr(x):
            return f"{type(x).__name__} with {sum(p.numel() for p in x.parameters()):,} parameters"
        return re.sub(r" at 0x[0-9a-fA-F]+", "", super().repr_instance(x, level))


SMALL = _Small()
SMALL.maxdict = SMALL.maxlist = SMALL.maxtuple = 6
SMALL.maxother = SMALL.maxstring = 160


def _array(value: np.ndarray, word: str, dtype: str) -> str:
    if value.size <= FEW:
        return f"{word}({np.array2string(value, precision=4, separator=', ')})".replace("\n", " ")
    if value.dtype == bool:
        content = f"{np.count_nonzero(value)} True"
    elif not np.isfinite(value).all():
        content = f"with {np.count_nonzero(~np.isfinite(value))} values not finite"
    else:
        content = f"from {value.min():.4g} to {value.max():.4g}"
    return f"{word} of shape {value.shape}, {dtype}, {content}"


def _shaped(value: torch.Tensor | np.ndarray) -> str:
    shape = f"shape {tuple(value.shape)}"
    return f"{show(value)}, {shape}" if np.prod(value.shape) <= FEW else shape


def _plain(value: Any) -> Any:
    """NumPy scalars and arrays of text as Python's own."""
    if isinstance(value, np.generic):
        return value.item()
    return value.tolist() if isinstance(value, np.ndarray) and value.dtype.kind not in "biufc" else value


def _same_kind(got: Any, expected: Any) -> bool:
    for family in KINDS:
        if isinstance(expected, family):
            return isinstance(got, family) and isinstance(got, bool) == isinstance(expected, bool)
    return type(got) is type(expected)


def _is_inexact(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.is_floating_point() or value.is_complex()
    return value.dtype.kind in "fc" if isinstance(value, np.ndarray) else not isinstance(value, int)


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


def _part_by_part(got: dict, expected: dict, rtol: float, atol: float, where: str) -> Difference | None:
    missing = [str(name) for name in expected if name not in got]
    extra = [str(name) for name in got if name not in expected]
    if missing or extra:
        note = f"Missing: {', '.join(missing) or 'none'}; unexpected: {', '.join(extra) or 'none'}."
        return Difference("names", where, f"{len(expected)} parts", str(len(got)), note)
    found = [
        one
        for name in expected
        if (one := difference(got[name], expected[name], rtol, atol, _join(where, str(name))))
    ]
    if len(found) < 2:
        return found[0] if found else None
    more = f"{found[0].note} And {len(found) - 1} more like this.".strip()
    return dataclasses.replace(found[0], note=more)


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where and not name.startswith("[") else where + name
