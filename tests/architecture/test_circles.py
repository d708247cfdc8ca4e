"""No circle of imports, also none of imports inside functions or for type checking only."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("ptycho_backend", "ptycho", "ptycho_torch")


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path, modules: set[str]) -> set[str]:
    """Return the modules of this distribution that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & modules) | ({node.module} if names - modules else set())
    return found & modules - {module_name(path)}


def import_graph() -> dict[str, set[str]]:
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    modules = {module_name(path) for path in paths}
    return {module_name(path): imports_of(path, modules) for path in paths}


def test_no_circle_of_imports():
    graph = import_graph()
    assert len(graph) > 200
    TopologicalSorter(graph).prepare()


def test_the_check_can_fail():
    graph = import_graph()
    assert "ptycho_backend.errors" in graph["ptycho_backend.config"]
    graph["ptycho_backend.errors"] = {"ptycho_backend.config"}
    with pytest.raises(CycleError):
        TopologicalSorter(graph).prepare()
