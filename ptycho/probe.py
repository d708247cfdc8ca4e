"""Check of a probe guess, under the name of the earlier TensorFlow package."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.scan import canonical_probe


def set_probe_guess(X_train: Any = None, probe_guess: Any = None) -> NDArray[np.complex64] | None:
    """
    Check a probe guess; the function stores nothing, because every scan has its own probe.

    Parameters
    ----------
    X_train : ignored
    probe_guess : complex, shape (mode, y, x), (y, x) or (y, x, 1)

    Returns
    -------
    complex64, shape (mode, y, x), or None without a probe

    Raises
    ------
    ShapeError, DataError
    """
    if probe_guess is None:
        return None
    probe = np.asarray(probe_guess)
    return canonical_probe(probe, probe.shape[min(1, probe.ndim - 1)] if probe.ndim else 0, "probe_guess")
