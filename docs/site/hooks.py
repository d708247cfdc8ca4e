"""
Pages of the site, from the places where the repository keeps them.

Each document keeps its path, so that a link works in the repository and on the site alike.
Files that a document links to, such as a benchmark or the licence, are part of the site too.
A notebook becomes a page with its stored outputs; nothing is executed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "specs", "benchmarks")
OWN_FOLDER = "docs/site"
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)")
NOTEBOOK_LINK = re.compile(r"(\]\([^):\s]+)\.ipynb\)")
PAGE = ".md"
NOTEBOOK = ".ipynb"


def on_files(files: Files, config: Any) -> Files:
    """Add the documents, the pages of notebooks, and the files that documents link to."""
    paths = documents(PAGE)
    for path in sorted({*paths, *(file for document in paths for file in linked_files(document))}):
        files.append(File.generated(config, name_of(path), abs_src_path=str(path)))
    for path in documents(NOTEBOOK):
        files.append(File.generated(config, name_of(path.with_suffix(PAGE)), content=notebook_page(path)))
    return files


def on_page_markdown(markdown: str, **rest: Any) -> str:
    """Let links to notebooks lead to their pages."""
    return NOTEBOOK_LINK.sub(rf"\1{PAGE})", markdown)


def name_of(path: Path) -> str:
    """Return the path of a file from the root of the repository."""
    return path.relative_to(ROOT).as_posix()


def documents(suffix: str) -> list[Path]:
    """Return the files of the repository with a suffix, outside of the folder of the site itself."""
    found = [*ROOT.glob(f"*{suffix}")]
    for folder in FOLDERS:
        found += (ROOT / folder).rglob(f"*{suffix}")
    return sorted(path for path in found if not name_of(path).startswith(OWN_FOLDER) and "/." not in name_of(path))


def linked_files(document: Path) -> set[Path]:
    """Return the files of the repository, other than pages and notebooks, that a document links to."""
    targets = LINK.findall(document.read_text(encoding="utf-8"))
    places = {(document.parent / target).resolve() for target in targets if ":" not in target}
    return {path for path in places if path.is_file() and path.suffix not in (PAGE, NOTEBOOK)}


def notebook_page(path: Path) -> str:
    """Return a notebook as Markdown: text, code, and its stored outputs."""
    parts = []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        elif cell.cell_type == "code":
            parts.append(f"```python\n{cell.source}\n```")
            parts += [shown(output) for output in cell.outputs]
    return "\n\n".join(parts) + "\n"


def shown(output: Any) -> str:
    """Return an output of a cell: HTML, a picture, or text."""
    data = output.get("data", {})
    if "text/html" in data:
        return f'<div class="output">{data["text/html"]}</div>'
    if "image/png" in data:
        return f'<p class="output"><img alt="" src="data:image/png;base64,{data["image/png"].strip()}"></p>'
    return f"```text\n{output.get('text', data.get('text/plain', '')).rstrip()}\n```"
