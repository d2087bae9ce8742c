"""The jail for a user who is not root, with real processes of such a user."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from labkit.paths import PACKAGE

NOBODY = 65534


def blocked(path: Path) -> Path | None:
    """The first folder on the way to it that others may not enter."""
    return next((one for one in [*reversed(path.parents), path] if not one.stat().st_mode & 0o001), None)


def opened(folder: Path, needed: list[Path], aside: Path) -> list[str]:
    """Commands after which, in this namespace of mounts alone, others find what is needed of a folder."""
    aside.mkdir()
    lines = [f"mount --bind {folder} {aside}", f"mount -t tmpfs -o mode=755 tmpfs {folder}"]
    for path in needed:
        lines += [f"mkdir -p {path}", f"mount --bind {aside / path.relative_to(folder)} {path}"]
    return lines


@pytest.mark.skipif(os.getuid() != 0, reason="whoever is not root has this in test_grade.py")
def test_the_jail_holds_for_a_user_who_is_not_root(jailed, tmp_path):
    """`labkit doctor --sandbox` as nobody: kernels start, probes find no way out, limits are counted."""
    needed = [Path(os.path.realpath(one)) for one in (sys.base_prefix, sys.prefix, PACKAGE.parent)]
    needed = [one for one in needed if not any(other in one.parents for other in needed)]
    lines = ["set -e"]
    for number, folder in enumerate({blocked(path) for path in needed} - {None}):
        inside = [path for path in needed if folder in (path, *path.parents)]
        lines += opened(folder, inside, tmp_path / str(number))
    with tempfile.TemporaryDirectory() as home:
        os.chmod(home, 0o777)
        user = f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups --inh-caps=-all --bounding-set=-all"
        environment = f"env -i PATH={os.environ['PATH']} HOME={home} LABKIT_CACHE={home}/cache"
        lines.append(
            f"cd / && exec {user} {environment} {shlex.quote(sys.executable)} -m labkit doctor --sandbox"
        )
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(lines)],
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "counted" in done.stdout, done.stdout
