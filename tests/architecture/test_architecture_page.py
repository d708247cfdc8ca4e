"""Files, functions and folders of docs/architecture.md, compared with the code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")

FOLDERS = r"(?:ptycho_backend|ptycho_torch|ptycho|specs|docs|tests|benchmarks)/(?:\w+/)*"
FILE = re.compile(rf"`({FOLDERS}\w+\.\w+)`")
FOLDER = re.compile(rf"`({FOLDERS})`")
PAIR = re.compile(rf"`({FOLDERS}\w+\.py)`\s+`([\w.]+)`")


def definitions(tree: ast.Module) -> Iterator[str]:
    """Yield names of functions and classes; methods as ``Class.method``."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        if isinstance(node, ast.ClassDef):
            yield from (f"{node.name}.{item.name}" for item in node.body if isinstance(item, ast.FunctionDef))


def undefined(page: str) -> list[str]:
    """Return the pairs of file and function whose file does not define the function."""
    return [
        f"{file} {name}"
        for file, name in PAIR.findall(page)
        if name not in definitions(ast.parse((ROOT / file).read_text(encoding="utf-8")))
    ]


def missing_paths(page: str) -> list[str]:
    """Return named files and folders that do not exist."""
    return [path for pattern in (FILE, FOLDER) for path in pattern.findall(page) if not (ROOT / path).exists()]


def unnamed_folders(page: str) -> list[str]:
    """Return the folders of ptycho_backend that the page does not name."""
    folders = {path.parent.relative_to(ROOT).as_posix() + "/" for path in (ROOT / "ptycho_backend").rglob("*.py")}
    return sorted(folders - set(FOLDER.findall(page)))


def section(page: str, title: str) -> str:
    (text,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", page, flags=re.DOTALL | re.MULTILINE)
    return text


def test_named_files_and_folders_exist():
    assert len(FILE.findall(PAGE)) > 30
    assert missing_paths(PAGE) == []


def test_named_functions_are_defined_in_their_files():
    assert len(PAIR.findall(PAGE)) > 30
    assert undefined(PAGE) == []


def test_every_folder_of_the_core_is_named():
    assert unnamed_folders(PAGE) == []


def test_there_is_one_picture():
    assert PAGE.count("```mermaid") == 1


@pytest.mark.parametrize("engine", ["ptycho/engine", "ptycho_torch/engine"])
def test_every_file_of_an_engine_is_named(engine):
    modules = {path.stem for path in (ROOT / engine).glob("*.py")} - {"__init__"}
    named = set(re.findall(r"`(\w+)`", section(PAGE, "Folders")))
    assert [name for name in modules - named if f"`{engine}/{name}.py`" not in PAGE] == []


def test_every_import_rule_has_one_entry():
    rules = (ROOT / "pyproject.toml").read_text(encoding="utf-8").count("[[tool.importlinter.contracts]]")
    assert len(re.findall(r"^- \*\*", section(PAGE, "Import rules"), flags=re.MULTILINE)) == rules > 0


def test_the_checks_can_fail():
    """Controls: a page with wrong names fails every check."""
    page = "`ptycho_backend/api.py` `no_such_function`, `ptycho_backend/api.py`\n`train`"
    page += ", `ptycho_backend/no_file.py`, `docs/no/`"
    assert undefined(page) == ["ptycho_backend/api.py no_such_function"]
    assert missing_paths(page) == ["ptycho_backend/no_file.py", "docs/no/"]
    assert "ptycho_backend/solver/" in unnamed_folders(page)
    source = "class A:\n    def b(self): ...\ndef c(): ...\n"
    assert list(definitions(ast.parse(source))) == ["A", "A.b", "c"]
