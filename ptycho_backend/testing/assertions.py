"""Assertions on arrays and trainings; a failure names the compared values and the size of the difference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.engines.model import History, Weights
from ptycho_backend.testing.tolerances import Tolerance

ADAM_DISTANCE = 5e-3  # ten steps of Adam at 5e-4 move a value by up to this, even where its gradient is rounding
Training = tuple[History, Weights]
Operator = Callable[[NDArray[Any]], NDArray[Any]]


def relative_error(actual: Any, expected: Any) -> float:
    """Return max|actual − expected| / max|expected|; the denominator is 1 where all expected values are 0."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    if actual.shape != expected.shape:
        raise AssertionError(f"shape {actual.shape} instead of {expected.shape}")
    if expected.size == 0:
        return 0.0
    dtype = np.complex128 if np.iscomplexobj(actual) or np.iscomplexobj(expected) else np.float64
    difference = np.abs(actual.astype(dtype) - expected.astype(dtype)).max()
    scale = float(np.abs(expected.astype(dtype)).max())
    return float(difference / scale) if scale > 0 else float(difference)


def assert_close(actual: Any, expected: Any, tolerance: Tolerance, what: str = "result") -> None:
    """Fail unless two arrays of one shape agree within a tolerance; NaN fails."""
    error = relative_error(actual, expected)
    if not error <= tolerance.relative:
        raise AssertionError(
            f"{what} differs by {error:.3g} of its largest value; allowed are {tolerance.relative:.3g} "
            f"({tolerance.reason})"
        )


def assert_far(actual: Any, other: Any, tolerance: Tolerance, what: str = "result") -> None:
    """Fail unless two arrays differ by three tolerances: a control for :func:`assert_close`."""
    error = relative_error(actual, other)
    if not error > 3 * tolerance.relative:
        raise AssertionError(f"{what} differs by only {error:.3g}, within 3 tolerances of {tolerance.relative:.3g}")


def assert_same_training(found: Training, expected: Training, tolerance: Tolerance, slack: float = 1.0) -> None:
    """
    Fail unless two trainings have equal histories and equal final weights.

    A weight's error is relative to its norm, or to the distance of ten Adam steps if that is larger.

    Parameters
    ----------
    found, expected : tuple of History and dict
        Return value of `fit`, and the weights after it.
    tolerance : Tolerance
    slack : float
        Factor on the tolerance of weights. Adam makes a whole step even where a gradient is only rounding.
    """
    (history, weights), (expected_history, expected_weights) = found, expected
    if [set(row) for row in history] != [set(row) for row in expected_history]:
        raise AssertionError(f"a history of {history} instead of {expected_history}")
    for row, expected_row in zip(history, expected_history, strict=True):
        for name, value in expected_row.items():
            assert_close(row[name], value, tolerance, f"{name} of epoch {expected_row['epoch']:g}")
    for name, array in expected_weights.items():
        scale = max(float(np.linalg.norm(array)), ADAM_DISTANCE * np.sqrt(array.size))
        error = float(np.linalg.norm(weights[name] - array)) / scale
        if not error <= slack * tolerance.relative:
            raise AssertionError(f"weight {name} differs by {error:.3g} of its norm ({tolerance.reason})")


def adjoint_error(operator: Operator, adjoint: Operator, x: NDArray[Any], y: NDArray[Any]) -> float:
    """Return |⟨A x, y⟩ − ⟨x, A' y⟩| / (‖A x‖·‖y‖)."""
    forward, backward = operator(x), adjoint(y)
    left = complex(np.vdot(forward.astype(np.complex128), y.astype(np.complex128)))
    right = complex(np.vdot(x.astype(np.complex128), backward.astype(np.complex128)))
    scale = float(np.linalg.norm(forward) * np.linalg.norm(y))
    return float(abs(left - right) / max(scale, 1e-300))


def assert_adjoint(
    operator: Operator, adjoint: Operator, x: NDArray[Any], y: NDArray[Any], tolerance: Tolerance
) -> None:
    """Fail unless ⟨A x, y⟩ = ⟨x, A' y⟩ within a tolerance relative to ‖A x‖·‖y‖."""
    error = adjoint_error(operator, adjoint, x, y)
    if not error <= tolerance.relative:
        raise AssertionError(f"⟨Ax, y⟩ and ⟨x, A'y⟩ differ by {error:.3g} of ‖Ax‖·‖y‖ ({tolerance.reason})")
