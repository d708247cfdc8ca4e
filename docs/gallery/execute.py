"""
Execution of the notebooks of the gallery, each in a fresh folder.

    python docs/gallery/execute.py            # all of them, with their pictures, in place
    python docs/gallery/execute.py quality    # one of them
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent


def notebooks() -> list[Path]:
    """Return the notebooks of the gallery."""
    return sorted(FOLDER.glob("*.ipynb"))


def executed(path: Path) -> nbformat.NotebookNode:
    """
    Return a notebook with the outputs of a fresh kernel.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell raises.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": folder}})
        client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of the run
    return notebook


def main(names: list[str]) -> None:
    """Execute notebooks and write them with their outputs."""
    for path in notebooks():
        if not names or path.stem in names:
            nbformat.write(executed(path), path)


if __name__ == "__main__":
    main(sys.argv[1:])
