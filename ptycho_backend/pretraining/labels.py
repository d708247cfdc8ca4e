"""Labels: patches of a known object by windowed-sinc interpolation (spec: simulation 5.6)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.pretraining.training_set import MARGIN_PX


def sharp_patches(
    obj: NDArray[Any], origin_px: tuple[float, float], positions_px: NDArray[np.float64], N: int
) -> NDArray[np.complex64]:
    """
    Extract patches of an object at fractional positions by windowed-sinc interpolation.

    Bilinear interpolation would lose up to a third of the contrast at half of Nyquist.

    Parameters
    ----------
    obj : complex, shape (y, x)
        Transmission with a margin of :data:`~ptycho_backend.pretraining.training_set.MARGIN_PX` around every window.
    origin_px : (float, float), (y, x)
        Scan coordinates of ``obj[0, 0]``.
    positions_px : float64, shape (position, 2), (y, x)
    N : int
        Side of the patches.

    Returns
    -------
    complex64, shape (position, N, N)
    """
    corners_px = np.asarray(positions_px) - N // 2 - np.asarray(origin_px)
    pixels = np.floor(corners_px).astype(int)
    blocks = np.lib.stride_tricks.sliding_window_view(obj, (N + 2 * MARGIN_PX - 1,) * 2)
    first = pixels - MARGIN_PX + 1
    along_y, along_x = (sinc_matrix(fraction, N).astype(np.float32) for fraction in (corners_px - pixels).T)
    return np.asarray(along_y @ blocks[first[:, 0], first[:, 1]] @ along_x.transpose(0, 2, 1), dtype=np.complex64)


def sinc_matrix(fraction_px: NDArray[np.float64], N: int) -> NDArray[np.float64]:
    """
    Return matrices (position, N, N + 2·margin − 1) of the windowed-sinc interpolation.

    Row i interpolates at pixel i + margin − 1 + fraction, 0 ≤ fraction < 1. Rows sum to one.
    """
    pixel = np.arange(N)[:, None] + MARGIN_PX - 1
    distance = np.arange(N + 2 * MARGIN_PX - 1) - pixel - np.asarray(fraction_px)[:, None, None]
    kernel = np.where(np.abs(distance) < MARGIN_PX, np.sinc(distance) * np.sinc(distance / MARGIN_PX), 0.0)
    return np.asarray(kernel / kernel.sum(axis=-1, keepdims=True))
