"""Patches of a known object, cut without losing detail: what a network is to predict (spec: simulation 5.6)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.pretraining.training_set import MARGIN_PX


def sharp_patches(
    obj: NDArray[Any], origin_px: tuple[float, float], positions_px: NDArray[np.float64], N: int
) -> NDArray[np.complex64]:
    """
    Cut windows out of an object at fractional positions.

    Bilinear windows would lose up to a third of the contrast at half of Nyquist, and a network would learn that loss.

    Parameters
    ----------
    obj : complex, shape (y, x)
        Reaches :data:`~ptycho_backend.pretraining.training_set.MARGIN_PX` beyond every window.
    origin_px : (float, float), (y, x)
        Scan coordinates of ``obj[0, 0]``.
    positions_px : float64, shape (position, 2), (y, x)
    N : int
        Side of the windows.

    Returns
    -------
    complex64, shape (position, N, N)
    """
    corners = np.asarray(positions_px) - N // 2 - np.asarray(origin_px)
    whole = np.floor(corners).astype(int)
    blocks = np.lib.stride_tricks.sliding_window_view(obj, (N + 2 * MARGIN_PX - 1,) * 2)
    first = whole - MARGIN_PX + 1
    across_y, across_x = (sinc_matrix(rest, N).astype(np.float32) for rest in (corners - whole).T)
    return np.asarray(across_y @ blocks[first[:, 0], first[:, 1]] @ across_x.transpose(0, 2, 1), dtype=np.complex64)


def sinc_matrix(fraction_px: NDArray[np.float64], N: int) -> NDArray[np.float64]:
    """
    Return windowed-sinc interpolation as matrices (position, N, N + 2·margin − 1).

    Row i reads around pixel i + margin − 1 + fraction, 0 ≤ fraction < 1. Rows sum to one.
    """
    middle = np.arange(N)[:, None] + MARGIN_PX - 1
    distance = np.arange(N + 2 * MARGIN_PX - 1) - middle - np.asarray(fraction_px)[:, None, None]
    kernel = np.where(np.abs(distance) < MARGIN_PX, np.sinc(distance) * np.sinc(distance / MARGIN_PX), 0.0)
    return np.asarray(kernel / kernel.sum(axis=-1, keepdims=True))
