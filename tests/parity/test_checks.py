"""Every check on every engine and device, with inputs that Hypothesis draws (contract 9)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from ptycho_backend.testing.checks import CHECKS, EngineUnderTest
from ptycho_backend.testing.strategies import generators

EXAMPLES = 4  # for a check without a model


@pytest.fixture(scope="session")
def engine(backend, device):
    """Return an engine on a device; models are built once for all checks."""
    return EngineUnderTest.of(backend, device)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: f"{check.clause}-{check.name}".replace(" ", "-"))
def test_check(check, engine):
    @settings(max_examples=1 if check.slow else EXAMPLES)
    @given(generators())
    def holds(rng):
        result = check.run(engine, rng)
        assert result.passed, (
            f"{check.name} ({check.clause}): {result.error:.3g}, allowed are {result.tolerance.relative:.3g} "
            f"({result.tolerance.reason})"
        )

    holds()
