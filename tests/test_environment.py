"""pyproject.toml, the lock and environment.yml say the same."""

import os
import platform
import re
import sys
from importlib import metadata
from itertools import product
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import labkit

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
COMPUTERS = [  # sys_platform, platform_system, os_name, platform_machine
    ("linux", "Linux", "posix", "x86_64"),
    ("darwin", "Darwin", "posix", "arm64"),
    ("win32", "Windows", "nt", "AMD64"),
]
HERE = (sys.platform, platform.system(), os.name, platform.machine())
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
UNLISTED = re.compile(r"nvidia-.*|cuda-.*|triton|httpx2-jsfetch")  # see [tool.uv.pip] in pyproject.toml


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def direct():
    """What the project asks for itself, tests and the site included."""
    asked = project()
    extras = sum(asked["optional-dependencies"].values(), [])
    return [Requirement(one) for one in asked["dependencies"] + extras]


def locked():
    lines = (line.split("#")[0].strip() for line in (ROOT / "requirements.lock").read_text().splitlines())
    return [Requirement(line) for line in lines if line]


def wanted(requirement, python, computer):
    """Whether its marker holds for this Python on this computer."""
    names = ("sys_platform", "platform_system", "os_name", "platform_machine")
    place = {
        **dict(zip(names, computer, strict=True)),
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "python_version": python,
        "python_full_version": f"{python}.9",
        "extra": "",
    }
    return requirement.marker is None or requirement.marker.evaluate(place)


def pins(python, computer):
    """Name -> versions the lock gives one Python on one computer."""
    found = {}
    for one in locked():
        if wanted(one, python, computer):
            found.setdefault(canonicalize_name(one.name), []).append(str(one.specifier))
    return found


@pytest.mark.parametrize(
    "python, computer",
    list(product(PYTHONS, COMPUTERS)),
    ids=lambda one: one if isinstance(one, str) else one[0],
)
def test_the_lock_gives_every_direct_dependency_one_version_that_fits(python, computer):
    versions = pins(python, computer)
    assert all(len(found) == 1 for found in versions.values()), versions
    for one in (one for one in direct() if wanted(one, python, computer)):
        (pin,) = versions[canonicalize_name(one.name)]
        assert one.specifier.contains(pin.removeprefix("==")), (str(one), pin)


def test_the_lock_is_exact_and_knows_no_host():
    for one in locked():
        assert re.fullmatch(r"==[\w.]+", str(one.specifier)) and one.url is None, str(one)
        assert not UNLISTED.fullmatch(one.name), f"{one.name} must be left to torch"
    assert not re.search(r"--|://|sha256", (ROOT / "requirements.lock").read_text())


def test_the_lock_is_the_complete_closure():
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    versions, todo, seen = pins(python, HERE), [one for one in direct() if wanted(one, python, HERE)], set()
    while todo:
        one = todo.pop()
        name = canonicalize_name(one.name)
        if UNLISTED.fullmatch(name) or (name, extras := frozenset(one.extras)) in seen:
            continue
        assert name in versions, f"{name} is needed but not locked"
        seen.add((name, extras))
        for line in metadata.requires(name) or []:
            need = Requirement(line)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in {"", *extras}):
                todo.append(need)
    assert {name for name, _ in seen} == set(versions), "the lock holds what nothing needs"


def test_conda_installs_the_lock_and_nothing_that_could_disagree_with_it():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    plain = [one for one in environment["dependencies"] if isinstance(one, str)]
    (by_pip,) = (one["pip"] for one in environment["dependencies"] if isinstance(one, dict))
    assert by_pip == ["-r requirements.lock", "-e ."]
    assert [one.split("=")[0] for one in plain] == ["python", "pip"]
    python = plain[0].split("=")[1]
    assert python in PYTHONS and SpecifierSet(project()["requires-python"]).contains(python)


def test_project_and_package_tell_the_same_version():
    assert project()["version"] == labkit.__version__


def test_every_direct_dependency_says_why_it_is_there():
    asked = (ROOT / "pyproject.toml").read_text().split("[project.scripts]")[0]
    lines = re.findall(r'^    "[a-z].*$', asked, re.MULTILINE)
    assert len(lines) == len(direct())
    assert [line for line in lines if not re.search(r'",\s+# \S', line)] == []
