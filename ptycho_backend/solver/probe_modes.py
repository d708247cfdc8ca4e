"""
Modes of a partially coherent probe: a start for them, and their orthogonal form (spec: physics 8.7).

References
----------
Thibault and Menzel, *Reconstructing state mixtures from diffraction measurements*, Nature 494 (2013).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MODE_SHARE = 0.2  # of the light, in each added mode; modes that start small stay small
SMALLEST_SHARE = 0.01  # of the light, of a mode that is kept
Complex = NDArray[np.complex64]


def started_modes(probe: NDArray[Any]) -> Complex:
    """
    Return three modes: the first one of a probe, and it times y and times x, with a fifth of the light each.

    Parameters
    ----------
    probe : complex, shape (mode, y, x)

    Returns
    -------
    complex64, shape (3, y, x)
        With the light of the whole probe.
    """
    main, total = probe[0].astype(np.complex128), float((np.abs(probe) ** 2).sum())
    light, axis = np.abs(main) ** 2, np.arange(main.shape[-1], dtype=np.float64)
    y, x = ((axis - (light.sum(axis=1 - k) @ axis) / light.sum()) for k in (0, 1))
    modes = np.stack([main, main * y[:, None], main * x[None]])
    shares = np.array([1 - 2 * MODE_SHARE, MODE_SHARE, MODE_SHARE])
    energy = (np.abs(modes) ** 2).sum(axis=(1, 2))
    return np.asarray(modes * np.sqrt(shares * total / energy)[:, None, None], dtype=np.complex64)


def orthogonal_modes(probe: NDArray[Any], smallest_share: float = SMALLEST_SHARE) -> Complex:
    """
    Return orthogonal modes with the same patterns, the brightest first, without those below a share of the light.

    Any unitary mixture of modes gives the same patterns. The singular vectors are the mixture without overlap.
    """
    matrix = probe.reshape(len(probe), -1).astype(np.complex128)
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    kept = values**2 >= smallest_share * (values**2).sum()
    # The phase of the brightest mode stays near that of the first one.
    phase = np.exp(1j * np.angle(left[0, 0]))
    modes = (values[kept, None] * right[kept]).reshape(-1, *probe.shape[1:])
    return np.asarray(modes * phase, dtype=np.complex64)
