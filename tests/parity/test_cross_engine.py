"""Both engines train alike and read each other's files (contract 2.3, 6.2)."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho_backend.engines.registry import get_backend
from ptycho_backend.errors import BackendNotInstalledError
from ptycho_backend.testing.checks import CROSS_CHECKS, EngineUnderTest

ENGINES = ("pytorch", "tensorflow")


@pytest.fixture(scope="module")
def pair(request, device):
    """Return both engines on a device; skip if one is not installed, unless the command line names it."""
    engines = []
    for name in ENGINES:
        try:
            engines.append(EngineUnderTest.of(get_backend(name), device))
        except BackendNotInstalledError as error:
            if name in (request.config.getoption("--backend") or ()):
                raise
            pytest.skip(str(error).replace("\n", ";"))
    return engines


@pytest.mark.parametrize("check", CROSS_CHECKS, ids=lambda check: f"{check.clause}-{check.name}".replace(" ", "-"))
def test_check(check, pair):
    result = check.run(*pair, np.random.default_rng(0))
    assert result.passed, f"{check.name}: {result.error:.3g}, allowed are {result.tolerance.relative:.3g}"
