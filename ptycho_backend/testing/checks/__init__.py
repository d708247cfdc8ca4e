"""
Checks of every engine on every device (spec: backend_contract 9).

:data:`CHECKS` compares an engine with the oracle and with laws of physics, :data:`CROSS_CHECKS` compares two engines.
The parity tests and ``ptychopinn parity`` run both.
"""

from ptycho_backend.testing.checks import engines, groups, kernels, laws, models, oracle, training
from ptycho_backend.testing.checks.check import Check, CheckResult, CrossCheck, EngineUnderTest, builtin_scan

CHECKS: tuple[Check, ...] = (
    *oracle.CHECKS,
    *laws.CHECKS,
    *groups.CHECKS,
    *kernels.CHECKS,
    *models.CHECKS,
    *training.CHECKS,
)
CROSS_CHECKS: tuple[CrossCheck, ...] = engines.CROSS_CHECKS

__all__ = ["CHECKS", "CROSS_CHECKS", "Check", "CrossCheck", "CheckResult", "EngineUnderTest", "builtin_scan"]
