"""Assertions that say what was compared and by how much it failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.engines.model import History, Weights
from ptycho_backend.testing.tolerances import Tolerance

MOVED = 5e-3  # how far ten steps of Adam at 5e-4 move a value, rounding of a gradient or not
Training = tuple[History, Weights]
Operator = Callable[[NDArray[Any]], NDArray[Any]]


def relative_error(actual: Any, expected: Any) -> float:
    """Return the largest difference over the largest expected magnitude; over 1 where all expected are 0."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    if actual.shape != expected.shape:
        raise AssertionError(f"shape {actual.shape} instead of {expected.shape}")
    if expected.size == 0:
        return 0.0
    wide = np.complex128 if np.iscomplexobj(actual) or np.iscomplexobj(expected) else np.float64
    difference = np.abs(actual.astype(wide) - expected.astype(wide)).max()
    scale = float(np.abs(expected.astype(wide)).max())
    return float(difference / scale) if scale > 0 else float(difference)


def assert_close(actual: Any, expected: Any, tolerance: Tolerance, what: str = "result") -> None:
    """Fail unless two arrays of one shape agree within a tolerance; NaN never agrees."""
    error = relative_error(actual, expected)
    if not error <= tolerance.relative:
        raise AssertionError(
            f"{what} differs by {error:.3g} of its largest value; allowed are {tolerance.relative:.3g} "
            f"({tolerance.reason})"
        )


def assert_far(actual: Any, other: Any, tolerance: Tolerance, what: str = "result") -> None:
    """Fail unless two arrays differ by clearly more than a tolerance: the control that a comparison can fail."""
    error = relative_error(actual, other)
    if not error > 3 * tolerance.relative:
        raise AssertionError(f"{what} differs by {error:.3g} only, which {tolerance.relative:.3g} cannot tell apart")


def assert_same_training(found: Training, expected: Training, tolerance: Tolerance, slack: float = 1.0) -> None:
    """
    Fail unless two trainings agree: in every number of their histories, and in each weight, over its norm or ten steps.

    Parameters
    ----------
    found, expected : tuple of History and dict
        What `fit` has returned, and the weights after it.
    tolerance : Tolerance
    slack : float
        How many times as much weights may differ: where a gradient is next to zero, Adam makes a whole step of its
        rounding.
    """
    (history, weights), (wanted_history, wanted_weights) = found, expected
    if [set(row) for row in history] != [set(row) for row in wanted_history]:
        raise AssertionError(f"a history of {history} instead of {wanted_history}")
    for row, wanted in zip(history, wanted_history, strict=True):
        for name, value in wanted.items():
            assert_close(row[name], value, tolerance, f"{name} of epoch {wanted['epoch']:g}")
    for name, array in wanted_weights.items():
        scale = max(float(np.linalg.norm(array)), MOVED * np.sqrt(array.size))
        error = float(np.linalg.norm(weights[name] - array)) / scale
        if not error <= slack * tolerance.relative:
            raise AssertionError(f"weight {name} differs by {error:.3g} of its norm ({tolerance.reason})")


def adjoint_error(operator: Operator, adjoint: Operator, x: NDArray[Any], y: NDArray[Any]) -> float:
    """Return |⟨A x, y⟩ − ⟨x, A' y⟩| as a share of ‖A x‖·‖y‖."""
    image, back = operator(x), adjoint(y)
    wide = np.complex128
    left = complex(np.vdot(image.astype(wide), y.astype(wide)))
    right = complex(np.vdot(x.astype(wide), back.astype(wide)))
    scale = float(np.linalg.norm(image) * np.linalg.norm(y))
    return float(abs(left - right) / max(scale, 1e-300))


def assert_adjoint(
    operator: Operator, adjoint: Operator, x: NDArray[Any], y: NDArray[Any], tolerance: Tolerance
) -> None:
    """Fail unless ⟨A x, y⟩ = ⟨x, A' y⟩, up to a share of ‖A x‖·‖y‖."""
    error = adjoint_error(operator, adjoint, x, y)
    if not error <= tolerance.relative:
        raise AssertionError(f"⟨Ax, y⟩ and ⟨x, A'y⟩ differ by {error:.3g} of ‖Ax‖·‖y‖ ({tolerance.reason})")
