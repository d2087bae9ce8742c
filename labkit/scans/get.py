"""Public scans by one command: the Medical Segmentation Decathlon, from where MONAI has it, by its checksums.

Antonelli et al., 2022, The Medical Segmentation Decathlon, Nature Communications 13:4128, arXiv:2106.05735;
ten tasks under CC BY-SA 4.0. Nothing is downloaded but by `labkit get`.
"""

from __future__ import annotations

import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from tqdm.auto import tqdm

from labkit.paths import cache_dir

LICENCE = "CC BY-SA 4.0, Antonelli et al. 2022, The Medical Segmentation Decathlon"
SECONDS, CHUNK, GB = 30, 1 << 20, 1e9


def tasks() -> dict[str, tuple[str, str]]:
    """Name of a task -> its address and MD5, as MONAI lists them."""
    from monai.apps import DecathlonDataset

    return {name: (url, DecathlonDataset.md5[name]) for name, url in DecathlonDataset.resource.items()}


def task_named(wanted: str, known: dict | None = None) -> str:
    """The task meant by "hippocampus", "04" or "Task04_Hippocampus". ValueError lists them."""
    known = known or tasks()
    word = wanted.lower().removeprefix("task")
    for name in known:
        number, organ = name.lower().removeprefix("task").split("_")
        if word in (number, number.lstrip("0"), organ, f"{number}_{organ}"):
            return name
    short = ", ".join(name.split("_")[1].lower() for name in known)
    raise ValueError(f"There are no public scans {wanted!r}; there are {short}.")


def place(task: str) -> Path:
    """Where a task lies once it was got."""
    return cache_dir() / "scans" / task


def folder_of(data: Path) -> Path:
    """The folder meant by `--data`: a folder of scans, or a task by name. ValueError: neither is there."""
    if data.exists():
        return data
    try:
        task = task_named(data.name if len(data.parts) == 1 else "")
    except ValueError:
        raise ValueError(f"There is no folder {data}; name one, or a task of `labkit get`.") from None
    if not place(task).is_dir():
        name = task.split("_")[1].lower()
        raise ValueError(f"{task} is not on this computer: `labkit get {name}` brings it, or name a folder.")
    return place(task)


def get(task: str, say: Callable[[str], None] = print, known: dict | None = None) -> Path:
    """Download a task, check it and unpack it; returns its folder.

    What was stopped goes on where it was. ValueError: no network, no room, or a file that is not the one that
    its checksum names; a folder that is not whole is never left.
    """
    from monai.apps import check_hash, extractall

    url, md5 = (known or tasks())[task]
    folder = place(task)
    if folder.is_dir():
        say(f"{task} is there already: {folder}")
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    archive = folder.with_name(f"{task}.tar.part")
    size = _size(url)
    have = archive.stat().st_size if archive.exists() else 0
    say(f"{task}: {size / GB:.2f} GB ({have / GB:.2f} here already). {LICENCE}. Into {folder}")
    free = shutil.disk_usage(folder.parent).free
    if free < 2 * size - have:
        raise ValueError(
            f"{task} needs {(2 * size - have) / GB:.1f} GB to be unpacked, but {folder.parent} has "
            f"{free / GB:.1f}; make room, or set LABKIT_CACHE to a larger disk."
        )
    if have < size:
        _download(url, archive, have, size)
    if not check_hash(archive, md5, "md5"):
        archive.unlink()
        raise ValueError(f"{url} is not the file that MONAI's checksum names; it was removed. Try later.")
    with tempfile.TemporaryDirectory(dir=folder.parent) as half:
        extractall(archive, half, file_type="tar", has_base=False)
        unpacked = Path(half) / task
        if not unpacked.is_dir():
            raise ValueError(f"{archive} holds no folder {task}; it is kept, to be looked at.")
        unpacked.rename(folder)
    archive.unlink()
    return folder


def _size(url: str) -> int:
    with _opened(urllib.request.Request(url, method="HEAD")) as answer:
        return int(answer.headers["Content-Length"])


def _download(url: str, archive: Path, have: int, size: int) -> None:
    """Append what is missing of a file; a server that sends all of it again is taken from the start."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with _opened(request) as answer:
        resumes = answer.status == 206
        look = dict(total=size, initial=have if resumes else 0, unit="B", unit_scale=True, desc=archive.stem)
        with open(archive, "ab" if resumes else "wb") as file, tqdm(**look) as bar:
            try:
                while part := answer.read(CHUNK):
                    file.write(part)
                    bar.update(len(part))
            except OSError as error:
                raise _broken(url, error) from error
    if archive.stat().st_size != size:
        raise _broken(url, "it ended early")


def _opened(request: urllib.request.Request):
    try:
        return urllib.request.urlopen(request, timeout=SECONDS)
    except (urllib.error.URLError, OSError) as error:
        raise _broken(request.full_url, getattr(error, "reason", error)) from error


def _broken(url: str, why: object) -> ValueError:
    return ValueError(
        f"{urlsplit(url).netloc} can't be read from ({why}): `labkit get` needs the network, and goes on "
        "where it was when it is run again. Without one, copy a folder of scans here and name it with --data."
    )
