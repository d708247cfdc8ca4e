"""Patterns that contradict all others during the iterations (spec: physics 9.9)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.odd_frames import median_and_deviation

# Squared error over the median pattern's, and its distance from the median in standard deviations of logarithms.
# Patterns of another place reach 8 to 200 and 27 to 50; wrong positions and flux, 6 and 22.
FACTOR, DEVIATIONS = 8.0, 25.0
MAX_SHARE = 0.1  # of the patterns: more of them are no exceptions


def contradicting_patterns(squared_errors: NDArray[np.float64]) -> NDArray[np.bool_]:
    """
    Return whether each pattern contradicts the object that all patterns made, shape (position,).

    Parameters
    ----------
    squared_errors : float64, shape (position,)
        Σ(√I − x)² of each pattern.
    """
    logarithms = np.log(np.maximum(squared_errors, np.finfo(float).tiny))
    median, spread = median_and_deviation(logarithms)
    above = logarithms - median
    wrong = (above > np.log(FACTOR)) & (above > DEVIATIONS * spread)
    return np.asarray(wrong) if wrong.mean() <= MAX_SHARE else np.zeros(len(wrong), dtype=bool)
