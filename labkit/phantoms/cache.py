"""Compressed arrays under the user's cache folder: made once, read back bit for bit."""

from __future__ import annotations

import hashlib
import warnings
import zipfile
import zlib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import ModuleType

import numpy as np

from labkit.files import write_atomically
from labkit.paths import cache_dir

ROOM_MB = 500  # a course's patients take about half of it
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

    A broken file is made again. Two threads or processes may ask for the same name. Where nothing can be
    written the arrays are made each time, and a warning says so once, with the cure.
    """
    path = cache_dir() / f"{name}.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except BROKEN:
        arrays = make()
    try:
        write_atomically(path, lambda temporary: _save(temporary, arrays))
    except OSError as error:  # a full or read-only disk costs time, not the lesson
        warnings.warn(
            f"Patients cannot be kept in {path.parent} ({error.strerror or error}), so each is made again "
            f"whenever it is needed. Make room there, or set LABKIT_CACHE to a folder with {ROOM_MB} MB.",
            stacklevel=2,  # the same place for all, so it is shown once
        )
    return arrays


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with path.open("wb") as file:  # given a name, numpy would append .npz
        np.savez_compressed(file, **arrays)
