"""Adam with gradient clipping in float64, the reference of both engines (spec: config 5.1, config 5.4)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

BETA1, BETA2 = 0.9, 0.999  # decay of the mean gradient and of its mean square
EPSILON = 1e-8  # added outside the root


def adam(
    value: NDArray[Any], gradients: Iterable[NDArray[Any]], learning_rate: float, clip: float | None = None
) -> NDArray[np.float64]:
    """
    Return the value after one step of Adam for every gradient.

    θ ← θ − learning_rate·m̂ / (√v̂ + ε). m̂ and v̂ are the running means of gradient and squared gradient, corrected
    for their start at 0.

    Parameters
    ----------
    value : float, any shape
    gradients : iterable of float, shape of `value`
        Gradient of each step.
    learning_rate : float
    clip : float, optional
        Upper bound of the gradient norm over all elements, see :func:`clipped`.

    Returns
    -------
    float64, shape of `value`

    Notes
    -----
    Spec: config 5.1, config 5.4.

    References
    ----------
    Kingma and Ba, *Adam: a method for stochastic optimization* (2015), algorithm 1.
    """
    theta = np.array(value, dtype=np.float64)
    m, v = np.zeros_like(theta), np.zeros_like(theta)
    for t, gradient in enumerate(gradients, start=1):
        g = clipped(gradient, clip)
        m = BETA1 * m + (1 - BETA1) * g
        v = BETA2 * v + (1 - BETA2) * g**2
        theta -= learning_rate * (m / (1 - BETA1**t)) / (np.sqrt(v / (1 - BETA2**t)) + EPSILON)
    return theta


def clipped(gradient: NDArray[Any], clip: float | None) -> NDArray[np.float64]:
    """Return the gradient scaled to a norm of at most `clip` over all elements."""
    gradient = np.asarray(gradient, dtype=np.float64)
    norm = float(np.linalg.norm(gradient))
    return gradient if clip is None or norm <= clip else gradient * (clip / norm)
