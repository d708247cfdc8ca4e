"""The site is built from the documents, loads nothing from elsewhere, and a broken link or name ends its build."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("docs", "specs", "benchmarks", "ptycho_backend")
LOADED = re.compile(r"<(?:script|img|iframe)[^>]* src=\"?(https?:[^\" >]*)|<link[^>]* href=\"?(https?:[^\" >]*)")


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a copy of the repository, with proxies that lead nowhere."""
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    environment = {**os.environ, **nowhere, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder.parent / "site")]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path):
    """Return a copy of everything that the site needs."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    folder = tmp_path / "source"
    for name in PARTS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*ROOT.glob("*.md"), ROOT / "mkdocs.yml", ROOT / "LICENSE", ROOT / "constraints.txt"):
        shutil.copy(path, folder)
    return folder


@pytest.mark.slow
def test_site(copy):
    done = build(copy)
    assert done.returncode == 0, done.stdout + done.stderr
    site = copy.parent / "site"
    pages = {path.relative_to(site).as_posix(): path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    assert len(pages) > 50
    assert "Return a scan of some of the positions" in pages["docs/api/scans.html"]
    assert "data:image/png;base64" in pages["docs/gallery/first-image.html"]
    assert {name: match[0] for name, page in pages.items() for match in LOADED.finditer(page)} == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    ["[a](nowhere.md)", "[a](scans.md#nothing)", "::: ptycho_backend.no_such_name"],
    ids=["link", "anchor", "name"],
)
def test_a_broken_document_ends_the_build(copy, line):
    with (copy / "docs/api/index.md").open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    assert build(copy).returncode != 0


def test_a_loaded_address_is_found():
    assert LOADED.search('<script defer src="https://cdn.example/x.js">')
    assert LOADED.search("<link rel=stylesheet href=https://fonts.example/css>")
    assert not LOADED.search('<a href="https://pytorch.org">')
