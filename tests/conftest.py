"""Options and fixtures that every part of the suite shares."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from ptycho.engine.backend import prepare_start
from ptycho_backend.engines.contract import Backend
from ptycho_backend.engines.registry import get_backend
from ptycho_backend.errors import BackendNotInstalledError
from ptycho_backend.training.loggers import DATABASE_PACKAGES, PACKAGES

BACKENDS = ("pytorch", "tensorflow")

# Some files import TensorFlow while they are collected: every test shall see it as users do.
prepare_start()

# "dev" draws the same few examples every time, "full" new and many ones.
settings.register_profile(
    "dev", max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
# Lanes repeat tests that have already run with both frameworks: a few examples show that they run with one.
settings.register_profile(
    "lane", max_examples=3, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("full", max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the engine and its device be chosen."""
    parser.addoption(
        "--backend", action="append", metavar="NAME", help="engine to test (repeatable); default: all installed ones"
    )
    parser.addoption("--device", default="cpu", choices=("cpu", "cuda"), help="where engines compute")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test with a `backend` fixture on each chosen engine, one engine after the other."""
    own = {name for mark in metafunc.definition.iter_markers("parametrize") for name in _names(mark)}
    if "backend" in metafunc.fixturenames and "backend" not in own:
        chosen = metafunc.config.getoption("--backend") or BACKENDS
        metafunc.parametrize("backend", chosen, indirect=True, scope="session")


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest, device: str) -> Backend:
    """Return an engine: skipped where it is not installed, an error where it was asked for by name."""
    asked = request.config.getoption("--backend") is not None
    try:
        engine = get_backend(request.param)
    except BackendNotInstalledError as error:
        if asked:
            raise
        pytest.skip(str(error).replace("\n", ";"))
    if device == "cuda":
        _need_gpu(engine, asked)
    return engine


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    """Return where engines compute."""
    return str(request.config.getoption("--device"))


@pytest.fixture(scope="session")
def needs_logger() -> Callable[[str], None]:
    """Return a function that skips where a logger's packages are missing; where developers work they may not be."""

    def need(name: str) -> None:
        packages = {"tensorboard": PACKAGES["tensorboard"], "mlflow": (*PACKAGES["mlflow"], *DATABASE_PACKAGES)}
        missing = [package for package in packages.get(name, ()) if find_spec(package) is None]
        if missing:
            message = f"not installed: {', '.join(missing)}; pip install 'ptychopinn[{name}]'"
            pytest.fail(message) if find_spec("importlinter") else pytest.skip(message)

    return need


@pytest.fixture(scope="session")
def star_path() -> Path:
    """Return the measured scan's file; skips where it is not at hand."""
    places = [Path(os.environ.get("PTYCHO_DATA_DIR", "")), Path(__file__).parents[2] / "shared" / "data"]
    found = [place / "siemens-star.npz" for place in places if (place / "siemens-star.npz").is_file()]
    if not found:
        pytest.skip("siemens-star.npz is neither in PTYCHO_DATA_DIR nor in ../shared/data")
    return found[0]


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a generator, the same for every test."""
    return np.random.default_rng(0)


def _need_gpu(engine: Backend, asked: bool) -> None:
    if any(name.startswith("cuda") for name in engine.devices()):
        return
    message = f"the engine '{engine.name}' sees no GPU here, only {', '.join(engine.devices())}"
    pytest.fail(message) if asked else pytest.skip(message)


def _names(mark: pytest.Mark) -> list[str]:
    names = mark.args[0] if mark.args else mark.kwargs["argnames"]
    return [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
