"""
What tests of an engine need: tolerances with reasons, assertions with laws, and strategies for inputs.

``strategies`` needs Hypothesis and is imported by name; nothing here imports a framework.
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
