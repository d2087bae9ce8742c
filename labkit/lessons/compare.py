"""How two results differ, said to a student; and values, shown small."""

from __future__ import annotations

import dataclasses
import inspect
import math
import numbers
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

FEW = 12  # arrays up to this many elements are printed, larger ones described
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


@dataclasses.dataclass(frozen=True)
class Difference:
    """The first thing in which a result is not as expected: its type, shape, dtype, names or values."""

    aspect: str
    sentence: str


def difference(
    got: Any, expected: Any, rtol: float = 1e-4, atol: float = 1e-6, where: str = ""
) -> Difference | None:
    """How `got` differs from `expected`, or None when it does not.

    Single numbers compare by value, whether Python's, NumPy's or a tensor with no dimensions; arrays and
    tensors by type, shape, dtype and values; modules by their parameters, buffers, requires_grad and training
    mode; containers element by element. Objects that define no equality are equal when their types are.
    """
    at = f"{where}: " if where else ""
    if _is_number(expected):
        return _number(got, expected, rtol, atol, at)
    if isinstance(expected, (torch.Tensor, np.ndarray)):
        return _array(got, expected, rtol, atol, at)
    if isinstance(expected, nn.Module):
        if not isinstance(got, nn.Module):
            return Difference("type", f"{at}a torch module is expected, not {kind(got)}.")
        return difference(_state(got), _state(expected), rtol, atol, where)
    if isinstance(expected, Mapping):
        return _mapping(got, expected, rtol, atol, where)
    if isinstance(expected, (list, tuple)):
        return _sequence(got, expected, rtol, atol, where)
    if type(got) is not type(expected):
        return Difference("type", f"{at}{kind(expected)} is expected, not {kind(got)}.")
    if dataclasses.is_dataclass(expected):
        return difference(_fields(got), _fields(expected), rtol, atol, where)
    if type(expected).__eq__ is not object.__eq__ and not callable(expected) and not bool(got == expected):
        return Difference("values", f"{at}expected {show(expected)}, got {show(got)}.")
    return None


def kind(value: Any) -> str:
    """What a value is, in a student's words."""
    if value is None:
        return "None"
    names = {
        bool: "True or False",
        int: "a whole number",
        float: "a number",
        str: "a text",
        list: "a list",
        tuple: "a tuple",
        dict: "a dictionary",
        set: "a set",
        torch.Tensor: "a tensor",
        np.ndarray: "a NumPy array",
    }
    if inspect.isroutine(value):
        return "a function"
    return names.get(
        type(value), f"{'an' if type(value).__name__[0] in 'AEIOU' else 'a'} {type(value).__name__}"
    )


def show(value: Any, limit: int = 160) -> str:
    """A value in a line or two: small arrays in full, large ones and networks described."""
    try:
        return _shown(value, limit)
    except Exception:  # a sparse tensor, a class of the student's that breaks when it is looked at
        return f"{kind(value)} that cannot be shown"


def _shown(value: Any, limit: int) -> str:
    if isinstance(value, torch.Tensor):
        return _describe(value.detach(), "tensor", str(value.dtype).removeprefix("torch."))
    if isinstance(value, np.ndarray):
        return _describe(value, "array", str(value.dtype))
    if isinstance(value, nn.Module):
        text = repr(value)
        size = sum(p.numel() for p in value.parameters())
        return (
            text
            if "\n" not in text and len(text) <= limit
            else f"{type(value).__name__} with {size:,} parameters"
        )
    if isinstance(value, Mapping) and type(value) is dict:
        items = [f"{key!r}: {show(item, 60)}" for key, item in list(value.items())[:6]]
        return "{" + ", ".join(items + ["..."] * (len(value) > 6)) + "}"
    if type(value) in (list, tuple):
        left, right = "[]" if type(value) is list else "()"
        items = [show(item, 60) for item in value[:6]] + ["..."] * (len(value) > 6)
        return left + ", ".join(items) + ("," if type(value) is tuple and len(value) == 1 else "") + right
    if inspect.isroutine(value):
        return f"function {getattr(value, '__name__', '')}".strip()
    if isinstance(value, float):
        return f"{value:.6g}"
    text = ADDRESS.sub("", repr(value))
    return text if len(text) <= limit else f"{text[:limit]}..."


def _is_number(value: Any) -> bool:
    return isinstance(value, (numbers.Number, np.bool_)) or (
        isinstance(value, (torch.Tensor, np.ndarray)) and value.ndim == 0
    )


def _number(got: Any, expected: Any, rtol: float, atol: float, at: str) -> Difference | None:
    if not _is_number(got):
        if isinstance(got, (torch.Tensor, np.ndarray)):
            return Difference(
                "shape", f"{at}one number is expected, not {kind(got)} of shape {tuple(got.shape)}."
            )
        return Difference("type", f"{at}one number is expected, not {kind(got)}.")
    a, b = _python(got), _python(expected)
    if isinstance(a, bool) != isinstance(b, bool):
        return Difference("type", f"{at}{kind(b)} is expected, got {show(a)}.")
    same = a == b or (a != a and b != b) or (_finite(a) and _finite(b) and abs(a - b) <= atol + rtol * abs(b))
    if same and not (isinstance(b, int) and a != b):  # a count is exact
        return None
    return Difference("values", f"{at}expected {show(b)}, got {show(a)}.")


def _python(value: Any) -> Any:
    return value.item() if isinstance(value, (torch.Tensor, np.ndarray, np.generic)) else value


def _finite(value: Any) -> bool:
    return math.isfinite(abs(value))


def _array(
    got: Any, expected: torch.Tensor | np.ndarray, rtol: float, atol: float, at: str
) -> Difference | None:
    if not isinstance(got, torch.Tensor if isinstance(expected, torch.Tensor) else np.ndarray):
        return Difference("type", f"{at}{kind(expected)} is expected, not {kind(got)}.")
    if got.shape != expected.shape:
        return Difference("shape", f"{at}expected shape {tuple(expected.shape)}, got {tuple(got.shape)}.")
    if got.dtype != expected.dtype:
        return Difference("dtype", f"{at}expected {expected.dtype}, got {got.dtype}.")
    a, b = _numpy(got), _numpy(expected)
    with np.errstate(invalid="ignore", over="ignore"):
        wrong = ~np.isclose(a, b, rtol, atol, equal_nan=True) if b.dtype.kind in "fc" else a != b
    if not wrong.any():
        return None
    gap = np.where(wrong, np.nan_to_num(np.abs(a.astype(complex) - b.astype(complex)), nan=np.inf), -1)
    worst = np.unravel_index(int(gap.argmax()), gap.shape)
    index = ", ".join(str(int(i)) for i in worst)
    return Difference(
        "values",
        f"{at}{int(wrong.sum())} of {wrong.size} values differ, most at [{index}]: "
        f"expected {show(b[worst].item())}, got {show(a[worst].item())}.",
    )


def _numpy(value: torch.Tensor | np.ndarray) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()


def _mapping(got: Any, expected: Mapping, rtol: float, atol: float, where: str) -> Difference | None:
    at = f"{where}: " if where else ""
    if not isinstance(got, Mapping):
        return Difference("type", f"{at}a dictionary is expected, not {kind(got)}.")
    missing = [key for key in expected if key not in got]
    extra = [key for key in got if key not in expected]
    if missing or extra:
        parts = [
            f"{word} {', '.join(map(repr, keys[:3]))}{' ...' * (len(keys) > 3)}"
            for word, keys in (("missing", missing), ("unexpected", extra))
            if keys
        ]
        return Difference("names", f"{at}{'; '.join(parts)}.")
    found = [
        d for key in expected if (d := difference(got[key], expected[key], rtol, atol, _join(where, key)))
    ]
    return _first(found)


def _sequence(got: Any, expected: list | tuple, rtol: float, atol: float, where: str) -> Difference | None:
    at = f"{where}: " if where else ""
    if not isinstance(got, (list, tuple)):
        return Difference("type", f"{at}{kind(expected)} is expected, not {kind(got)}.")
    if len(got) != len(expected):
        return Difference("shape", f"{at}{len(expected)} elements are expected, got {len(got)}.")
    return _first(
        [
            d
            for i, (a, b) in enumerate(zip(got, expected, strict=True))
            if (d := difference(a, b, rtol, atol, f"{where}[{i}]"))
        ]
    )


def _first(found: list[Difference]) -> Difference | None:
    if len(found) < 2:
        return found[0] if found else None
    return Difference(
        found[0].aspect, f"{found[0].sentence.rstrip('.')} (and {len(found) - 1} more like this)."
    )


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)


def _state(module: nn.Module) -> dict[str, Any]:
    state: dict[str, Any] = {"training mode": module.training}
    state |= {f"{name}.requires_grad": p.requires_grad for name, p in module.named_parameters()}
    return state | dict(module.state_dict())


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _describe(value: torch.Tensor | np.ndarray, word: str, dtype: str) -> str:
    shape = tuple(value.shape)
    if math.prod(shape) <= FEW:
        return f"{word}({np.array2string(_numpy(value), precision=4, separator=', ')})".replace("\n", " ")
    if dtype == "bool":
        return f"{word} of shape {shape}, bool, {int(value.sum())} True"
    array = _numpy(value)
    if not np.isfinite(array).all():
        return f"{word} of shape {shape}, {dtype}, with {int((~np.isfinite(array)).sum())} values not finite"
    return f"{word} of shape {shape}, {dtype}, from {array.min():.4g} to {array.max():.4g}"
