"""Where labkit finds its files: the checkout, the bundled data, the cache."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
KEPT = ".labkit"  # the folder of a workbook that says what is solved: it marks a workbook


def checkout_root() -> Path:
    """The folder that holds notebooks/, data/ and the lock; FileNotFoundError in an installed wheel."""
    root = PACKAGE.parent
    if not (root / "requirements.lock").is_file():
        raise FileNotFoundError(
            f"labkit runs from {PACKAGE}, which is no checkout of the course: "
            "clone the course's repository and start `python3 lab.py` there."
        )
    return root


def workbook(named: Path | None = None) -> Path:
    """The workbook that is named; else the one that we stand in, as a terminal of JupyterLab does; else
    workbook/ in the checkout."""
    here = Path.cwd()
    inside = next((folder for folder in (here, *here.parents) if (folder / KEPT).is_dir()), None)
    return named or inside or checkout_root() / "workbook"


def data_dir() -> Path:
    """The bundled data: the copy that a wheel carries inside the package, otherwise data/ of the checkout."""
    carried = PACKAGE / "bundled"
    return carried if carried.is_dir() else PACKAGE.parent / "data"


def cache_dir() -> Path:
    """Where made volumes are kept: LABKIT_CACHE in the environment, or the platform's cache folder."""
    if chosen := os.environ.get("LABKIT_CACHE"):
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("labkit"))


def lab_named(wanted: str, labs: list[str]) -> str:
    """The lab of a list ("01_transfer", ..) meant by a number ("02", "2"), a name or a file of that name.

    ValueError lists the labs there are.
    """
    stem = Path(wanted).stem
    for lab in labs:
        if lab == stem or lab.split("_")[0] == stem.zfill(2):
            return lab
    raise ValueError(f"There is no lab {wanted!r}; there are {', '.join(labs) or 'none yet'}.")
