"""Files for the public: site, gallery, workflows, hooks, templates, citation, containers, recipe."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

import ptycho_backend as pb
from ptycho_backend.report.content import CITATION

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NOTEBOOKS = sorted((ROOT / "docs/gallery").glob("*.ipynb"))
MAX_NOTEBOOK_BYTES = 400_000
CONDA_NAMES = {"matplotlib": "matplotlib-base", "docstring-parser": "docstring_parser"}  # others have the same name
# Documents that others lead to: decisions from the list of documents, the template from a pull request.
OUTSIDE_NAVIGATION = ("docs/adr/", ".github/")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def strings(node: Any) -> list[str]:
    """Return all strings in nested lists and dictionaries of a navigation."""
    if isinstance(node, str):
        return [node]
    return [found for part in (node.values() if isinstance(node, dict) else node) for found in strings(part)]


# --- site ----------------------------------------------------------------------------------------------------------

SITE = yaml.safe_load(text("mkdocs.yml"))
NAVIGATION = strings(SITE["nav"])


def test_every_document_is_in_the_navigation():
    folders = ("docs", "specs", "benchmarks")
    found = [*ROOT.glob("*.md"), *(path for folder in folders for path in (ROOT / folder).rglob("*.md"))]
    names = {path.relative_to(ROOT).as_posix() for path in found}
    names |= {path.with_suffix(".md").relative_to(ROOT).as_posix() for path in NOTEBOOKS}
    assert {name for name in names if not name.startswith(OUTSIDE_NAVIGATION)} == set(NAVIGATION)


def test_the_site_is_strict_and_loads_nothing_from_elsewhere():
    assert SITE["strict"] is True
    assert SITE["theme"]["font"] is False
    assert not [name for name in (*SITE["extra_css"], *SITE.get("extra_javascript", [])) if ":" in name]
    (line,) = re.findall(r"^\t.*mkdocs build.*$", text("Makefile"), flags=re.MULTILINE)
    assert "--strict" in line
    assert not re.search(r" (-q|--quiet)\b", line), "quiet builds count no warnings"
    assert re.search(r"\bdocs\b", text(".ci/run"))


def test_every_public_name_has_an_entry():
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs/api").glob("*.md"))
    entries = set(re.findall(r"^::: ptycho_backend\.(\w+)$", pages, flags=re.MULTILINE))
    of_events = {"StageEvent", "BatchEvent", "EpochEvent"}  # of the module, which has an entry
    assert "events" in entries
    assert set(pb.__all__) - {"__version__"} - of_events - entries == set()
    listed = set(re.findall(r"`(\w+)`", text("docs/api/index.md")))
    assert set(pb.__all__) - {"__version__"} - listed == set()


# --- gallery -------------------------------------------------------------------------------------------------------


def test_four_notebooks_are_listed():
    names = {path.name for path in NOTEBOOKS}
    assert names == {"first-image.ipynb", "own-data.ipynb", "4d-stem.ipynb", "quality.ipynb"}
    assert set(re.findall(r"\((\S+\.ipynb)\)", text("docs/gallery/index.md"))) == names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_with_its_pictures(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert path.stat().st_size < MAX_NOTEBOOK_BYTES
    assert "".join(cells[0]["source"]).startswith("# ")
    assert all(cell["execution_count"] for cell in cells if cell["cell_type"] == "code")
    assert [output for output in outputs if output["output_type"] == "error"] == []
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not re.search(r"/(tmp|home|work|root)/", json.dumps(outputs)), "no path of the machine that executed it"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_of_a_notebook_lead_somewhere(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\(([^)#:]+)\)", prose)
    assert [link for link in links if not (path.parent / link).is_file()] == []


# --- workflows, hooks, templates -----------------------------------------------------------------------------------

WORKFLOW = yaml.safe_load(text(".github/workflows/ci.yml"))


def test_workflow_covers_engines_and_pythons():
    jobs = WORKFLOW["jobs"]
    pinned = jobs["tests"]["strategy"]["matrix"]["python"]
    alone = jobs["one-engine"]["strategy"]["matrix"]
    assert len(pinned) >= 3
    assert set(alone["engine"]) <= set(PROJECT["optional-dependencies"])
    assert len(alone["engine"]) == 2
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert lowest in alone["python"]
    assert not [version for version in (*pinned, *alone["python"]) if as_numbers(version) < as_numbers(lowest)]


def as_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def test_workflow_uses_targets_that_exist():
    named = set(re.findall(r"\bmake ([\w-]+)", text(".github/workflows/ci.yml")))
    named |= set(WORKFLOW["jobs"]["slow"]["strategy"]["matrix"]["target"])
    named |= set(re.findall(r"\bmake ([\w-]+)", text(".github/actions/environment/action.yml")))
    assert {"check", "docs", "test", "test-slow", "lanes", "setup"} <= named
    assert [name for name in named if not re.search(rf"^{name}:", text("Makefile"), re.MULTILINE)] == []
    assert not WORKFLOW.keys() - {"name", True, "permissions", "concurrency", "jobs"}  # YAML reads `on` as true
    assert WORKFLOW["permissions"] == {"contents": "read"}


def test_hooks_run_the_tools_of_the_environment():
    (repository,) = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"]
    assert repository["repo"] == "local"
    entries = [hook["entry"].split() for hook in repository["hooks"]]
    assert {entry[0] for entry in entries} == {f".venv/bin/{n}" for n in ("ruff", "mypy", "lint-imports", "python")}
    files = [word for entry in entries for word in entry[1:] if "/" in word]
    assert files
    assert [name for name in files if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("name", ["bug", "data", "idea"])
def test_issue_templates_are_forms(name):
    form = yaml.safe_load(text(f".github/ISSUE_TEMPLATE/{name}.yml"))
    assert form["name"]
    assert form["description"]
    identifiers = [field["id"] for field in form["body"]]
    assert len(set(identifiers)) == len(identifiers) >= 1
    assert all(field["attributes"]["label"] for field in form["body"])


# --- citation, versions, containers, recipe ------------------------------------------------------------------------


def test_citation_agrees_with_the_metadata():
    citation = yaml.safe_load(text("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["title"] == PROJECT["name"]
    assert citation["license"] == PROJECT["license"]
    assert PROJECT["authors"] == [{"name": "ptychopinn developers"}]
    assert all(PROJECT["authors"][0]["name"] in author["name"] for author in citation["authors"])
    assert {"message", "abstract"} <= citation.keys()
    for reference in citation["references"]:
        assert reference["doi"] in CITATION
        assert all(author["family-names"] in CITATION for author in reference["authors"])


@pytest.mark.parametrize("name", ["pyproject.toml", "CITATION.cff", "recipe/meta.yaml", "containers/Containerfile"])
def test_one_file_states_the_version(name):
    assert "version" in PROJECT["dynamic"]
    assert pb.__version__ not in re.findall(r"[\d.]+\d", re.sub(r"cff-version.*", "", text(name)))


def test_containers_take_extras_and_files_that_exist():
    extras = re.findall(r"(?:EXTRA|extra)=(\w+)", text("containers/Containerfile") + text("containers/ptychopinn.def"))
    assert len(extras) >= 2
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    ignored = text(".dockerignore").split()
    assert {".git", ".venv"} <= set(ignored)
    assert "constraints.txt" not in ignored


def test_recipe_has_the_dependencies_of_the_package():
    recipe = yaml.safe_load(re.sub(r"\{\{.*?\}\}", "x", re.sub(r"\{%.*?%\}", "", text("recipe/meta.yaml"))))
    stated = {line.split(" ", 1)[0]: line.split(" ", 1)[1] for line in recipe["requirements"]["run"]}
    assert stated.pop("python") == PROJECT["requires-python"]
    needed = {item.name.lower(): str(item.specifier) for item in map(Requirement, PROJECT["dependencies"])}
    assert stated == {CONDA_NAMES.get(name, name): version for name, version in needed.items()}
    (command,) = recipe["build"]["entry_points"]
    assert command.split(" = ") == [*PROJECT["scripts"].keys(), *PROJECT["scripts"].values()]
