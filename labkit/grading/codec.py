"""Values as JSON, both ways, without pickle: what goes into the jail and what comes back as evidence.

Numbers, texts, containers, NumPy arrays, tensors, modules, optimizers and functions go in. What comes back
is data and nothing else: in the trusted process no class, attribute or code of the student's is ever built
or run. A module that is one of our own inputs is updated in place; any other becomes a `Skeleton`, which has
its parameters, names and flags, and whose call is a call into the jail.

This file runs on both sides, so it imports nothing of labkit.
"""

from __future__ import annotations

import base64
import builtins
import importlib
import inspect
import marshal
import math
import textwrap
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

DEPTH, NODES = 32, 20_000
LARGEST = 5 << 20  # bytes of all arrays that come back, which must fit into one message
ARRAYS = set("bool uint8 int8 int16 int32 int64 float16 float32 float64 complex64 complex128".split())
KINDS = {"parameters": nn.Parameter, "buffers": torch.Tensor, "modules": nn.Module}  # of what a module has
OWN = set(vars(nn.Module()))  # what every module has, beside the attributes of its own class


class BadValue(ValueError):
    """A value that cannot be carried, or evidence that is not well-formed; the message says which."""


class Foreign:
    """In place of an object that is neither data nor callable; equal to nothing, itself included."""

    def __init__(self, name: str):
        self.name = name

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None

    def __repr__(self) -> str:
        return f"an object of class {self.name}"


class Skeleton(nn.Module):
    """A module of the student's: parameters, buffers, names and flags are here, its code is in the jail."""

    def __init__(self, name: str, call: Callable):
        super().__init__()
        self.class_name = name
        self.__dict__["call"] = call

    def forward(self, *inputs: Any) -> Any:
        return self.__dict__["call"](*inputs, parameters=dict(self.named_parameters()))


class Graph(torch.autograd.Function):
    """An output of the jail; going backward asks there for the gradients of `leaves`, which are ours."""

    @staticmethod
    def forward(ctx, value: torch.Tensor, slopes: Callable, *leaves: torch.Tensor):
        ctx.slopes, ctx.likes = slopes, [(leaf.shape, leaf.dtype) for leaf in leaves]
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, G: torch.Tensor) -> tuple:
        found = ctx.slopes(G.clone(memory_format=torch.contiguous_format))  # a sum's is one number, expanded
        shapes = [getattr(grad, "shape", None) for grad in found] if isinstance(found, tuple) else None
        if shapes != [shape for shape, _ in ctx.likes]:
            raise BadValue("gradients that are not those of the challenge's inputs")
        return None, None, *(grad.to(dtype) for grad, (_, dtype) in zip(found, ctx.likes, strict=True))


class Encoder:
    """Values to nodes. Objects with a number keep it; `offer` gives callables a handle. Of what is offered,
    gradients are for those objects that take any, and for the `parameters` of the module that was called."""

    def __init__(
        self,
        objects: dict[int, Any] | None = None,
        offer: Callable[[Any], int] | None = None,
        parameters: dict[str, nn.Parameter] | None = None,
    ):
        self.objects = dict(objects or {})  # number -> object; also keeps them alive, so that id() stays true
        known = {**self.objects, **(parameters or {})}
        self.leaves = {key: t for key, t in known.items() if _takes_gradients(t)}
        self.numbers = {id(value): number for number, value in self.objects.items()}
        self.written: set[int] = set()
        self.offer = offer
        self.size = 0

    def node(self, value: Any, depth: int = 0) -> dict:
        if depth > DEPTH:
            raise BadValue(f"a value nested more than {DEPTH} deep")
        if value is None or isinstance(value, (bool, str)):
            return {"t": "plain", "v": str.__str__(value) if isinstance(value, str) else value}
        if isinstance(value, np.generic):
            return {"t": "scalar", **_raw(np.asarray(value))}
        if isinstance(value, int):
            if int.bit_length(value) > 4096:
                raise BadValue("a whole number of more than 4096 bits")
            return {"t": "int", "v": int.__format__(value, "x")}
        if isinstance(value, float):
            return {"t": "float", "v": float.hex(value)}
        if type(value) is complex:
            return {"t": "complex", "v": [value.real.hex(), value.imag.hex()]}
        if isinstance(value, (list, tuple)):
            items = [self.node(item, depth + 1) for item in value]
            return {"t": "list" if isinstance(value, list) else "tuple", "v": items}
        if isinstance(value, Mapping):
            pairs = [[self.node(k, depth + 1), self.node(v, depth + 1)] for k, v in value.items()]
            return {"t": "dict", "v": pairs}
        if callable(value) and not isinstance(value, nn.Module) and id(value) in self.numbers:
            return {"t": "ref", "id": self.numbers[id(value)]}
        own = () if self.offer else (types.FunctionType, types.BuiltinFunctionType)
        if isinstance(value, (np.ndarray, torch.Tensor, nn.Module, torch.optim.Optimizer, *own)):
            return self._numbered(value, depth)
        if self.offer and callable(value):
            return {"t": "call", "class": type(value).__name__[:80], "handle": self.offer(value)}
        if self.offer:
            return {"t": "foreign", "class": type(value).__name__[:80]}
        raise BadValue(f"a {type(value).__name__} cannot be carried into the jail")

    def _numbered(self, value: Any, depth: int) -> dict:
        number = self.numbers.setdefault(id(value), len(self.numbers) + 1)
        self.objects[number] = value
        if number in self.written:
            return {"t": "ref", "id": number}
        self.written.add(number)
        if isinstance(value, np.ndarray):
            self._afford(value.size * value.itemsize)
            return {"t": "array", "id": number, **_raw(value)}
        if isinstance(value, torch.Tensor):
            return {"t": "tensor", "id": number, **self._tensor(value, depth)}
        if isinstance(value, nn.Module):
            return {"t": "module", "id": number, **self._module(value, depth)}
        if inspect.isroutine(value):
            return {"t": "function", "id": number, **self._function(value, depth + 1)}
        state = [[self.node(p, depth + 1), self.node(s, depth + 1)] for p, s in value.state.items()]
        groups = [self.node(group, depth + 1) for group in value.param_groups]
        parts = {"class": _address(type(value)), "groups": groups, "state": state}
        return {"t": "optimizer", "id": number, **parts}

    def _afford(self, size: int) -> None:
        """Count the bytes that come back from the jail; a lazy view may have any number of them."""
        self.size += size if self.offer else 0
        if self.size > LARGEST:
            raise BadValue(f"values of more than {LARGEST >> 20} MB, larger than any that is asked for")

    def _function(self, value: Callable, depth: int) -> dict:
        """One of our own functions: a library's by its name, another by its code and what that refers to."""
        for library in (torch, F, np, math):
            if getattr(library, value.__name__, None) is value:
                return {"name": f"{library.__name__}:{value.__name__}"}
        if not inspect.isfunction(value):
            raise BadValue(f"the function {value.__name__}, which has no code of Python")
        used = {name: value.__globals__[name] for name in _names(value.__code__) if name in value.__globals__}
        return {
            "code": base64.b64encode(marshal.dumps(value.__code__)).decode(),
            "imports": {name: one.__name__ for name, one in used.items() if inspect.ismodule(one)},
            "globals": {n: self.node(one, depth) for n, one in used.items() if not inspect.ismodule(one)},
            "cells": [self.node(cell.cell_contents, depth) for cell in value.__closure__ or ()],
            "defaults": self.node((value.__defaults__ or (), value.__kwdefaults__ or {}), depth),
        }

    def _tensor(self, value: torch.Tensor, depth: int) -> dict:
        dtype = str(value.dtype).removeprefix("torch.")
        if odd := _odd(value, dtype):
            raise BadValue(odd)
        plain = torch.Tensor.detach(value).as_subclass(torch.Tensor)
        self._afford(plain.numel() * plain.element_size())
        plain = plain.cpu().contiguous()
        if dtype == "bfloat16":
            plain = plain.view(torch.int16)
        grad = value.grad if value.is_leaf else None
        return {
            **_raw(plain.numpy()),
            "torch": dtype,
            "learns": bool(value.requires_grad),
            "leaf": bool(value.is_leaf),
            "slopes": self._slopes(value) if self.offer else None,
            "parameter": isinstance(value, nn.Parameter),
            "grad": None if grad is None else _raw(grad.detach().float().cpu().contiguous().numpy()),
        }

    def _slopes(self, value: torch.Tensor) -> dict | None:
        """How to ask for gradients through `value`: outside the jail is no graph of a student's code."""
        if value.is_leaf or not value.requires_grad or not self.leaves:
            return None
        leaves = list(self.leaves.values())

        def backward(G: torch.Tensor) -> tuple:
            found = torch.autograd.grad(value, leaves, G, retain_graph=True, allow_unused=True)
            pairs = zip(found, leaves, strict=True)
            return tuple(torch.zeros_like(leaf) if grad is None else grad for grad, leaf in pairs)

        return {"handle": self.offer(backward), "to": list(self.leaves)}

    def _module(self, value: nn.Module, depth: int) -> dict:
        parts = {
            key: {name: self.node(part, depth + 1) for name, part in vars(value)[f"_{key}"].items()}
            for key in ("parameters", "buffers", "modules")
        }
        node = {"class": type(value).__name__[:80], "training": bool(value.training), **parts}
        if self.offer:
            for name in (name for part in parts.values() for name in part if not name or "." in name):
                raise BadValue(
                    f"a {node['class']} that has a part named {name[:80]!r}: a part's own name is not empty "
                    "and has no dot; one that lies deeper is an attribute of the module it lies in"
                )
            return {**node, "handle": self.offer(value)}
        extra = {key: self.node(item, depth + 1) for key, item in vars(value).items() if key not in OWN}
        return {**node, "made": _address(type(value)), "extra": extra}


class Decoder:
    """Nodes to values. In the jail (`trusted` False) modules are rebuilt; outside they never are.

    `objects` (number -> object) are updated in place when their number comes back; `call(handle)` makes a
    function that calls into the jail; gradients go to objects and to the `parameters` of the module that was
    called. BadValue for whatever is not well-formed.
    """

    def __init__(
        self,
        objects: dict[int, Any],
        trusted: bool,
        call: Callable[[int], Callable] | None = None,
        parameters: dict[str, nn.Parameter] | None = None,
    ):
        self.objects, self.trusted, self.call, self.left = objects, trusted, call, NODES
        self.parameters = parameters or {}

    def value(self, node: Any) -> Any:
        try:
            return self._value(node, 0)
        except BadValue:
            raise
        except Exception as error:  # whatever a student made of it
            raise BadValue(f"evidence that is not well-formed ({type(error).__name__})") from error

    def _value(self, node: dict, depth: int) -> Any:
        self.left -= 1
        if depth > DEPTH or self.left < 0:
            raise BadValue("evidence that is too deep or has too many parts")
        kind, into = node["t"], depth + 1
        if kind == "plain" and (node["v"] is None or type(node["v"]) in (bool, str)):
            return node["v"]
        if kind == "int":
            return int(node["v"][:1100], 16)
        if kind == "float":
            return float.fromhex(node["v"])
        if kind == "complex":
            return complex(*map(float.fromhex, node["v"]))
        if kind == "scalar":
            return _array(node)[()]
        if kind in ("list", "tuple"):
            return {"list": list, "tuple": tuple}[kind](self._value(item, into) for item in node["v"])
        if kind == "dict":
            return {self._value(k, into): self._value(v, into) for k, v in node["v"]}
        if kind == "ref":
            return self.objects[node["id"]]
        if kind == "array":
            return self._keep(node, self._array_value(node))
        if kind == "tensor":
            return self._keep(node, self._tensor(node))
        if kind == "module":
            return self._module(node, into)
        if kind == "optimizer":
            return self._optimizer(node, into)
        if kind == "function" and not self.trusted:
            return self._keep(node, self._function(node, into))
        if kind == "call" and self.call:
            return self.call(int(node["handle"]))
        if kind == "foreign":
            return Foreign(str(node["class"])[:80])
        raise BadValue("evidence of an unknown kind")

    def _function(self, node: dict, depth: int) -> Callable:
        if "name" in node:
            return _imported(node["name"])
        space = {"__builtins__": builtins, "__name__": "challenge"}
        space |= {name: importlib.import_module(module) for name, module in node["imports"].items()}
        space |= {name: self._value(part, depth) for name, part in node["globals"].items()}
        cells = tuple(types.CellType(self._value(part, depth)) for part in node["cells"])
        defaults, named = self._value(node["defaults"], depth)
        made = types.FunctionType(marshal.loads(base64.b64decode(node["code"])), space, None, defaults, cells)
        made.__kwdefaults__ = named
        return made

    def _keep(self, node: dict, value: Any) -> Any:
        self.objects[node["id"]] = value
        return value

    def _array_value(self, node: dict) -> np.ndarray:
        new, old = _array(node), self.objects.get(node["id"])
        if isinstance(old, np.ndarray) and (old.shape, old.dtype) == (new.shape, new.dtype):
            old[...] = new
            return old
        return new

    def _tensor(self, node: dict) -> torch.Tensor:
        dtype = getattr(torch, node["torch"])
        new = torch.from_numpy(_array(node))
        new = new.view(torch.bfloat16) if dtype is torch.bfloat16 else new
        if new.dtype is not dtype:
            raise BadValue("a tensor whose type and bytes disagree")
        old = self.objects.get(node["id"])
        if isinstance(old, torch.Tensor) and (old.shape, old.dtype) == (new.shape, new.dtype):
            old.data.copy_(new)
            new = old
        elif node["parameter"]:
            new = nn.Parameter(new, requires_grad=False)
        if new is not old and self.trusted and node["slopes"]:
            return self._graph(new, node["slopes"])
        if new.is_leaf:
            new.requires_grad_(bool(node["learns"]))
            new.grad = None if node["grad"] is None else torch.from_numpy(_array(node["grad"])).to(new.dtype)
        return new

    def _graph(self, value: torch.Tensor, slopes: dict) -> torch.Tensor:
        """A tensor whose gradients to our own inputs and a module's parameters are asked for in the jail."""
        known = {**self.objects, **self.parameters}
        leaves = [known[key] for key in slopes["to"]]
        if not all(map(_takes_gradients, leaves)):
            raise BadValue("gradients for what takes none")
        return Graph.apply(value, self.call(int(slopes["handle"])), *leaves)

    def _module(self, node: dict, depth: int) -> nn.Module:
        old = self.objects.get(node["id"])
        parts = {key: node[key] for key in ("parameters", "buffers", "modules")}
        same = isinstance(old, nn.Module) and type(old).__name__ == node["class"]
        if same and all(list(vars(old)[f"_{k}"]) == list(v) for k, v in parts.items()):
            module = old
        elif self.trusted:
            module = Skeleton(str(node["class"]), self.call(int(node["handle"])))
        else:
            module = _build(node["made"])
            vars(module).update({key: self._value(item, depth) for key, item in node["extra"].items()})
        self.objects[node["id"]] = module
        for key, kind in KINDS.items():
            for name, part in parts[key].items():
                value = self._value(part, depth)
                if not (value is None or isinstance(value, kind)):
                    raise BadValue(f"a module whose {name} is none of its {key}")
                # register_module and its like refuse names that torch has taken, as `half`; setattr does not
                vars(module)[f"_{key}"][name] = value
        module.training = bool(node["training"])
        return module

    def _optimizer(self, node: dict, depth: int) -> torch.optim.Optimizer:
        groups = [self._value(group, depth) for group in node["groups"]]
        optimizer = self.objects.get(node["id"])
        if not isinstance(optimizer, torch.optim.Optimizer):
            if self.trusted:
                return Foreign("Optimizer")
            optimizer = self._keep(node, _imported(node["class"]["name"])(groups))
        if len(groups) != len(optimizer.param_groups):
            raise BadValue("an optimizer with other groups than it was given")
        for ours, theirs in zip(optimizer.param_groups, groups, strict=True):
            ours.update({key: item for key, item in theirs.items() if key in ours and key != "params"})
        optimizer.state.clear()
        optimizer.state.update({self._value(p, depth): self._value(s, depth) for p, s in node["state"]})
        return optimizer


def _takes_gradients(value: Any) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.is_leaf
        and value.requires_grad
        and torch.is_floating_point(value)
    )


def _odd(value: torch.Tensor, dtype: str) -> str:
    """What kind of tensor it is whose values cannot be read off; empty for an ordinary one."""
    if value.is_nested:
        return "a nested tensor; return an ordinary one"
    if value.is_quantized:
        return "a quantized tensor; return an ordinary one: `.dequantize()`"
    if value.layout is not torch.strided:
        return "a sparse tensor; return an ordinary one: `.to_dense()`"
    if value.device.type == "meta":
        return "a tensor on the device meta, which has a shape and no values"
    return "" if dtype in {*ARRAYS, "bfloat16"} else f"a tensor of dtype {dtype}; return it as float32"


def _raw(array: np.ndarray) -> dict:
    if array.dtype.name not in ARRAYS:
        raise BadValue(f"an array of dtype {array.dtype.name}")
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": data}


def _array(node: dict) -> np.ndarray:
    shape = tuple(node["shape"])
    if node["dtype"] not in ARRAYS or not all(type(n) is int and 0 <= n < 2**40 for n in shape):
        raise BadValue("an array whose type or shape is not one")
    data, dtype = base64.b64decode(node["data"], validate=True), np.dtype(node["dtype"])
    if len(shape) > 16 or math.prod(shape) * dtype.itemsize != len(data):
        raise BadValue("an array whose shape and bytes disagree")
    return np.frombuffer(data, dtype).reshape(shape).copy()


def _names(code: types.CodeType) -> set[str]:
    """All names that some code, and the functions within it, may look up among its globals."""
    inner = (part for part in code.co_consts if isinstance(part, types.CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _address(kind: type) -> dict:
    """How the jail gets a class: by import when it is torch's or timm's, else from its source."""
    if kind.__module__.split(".")[0] in ("torch", "timm"):
        return {"name": f"{kind.__module__}:{kind.__qualname__}"}
    return {"name": kind.__name__, "source": textwrap.dedent(inspect.getsource(kind))}


def _build(address: dict) -> nn.Module:
    if "source" in address:
        space = {"torch": torch, "nn": nn, "F": F, "np": np, "__name__": "challenge"}
        exec("from __future__ import annotations\n" + address["source"], space)
        kind = space[address["name"]]
    else:
        kind = _imported(address["name"])
    module = kind.__new__(kind)
    nn.Module.__init__(module)
    return module


def _imported(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
