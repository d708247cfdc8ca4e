"""
Tools to test an engine: tolerances with reasons, assertions, checks, and strategies for random inputs.

``strategies`` needs Hypothesis and is imported by name; no module here imports a framework.
"""

from ptycho_backend.testing.assertions import (
    assert_adjoint,
    assert_close,
    assert_far,
    assert_same_training,
    relative_error,
)
from ptycho_backend.testing.tolerances import Tolerance

__all__ = ["Tolerance", "assert_adjoint", "assert_close", "assert_far", "assert_same_training", "relative_error"]
