"""Benchmarks as modules, each under its own name; they import each other from their folder."""

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark_module(monkeypatch):
    """Return a function that imports a benchmark by name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module
