"""Nesterov's momentum k/(k + 3): one factor for every iteration of network, solver and engine."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray


def momentum(k: int) -> float:
    """Return k/(k + 3), the momentum of iteration k; the first iteration is 0."""
    return k / (k + 3)


def extrapolate(current: NDArray[Any], previous: NDArray[Any], k: int) -> NDArray[Any]:
    """
    Return current + k/(k + 3)·(current − previous): the point at which iteration k computes its update.

    Notes
    -----
    Spec: physics 6.5, 7.7 and 8.5.

    References
    ----------
    Nesterov, *A method of solving a convex programming problem with convergence rate O(1/k²)* (1983).
    """
    extrapolated = current - previous
    extrapolated *= momentum(k)  # in place: a canvas may take gigabytes
    extrapolated += current
    return extrapolated
