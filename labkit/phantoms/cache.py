"""Compressed arrays under the user's cache folder: made once, read back bit for bit."""

from __future__ import annotations

import contextlib
import hashlib
import zipfile
import zlib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import ModuleType

import numpy as np

from labkit.files import write_atomically
from labkit.paths import cache_dir

BROKEN = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


def fingerprint(*modules: ModuleType, packages: tuple[str, ...] = ("numpy", "scipy")) -> str:
    """Twelve hexadecimal digits that change with the modules' source and the packages' versions."""
    digest = hashlib.sha256()
    for module in modules:
        digest.update(Path(module.__file__).read_bytes())
    for package in packages:
        digest.update(f"{package} {metadata.version(package)}".encode())
    return digest.hexdigest()[:12]


def cached(name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays of make(), from the file `name`.npz in the cache if it is there and whole.

    A broken file is made again. Two threads or processes may ask for the same name. Where
    nothing can be written the arrays are simply made each time.
    """
    path = cache_dir() / f"{name}.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except BROKEN:
        arrays = make()
    with contextlib.suppress(OSError):  # a full or read-only disk costs time, not the lesson
        write_atomically(path, lambda temporary: _save(temporary, arrays))
    return arrays


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with path.open("wb") as file:  # given a name, numpy would append .npz
        np.savez_compressed(file, **arrays)
