"""Every check on every engine and device, with inputs that Hypothesis draws (contract 9)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from ptycho_backend.testing.checks import CHECKS, EngineUnderTest
from ptycho_backend.testing.strategies import generators

EXAMPLES = 4  # of a check that builds no model


@pytest.fixture(scope="session")
def subject(backend, device):
    """Return an engine on a device; models are built once for all checks."""
    return EngineUnderTest.of(backend, device)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: f"{check.clause}-{check.name}".replace(" ", "-"))
def test_check(check, subject):
    @settings(max_examples=1 if check.slow else EXAMPLES)
    @given(generators())
    def holds(rng):
        finding = check.run(subject, rng)
        assert finding.passed, (
            f"{check.name} ({check.clause}): {finding.error:.3g}, allowed are {finding.tolerance.relative:.3g} "
            f"({finding.tolerance.reason})"
        )

    holds()
