"""Pinned versions: complete, within the ranges of pyproject.toml, and the installed ones (SECURITY.md)."""

import importlib.metadata
import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.!+]+)")
NOT_PINNED = {"pip", "setuptools", "wheel", "ptychopinn"}  # they install the others, or are installed here


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def lines():
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return [line.split("#")[0].strip() for line in text.splitlines() if line.split("#")[0].strip()]


PINS = {normal(match[1]): match[2] for line in lines() if (match := LINE.fullmatch(line))}
EXTRAS = PROJECT["optional-dependencies"]
REQUIREMENTS = [
    Requirement(text) for text in (*PROJECT["dependencies"], *(x for texts in EXTRAS.values() for x in texts))
]


def needed(names):
    """Return the names that some packages need, directly or not, on this machine."""
    found, waiting = set(), list(names)
    while waiting:
        name = normal(waiting.pop())
        if name in found:
            continue
        found.add(name)
        try:
            texts = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        requirements = [Requirement(text) for text in texts]
        waiting += [item.name for item in requirements if item.marker is None or item.marker.evaluate({"extra": ""})]
    return found


def test_every_line_pins_one_version_of_a_registry():
    """No address, no local path, no range: only a name and a version."""
    assert all(LINE.fullmatch(line) for line in lines())
    assert len(PINS) == len(lines())
    assert not [item for item in REQUIREMENTS if item.url]


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_pins_satisfy_the_ranges(requirement):
    if requirement.name != "ptychopinn":
        assert Version(PINS[normal(requirement.name)]) in requirement.specifier


def test_every_package_that_is_needed_is_pinned():
    names = needed(item.name for item in REQUIREMENTS)
    assert len(names) > 50 or len(PINS) < 50
    assert not {name for name in names - NOT_PINNED if name not in PINS and is_installed(name)}


def is_installed(name):
    try:
        return bool(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return False


def test_pins_are_the_installed_versions():
    """A local build such as 2.13.0+cpu counts as its version."""
    differing = {}
    for name, version in PINS.items():
        if is_installed(name) and Version(importlib.metadata.version(name)).public != Version(version).public:
            differing[name] = importlib.metadata.version(name)
    assert not differing


def test_installed_packages_satisfy_each_other():
    """Every requirement of an installed pinned package holds, as `pip check` would say."""
    broken = []
    for name in filter(is_installed, PINS):
        for item in map(Requirement, importlib.metadata.requires(name) or []):
            applies = item.marker is None or item.marker.evaluate({"extra": ""})
            if applies and is_installed(item.name):
                version = Version(importlib.metadata.version(item.name))
                if not item.specifier.contains(version, prereleases=True):
                    broken.append(f"{name} needs {item}, and {version} is installed")
    assert not broken
