"""Compressed arrays under the user's cache folder: made once, read back bit for bit."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import ModuleType

import numpy as np

BROKEN = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


def cache_folder() -> Path:
    """The folder of cached arrays: $LABKIT_CACHE, else the platform's cache folder for labkit."""
    import platformdirs

    return Path(os.environ.get("LABKIT_CACHE") or platformdirs.user_cache_dir("labkit"))


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

    A broken file is made again. Two processes may ask for the same name: each writes its own temporary file
    and renames it. Where nothing can be written the arrays are simply made each time.
    """
    path = cache_folder() / f"{name}.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except BROKEN:
        arrays = make()
    try:
        _write(path, arrays)
    except OSError:
        pass  # a full or read-only disk costs time, not the lesson
    return arrays


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(file, **arrays)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
