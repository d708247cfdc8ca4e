"""
Translation of patches by pairs of small matrices (spec: physics 1).

A patch of N×N pixels whose offset is d falls onto a canvas of S×S pixels with its centre displaced by d from
the canvas centre: ``place(p, d) = T(dy) p T(dx)^T``. ``extract`` is the exact adjoint. Both are bilinear,
zero outside, and differentiable in the offsets.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def canvas_size(N: int, offsets_px: NDArray[np.floating[Any]]) -> int:
    """Return the one padded size, S = N + 2·ceil(max |offset|), pixels."""
    largest = float(np.abs(offsets_px).max()) if np.size(offsets_px) else 0.0
    return N + 2 * int(np.ceil(largest))


def translation_matrix(offset_px: NDArray[np.floating[Any]], N: int, S: int) -> NDArray[np.float64]:
    """
    Return T(d)[i, j] = max(0, 1 − |(i − (S−1)/2) − (j − (N−1)/2) − d|).

    Parameters
    ----------
    offset_px : float, shape (...)
        Displacement along one axis, pixels.
    N, S : int
        Side of patch and canvas, pixels.

    Returns
    -------
    float64, shape (..., S, N)
    """
    rows = np.arange(S)[:, None] - (S - 1) / 2
    columns = np.arange(N)[None, :] - (N - 1) / 2
    distance = rows - columns - np.asarray(offset_px, dtype=np.float64)[..., None, None]
    return np.maximum(0.0, 1.0 - np.abs(distance))


def place(patch: NDArray[Any], offset_px: NDArray[Any], S: int) -> NDArray[Any]:
    """Put N×N patches (..., y, x) on S×S canvases at offsets (..., 2), (y, x) pixels."""
    N = patch.shape[-1]
    Ty = translation_matrix(offset_px[..., 0], N, S)
    Tx = translation_matrix(offset_px[..., 1], N, S)
    return Ty @ patch @ np.swapaxes(Tx, -1, -2)


def extract(canvas: NDArray[Any], offset_px: NDArray[Any], N: int) -> NDArray[Any]:
    """Cut N×N patches out of S×S canvases (..., y, x) at offsets (..., 2): the adjoint of :func:`place`."""
    S = canvas.shape[-1]
    Ty = translation_matrix(offset_px[..., 0], N, S)
    Tx = translation_matrix(offset_px[..., 1], N, S)
    return np.swapaxes(Ty, -1, -2) @ canvas @ Tx
