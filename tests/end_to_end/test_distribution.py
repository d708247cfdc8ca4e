"""The source distribution holds documents and tests, and the wheel everything that the packages need."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import ptycho_backend as pb

ROOT = Path(__file__).parents[2]
PACKAGES = ("ptycho_backend", "ptycho", "ptycho_torch", "ptychopinn")
NOT_COPIED = shutil.ignore_patterns(
    *(".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info", "build", "dist", "demo", "runs")
)
NOT_SHIPPED = {".pyc"}
NAME = f"ptychopinn-{pb.__version__}"
IN_SOURCE = (
    *("README.md", "CHANGELOG.md", "LICENSE", "CITATION.cff", "Makefile", "constraints.txt", "mkdocs.yml"),
    *("pyproject.toml", "docs/index.md", "docs/images/siemens-star.png", "docs/gallery/first-image.ipynb"),
    *("docs/site/hooks.py", "specs/physics.md", "tests/conftest.py", "tests/end_to_end/test_distribution.py"),
    *("benchmarks/experiments.py", "containers/Containerfile", "recipe/meta.yaml"),
)


def package_files() -> set[str]:
    """Return all files of the packages in this checkout."""
    found = {path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()}
    shipped = {path for path in found if path.suffix not in NOT_SHIPPED and "__pycache__" not in path.parts}
    return {path.relative_to(ROOT).as_posix() for path in shipped}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return the folder with both distributions of a copy of this checkout, built without a network."""
    pytest.importorskip("build")
    source = tmp_path_factory.mktemp("distribution") / "source"
    shutil.copytree(ROOT, source, ignore=NOT_COPIED)
    environment = {**os.environ, "PIP_NO_INDEX": "1"}
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(source.parent / "dist"), "."]
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return source.parent / "dist"


@pytest.mark.slow
def test_source_distribution_has_documents_and_tests(built):
    with tarfile.open(built / f"{NAME}.tar.gz") as archive:
        names = {name.removeprefix(f"{NAME}/") for name in archive.getnames()}
    assert [name for name in IN_SOURCE if name not in names] == []
    assert package_files() - names == set()
    assert [name for name in names if "__pycache__" in name or name.endswith(".pyc")] == []


@pytest.mark.slow
def test_wheel_has_every_file_of_the_packages_and_no_other(built):
    """The wheel is built from the source distribution, which therefore suffices."""
    (path,) = built.glob("*.whl")
    assert path.name == f"{NAME}-py3-none-any.whl"
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
    information = {name for name in names if name.startswith(f"{NAME}.dist-info/")}
    assert names - information == package_files()
    assert f"{NAME}.dist-info/licenses/LICENSE" in information


@pytest.mark.slow
def test_metadata_of_the_wheel(built):
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        metadata = Parser().parsestr(archive.read(f"{NAME}.dist-info/METADATA").decode())
        scripts = archive.read(f"{NAME}.dist-info/entry_points.txt").decode()
    assert metadata["Version"] == pb.__version__
    assert metadata["Author"] == "ptychopinn developers"
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert {"torch", "tensorflow", "all", "docs"} <= set(metadata.get_all("Provides-Extra"))
    assert "ptychopinn = ptycho_backend.cli:main" in scripts
