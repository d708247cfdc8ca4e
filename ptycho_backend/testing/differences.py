"""Adaptive central differences: derivatives of functions with kinks, from their values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

STEPS = (1e-7, 1e-6, 1e-5, 1e-4)  # small steps cross few kinks of a ReLU or maximum, large ones lose few digits
ROUNDING = 4 * np.finfo(np.float64).eps  # relative error of one value; losses of whole models show 1 to 2 eps
ACCEPTED = 1e-4  # relative error estimate that ends the search for a better step


def derivative_at_zero(function: Callable[[float], float]) -> float:
    """
    Return the derivative at 0 of a function with kinks, by adaptive central differences in float64.

    The error estimate of a step has two terms. Kinks and curvature make the forward and the backward difference
    disagree, more so at large steps. Rounding counts more at small steps. Derivatives of different weights differ by
    six orders of magnitude, so no single step suits all. The result has the smallest error estimate.

    Parameters
    ----------
    function : callable
        Maps a coordinate along a direction of length 1 to a value of order 1.

    Returns
    -------
    float
        Derivative, unit of the function's value.

    Notes
    -----
    Spec: backend_contract 4.3.
    """
    middle = function(0.0)
    estimates: list[tuple[float, float]] = []
    for step in STEPS:
        up, down = function(step), function(-step)
        derivative = (up - down) / (2 * step)
        error = (abs(up - 2 * middle + down) + ROUNDING * abs(middle)) / step
        estimates.append((error, derivative))
        if error <= ACCEPTED * abs(derivative):
            break
    return min(estimates)[1]
