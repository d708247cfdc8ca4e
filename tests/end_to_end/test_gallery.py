"""The notebooks of the gallery run in a fresh folder, and show pictures and no errors."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs/gallery"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")


@pytest.fixture(scope="module")
def execute():
    """Return the program that executes the notebooks."""
    spec = importlib.util.spec_from_file_location("execute", FOLDER / "execute.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_error_in_a_cell_is_found(execute, tmp_path):
    from nbclient.exceptions import CellExecutionError

    cell = nbformat.v4.new_code_cell("1 / 0")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "broken.ipynb")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        execute.executed(tmp_path / "broken.ipynb")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(execute, path):
    cells = execute.executed(path).cells
    kinds = {kind for cell in cells for output in cell.get("outputs", []) for kind in output.get("data", {})}
    assert {"text/html", "image/png"} <= kinds
    stored = nbformat.read(path, as_version=4).cells
    assert [cell.source for cell in cells] == [cell.source for cell in stored]
    assert [len(cell.get("outputs", [])) > 0 for cell in cells] == [len(cell.get("outputs", [])) > 0 for cell in stored]
