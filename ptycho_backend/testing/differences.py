"""Slopes of a loss from its values alone, with a step that suits each slope."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

STEPS = (1e-7, 1e-6, 1e-5, 1e-4)  # the first ones pass hardly any ReLU or maximum, the last ones lose least by rounding
ROUNDING = 4 * np.finfo(np.float64).eps  # of one value, relative; measured on losses of whole models: 1 to 2 eps
CERTAIN = 1e-4  # doubt, as a share of the slope, at which no other step is tried


def slope_at_zero(function: Callable[[float], float]) -> float:
    """
    Return the derivative at 0 of a function with kinks, from float64 values.

    A central difference is doubtful by the disagreement of its forward and backward half, which kinks and curvature
    cause and which grows with the step, and by the rounding of the values, which grows as the step shrinks. No single
    step suits weights whose slopes differ by six orders of magnitude, so the least doubtful one counts.

    Parameters
    ----------
    function : callable
        Takes a coordinate along the direction of length 1, returns a value of order 1.

    Returns
    -------
    float
        In units of the function's value.

    Notes
    -----
    Spec: backend_contract 4.3.
    """
    middle = function(0.0)
    found: list[tuple[float, float]] = []
    for step in STEPS:
        up, down = function(step), function(-step)
        slope = (up - down) / (2 * step)
        doubt = (abs(up - 2 * middle + down) + ROUNDING * abs(middle)) / step
        found.append((doubt, slope))
        if doubt <= CERTAIN * abs(slope):
            break
    return min(found)[1]
